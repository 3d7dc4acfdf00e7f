package handler

import (
	"golang.org/x/sys/unix"
)

// awaitExit blocks until the process has exited, and leaves it a zombie: as long as it is one, its group's id cannot become
// another's, and what it has left in the group can be killed safely.
func (p *process) awaitExit() {
	for {
		if err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			return
		}
	}
}

// noCore forbids core files. Limits that a process must not run a moment without are package launch's; this one is cheaper so.
func noCore(pid int) { _ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil) }

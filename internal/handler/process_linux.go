package handler

import (
	"os"
	"strconv"
	"strings"
	"time"

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

// reapOrphans reaps what was left in a group when its leader was, if this is process 1 of a container: nobody else would. What has
// left the group is for an init that reaps everything.
func reapOrphans(group int) {
	if os.Getpid() != 1 {
		return
	}
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for late := time.After(dieTime); ; {
		id, err := unix.Wait4(-group, nil, unix.WNOHANG, nil)
		if err != nil && err != unix.EINTR {
			return // ECHILD: all are gone
		}
		if id > 0 {
			continue
		}
		select {
		case <-poll.C:
		case <-late:
			return
		}
	}
}

// noCore forbids core files. Limits that a process must not run a moment without are package launch's; this one is cheaper so.
func noCore(pid int) { _ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil) }

// resident returns the bytes of a process that are in memory; -1 if that cannot be known.
func resident(pid int) int64 {
	statm, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm") // in pages: all, resident, …
	if f := strings.Fields(string(statm)); len(f) > 1 {
		if pages, err := strconv.ParseInt(f[1], 10, 64); err == nil {
			return pages * int64(os.Getpagesize())
		}
	}
	return -1
}

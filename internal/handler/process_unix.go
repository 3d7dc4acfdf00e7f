//go:build unix

package handler

import (
	"os/exec"
	"syscall"
)

func canRun() error { return nil }

// ownGroup makes a process the leader of a new process group, whose id is that of the process.
func ownGroup(u *User) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if u != nil {
		a.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID}
	}
	return a
}

// signalGroup ignores errors: there may be nobody left, or only processes of other users.
func signalGroup(id int, s syscall.Signal) { _ = syscall.Kill(-id, s) }

// status returns the exit code of a process that was reaped, or the signal that it died by.
func status(cmd *exec.Cmd) (code int, s syscall.Signal) {
	if cmd.ProcessState == nil {
		return -1, syscall.SIGKILL // it did not even die of that
	}
	if w, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return -1, w.Signal()
	}
	return cmd.ProcessState.ExitCode(), 0
}

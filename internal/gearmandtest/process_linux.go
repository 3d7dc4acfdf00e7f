package gearmandtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// diesWithParent keeps a test binary that panics or is killed from leaving its gearmand behind.
func diesWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// stopped reports whether each thread of the process is in state T. SIGSTOP returns before they are.
func (p *process) stopped() bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	for _, file := range stats {
		stat, err := os.ReadFile(file) // "pid (name) state …", where the name may hold anything
		if err != nil {
			return false
		}
		if _, state, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" ")); len(state) == 0 || state[0] != 'T' {
			return false
		}
	}
	return len(stats) > 0
}

//go:build !linux

package gearmandtest

import "syscall"

func diesWithParent() *syscall.SysProcAttr { return nil }

// stopped takes it that SIGSTOP acts at once.
func (p *process) stopped() bool { return true }

//go:build !linux

package gearman

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing here: RFC 5482 user timeouts are set on Linux only, and ECHO finds a dead peer all the same.
func setUserTimeout(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }

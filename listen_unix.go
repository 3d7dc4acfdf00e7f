//go:build unix

package gateway

import (
	"context"
	"net"
	"syscall"
)

// maxOpenFiles returns how many files the process may have open, which Go's runtime has raised as far as it may; 0: nobody knows.
func maxOpenFiles() int {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil || l.Cur > 1<<30 {
		return 0
	}
	return int(l.Cur)
}

// listenUnix makes a socket that nobody else may use until its mode is set: on Linux it has the mode of what it is bound to.
func listenUnix(path string) (net.Listener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) }) // elsewhere there is a moment with the umask's mode
	}}
	return c.Listen(context.Background(), "unix", path)
}

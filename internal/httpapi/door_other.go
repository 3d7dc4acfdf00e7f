//go:build !linux

package httpapi

import (
	"net"
	"os"
)

// refuse has the kernel establish no more connections for a listener, and reports whether it does so: here, for Unix sockets only.
func refuse(ln net.Listener) bool {
	u, ok := ln.(*net.UnixListener)
	if !ok {
		return false
	}
	u.SetUnlinkOnClose(false) // by then another process may have the name
	return os.Remove(u.Addr().String()) == nil
}

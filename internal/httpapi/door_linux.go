package httpapi

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// refuse has the kernel establish no more connections for a listener, and reports whether it does so. Those that are being established,
// or wait to be accepted, are not touched.
func refuse(ln net.Listener) bool {
	switch ln := ln.(type) {
	case *net.UnixListener:
		ln.SetUnlinkOnClose(false) // by then another process may have the name
		return os.Remove(ln.Addr().String()) == nil
	case *net.TCPListener:
		raw, err := ln.SyscallConn()
		if err != nil {
			return false
		}
		var failed error
		err = raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(noSYN)), Filter: &noSYN[0]})
		})
		return err == nil && failed == nil
	}
	return false
}

// noSYN is a socket filter that drops segments with SYN: a client that comes now sends it again after a second, when the listener is
// closed and it is refused. For a TCP socket the first byte is that of the TCP header, and byte 13 has the flags.
var noSYN = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x02, Jt: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

//go:build unix

package handler

import (
	"os"
	"sync"
	"syscall"
)

// A lastLines reads a pipe to its end, keeps the last lines, and can say at any moment what they are: what was written before
// the question is in the answer, although another goroutine does the reading.
type lastLines struct {
	raw syscall.RawConn
	mu  sync.Mutex // held over each read and what follows from it
	buf []byte
	t   tail
}

func newLastLines(f *os.File) *lastLines {
	raw, _ := f.SyscallConn() // fails for a nil File alone
	return &lastLines{raw: raw, buf: make([]byte, 4<<10)}
}

// run reads until the end of the pipe, or until it is closed.
func (l *lastLines) run() {
	for more := true; more; {
		err := l.raw.Read(func(fd uintptr) bool {
			n, err := l.read(fd)
			more = n > 0 || err == syscall.EINTR
			return err != syscall.EAGAIN
		})
		more = more && err == nil
	}
}

func (l *lastLines) read(fd uintptr) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.readLocked(fd)
}

func (l *lastLines) readLocked(fd uintptr) (int, error) {
	n, err := syscall.Read(int(fd), l.buf)
	if n > 0 {
		_, _ = l.t.Write(l.buf[:n])
	}
	return n, err
}

// take returns the last lines since it was called before.
func (l *lastLines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.raw.Control(func(fd uintptr) { // a closed pipe has been read
		for range 64 { // and not forever, if it is written to all the time
			if n, _ := l.readLocked(fd); n <= 0 {
				break
			}
		}
	})
	s := l.t.String()
	l.t.b = l.t.b[:0]
	return s
}

// silent says that there is nothing to read from a pipe, and not its end either.
func silent(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var b [1]byte
	var n int
	if controlled := raw.Control(func(fd uintptr) { n, err = syscall.Read(int(fd), b[:]) }); controlled != nil {
		return false
	}
	return n < 0 && err == syscall.EAGAIN
}

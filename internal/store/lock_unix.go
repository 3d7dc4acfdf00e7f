//go:build unix && !solaris && !illumos && !aix

package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// lock takes the lock file for this process, until the file is closed or the process ends, however it ends. The file says who
// has it, and is left behind.
func lock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("in use by %s", holder(f))
	}
	if err == nil {
		err = sign(f)
	}
	if err != nil {
		_ = f.Close() // nothing was written that matters
		return nil, err
	}
	return f, nil
}

// sign writes who holds the lock. A full disk does not keep the gateway from starting: that it knows how to live with.
func sign(f *os.File) error {
	host, err := os.Hostname()
	if err != nil {
		host = "an unknown host"
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "process %d on %s\n", os.Getpid(), host)
	if errors.Is(err, syscall.ENOSPC) {
		return nil
	}
	return err
}

func holder(f *os.File) string {
	who, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil || len(who) == 0 {
		return "another process"
	}
	return strings.TrimSpace(string(who))
}

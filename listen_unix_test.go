//go:build linux

package gateway

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Between bind and chmod a socket would be open to everybody with a lax umask.
func TestASocketIsNobodyElsesBeforeItHasItsMode(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "gateway.sock")
	ln, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("it is made with %v, %v", info.Mode(), err)
	}
}

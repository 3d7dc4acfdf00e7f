package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestAFullDisk fills the disk under the data directory: what must be durable is refused, all else goes on, nothing that was
// acknowledged is lost, and when there is room again nobody has to do anything.
func TestAFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatalf("this test mounts a small tmpfs, as root may: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, 0) })
	g := &crashing{t: t, args: []string{
		"--listen=127.0.0.1:0", "--jobserver-listen=127.0.0.1:0", "--data=" + filepath.Join(disk, "data"),
	}}
	g.start()
	t.Cleanup(g.kill) // before the disk goes
	load := &crashLoad{t: t, gateway: g, acked: map[string]string{}, keys: map[string]string{}}

	tracked := func(i int) int {
		workload := fmt.Sprint("full ", i)
		id, status := load.post(fmt.Sprintf(`{"function":"echo","workload":%q,"mode":"tracked"}`, workload), "")
		if status == http.StatusAccepted {
			load.acked[id] = workload
		}
		return status
	}
	if status := tracked(0); status != http.StatusAccepted {
		t.Fatalf("with room: %d", status)
	}
	free := ballast(t, disk)
	refused := false
	for i := 1; i <= 500 && !refused; i++ { // pages that are free already take some
		refused = tracked(i) == http.StatusServiceUnavailable
	}
	if !refused {
		t.Error("tracked jobs are accepted on a full disk")
	}
	for _, mode := range []string{"background", "sync"} {
		if _, status := load.post(`{"function":"echo","workload":"x","mode":"`+mode+`"}`, ""); status/100 != 2 {
			t.Errorf("%s on a full disk: %d", mode, status)
		}
	}
	free()
	deadline := time.Now().Add(30 * time.Second)
	for i := 1000; tracked(i) != http.StatusAccepted; i++ {
		if time.Now().After(deadline) {
			t.Fatal("with room again tracked jobs are still refused")
		}
		<-time.After(50 * time.Millisecond)
	}
	for id, workload := range load.acked {
		load.checkResult(id, workload, workload)
	}
	g.kill()
	g.start()
	for id, workload := range load.acked {
		load.checkResult(id, workload, workload)
	}
}

// ballast leaves no byte free until the function that it returns is called.
func ballast(t *testing.T, dir string) (free func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(f.Name()); err != nil {
			t.Error(err)
		}
	}
}

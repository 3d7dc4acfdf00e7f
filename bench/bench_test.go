//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program builds the benchmark and the gateway, and returns a command of the benchmark whose files, and those of what it starts, are in dir.
func program(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	if _, err := exec.LookPath("wrk"); err != nil {
		t.Skip("wrk is not installed: .ci/install bench does that")
	}
	for name, pkg := range map[string]string{"bench": ".", "gateway": "../cmd/gateway"} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg).CombinedOutput(); err != nil {
			t.Fatalf("go build %s: %v\n%s", pkg, err, out)
		}
	}
	cmd := exec.Command(filepath.Join(dir, "bench"), append(args, "--gateway", filepath.Join(dir, "gateway"))...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	return cmd
}

// leftovers returns the processes that run a program of dir or write to a file of it.
func leftovers(dir string) (found []string) {
	for _, pattern := range []string{"/proc/[0-9]*/exe", "/proc/[0-9]*/fd/2"} {
		links, _ := filepath.Glob(pattern)
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, dir+"/") {
				found = append(found, link+" → "+to)
			}
		}
	}
	return found
}

// TestEveryRowIsThere runs the benchmark with rounds that are too short to measure anything.
func TestEveryRowIsThere(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "performance.md")
	if err := os.WriteFile(page, []byte("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := program(t, dir, "run", "--docs", dir)
	cmd.Env = append(cmd.Env, "BENCH_TIME=20ms")
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	rows := []string{"| embedded | 0 |", "| embedded | 10000 |", "| gearmand | 0 |", "| gearmand | 10000 |", "\n| 10 | 50 | 50 |", "\n| 1000 | 2000 | 2000 |"}
	for _, c := range table() {
		rows = append(rows, fmt.Sprintf("\n| %s | %s | %d | %d |", c.name, c.work, c.conns, c.size))
	}
	for n := range 8 {
		rows = append(rows, fmt.Sprintf("\n| %d | ", n+1))
	}
	for _, row := range rows {
		if !bytes.Contains(out, []byte(row)) {
			t.Errorf("the table has no row %q", row)
		}
	}
	if bytes.Contains(out, []byte("not measured")) {
		t.Errorf("something was not measured:\n%s", out)
	}
	if t.Failed() {
		t.Logf("%s\n%s", &log, out)
	}
	if got, err := os.ReadFile(page); err != nil || string(got) != "before\n<!-- bench -->\n"+string(out)+"<!-- /bench -->\nafter\n" {
		t.Errorf("the page is not what was printed: %v\n%s", err, got)
	}
	checkXML(t, filepath.Join(dir, "performance.svg"))
	if left := leftovers(dir); len(left) > 0 {
		t.Errorf("these still run: %v", left)
	}
}

func checkXML(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := xml.NewDecoder(f); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("the plot is not XML: %v", err)
		}
	}
}

// TestAnInterruptLeavesNothing interrupts the benchmark, and then kills it, while its contenders run.
func TestAnInterruptLeavesNothing(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			dir := t.TempDir()
			cmd := program(t, dir)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			poll(t, "contenders to run", func() bool { return len(leftovers(dir)) > 1 }) // one is the benchmark
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("no error says that it was interrupted")
			}
			poll(t, "all to be gone", func() bool { return len(leftovers(dir)) == 0 })
		})
	}
}

// TestSoakComesBack soaks for a moment: no request fails, and there is a line for each thing that is looked at.
func TestSoakComesBack(t *testing.T) {
	cmd := program(t, t.TempDir(), "soak", "--for", "2s", "--rate", "100", "--settle", "3s")
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil && !strings.Contains(log.String(), "did not come back") { // there was no time for that
		t.Fatalf("%v\n%s", err, &log)
	}
	for _, row := range []string{" 0 of them not answered", "| goroutines |", "| threads |", "| descriptors |", "| RSS, MiB |"} {
		if !bytes.Contains(out, []byte(row)) {
			t.Errorf("no %q in:\n%s", row, out)
		}
	}
}

// poll waits until done, and fails the test after a minute.
func poll(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !done(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

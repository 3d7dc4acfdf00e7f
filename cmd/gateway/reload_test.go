package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// reloadConfig has a function that notes each of its runs in a file, another that comes and goes, and a sink that does so, too.
const reloadConfig = `
listen: 127.0.0.1:0
jobserver: {listen: 127.0.0.1:0}
handlers:
  - {function: note, exec: [tee, -a, %q], timeout: %ds}
`

// TestReloadUnderLoad sends SIGHUP 20 times while jobs are submitted and run: none is lost, and none runs twice. A configuration with a
// mistake changes nothing.
func TestReloadUnderLoad(t *testing.T) {
	dir := t.TempDir()
	runs, file, logs := filepath.Join(dir, "runs"), filepath.Join(dir, "gateway.yaml"), filepath.Join(dir, "log")
	write := func(n int) {
		text := fmt.Sprintf(reloadConfig, runs, 10+n)
		switch n % 3 {
		case 1:
			text += "  - {function: other, exec: [cat]}\n"
		case 2:
			text += "sinks: [{name: deaf, url: 'http://127.0.0.1:1/'}]\nworkers: {max_jobs: 1000}\n"
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	g := &crashing{t: t, args: []string{"--config", file}}
	log := g.startLogging(logs)
	t.Cleanup(g.kill)

	load := &crashLoad{t: t, gateway: g, acked: map[string]string{}, keys: map[string]string{}}
	stop := make(chan struct{})
	var submitting sync.WaitGroup
	submitting.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			note := fmt.Sprintf("job %d\n", i)
			id, status := load.post(fmt.Sprintf(`{"function":"note","mode":"tracked","workload":%q}`, note), "")
			if status != 202 {
				t.Errorf("job %d: %d", i, status)
				return
			}
			load.acknowledge(id, note, "")
		}
	})
	hangup := func(message string) {
		before := strings.Count(log(), message)
		if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); strings.Count(log(), message) == before; <-time.After(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no %q in the log:\n%s", message, log())
			}
		}
	}
	for n := range 20 {
		load.waitFor(t, 10*(n+1))
		write(n + 1)
		hangup("configuration reloaded")
	}
	if err := os.WriteFile(file, []byte("handlers: [{function: note, exec: []}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangup("configuration not reloaded")
	if !strings.Contains(log(), "exec: is missing or empty") {
		t.Errorf("the log does not say what is wrong:\n%s", log())
	}
	close(stop)
	submitting.Wait()

	for id, note := range load.acked {
		load.checkResult(id, note, note)
	}
	noted, err := os.ReadFile(runs)
	if err != nil {
		t.Fatal(err)
	}
	for _, note := range load.acked {
		if n := bytes.Count(noted, []byte(note)); n != 1 {
			t.Errorf("%q ran %d times", note, n)
		}
	}
	t.Logf("%d jobs", len(load.acked))
}

// waitFor waits until so many jobs were acknowledged.
func (l *crashLoad) waitFor(t *testing.T, jobs int) {
	t.Helper()
	acked := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.acked)
	}
	for deadline := time.Now().Add(30 * time.Second); acked() < jobs; <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d jobs are acknowledged, want %d", acked(), jobs)
		}
	}
}

// startLogging starts the gateway with its log in a file, and returns what reads it.
func (g *crashing) startLogging(file string) (log func() string) {
	out, err := os.Create(file)
	if err != nil {
		g.t.Fatal(err)
	}
	defer out.Close()
	log = func() string {
		b, err := os.ReadFile(file)
		if err != nil {
			g.t.Fatal(err)
		}
		return string(b)
	}
	g.cmd = command(nil, g.args...)
	g.cmd.Stderr = out
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		if _, after, ok := strings.Cut(log(), `"addr":"`); ok && strings.Contains(after, "gateway serves HTTP") {
			addr, _, _ := strings.Cut(after, `"`)
			url := "http://" + addr
			g.url.Store(&url)
			return log
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("the gateway did not start:\n%s", log())
		}
	}
}

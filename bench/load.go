//go:build linux

package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// loaded is what a load generator tells in a line of JSON.
type loaded struct {
	Requests int   `json:"requests"`
	US       int64 `json:"us"` // how long it loaded; all times are in microseconds
	P50      int64 `json:"p50"`
	P99      int64 `json:"p99"`
	Errors   int   `json:"errors"`
	CPU      int64 `json:"cpu"` // of itself, where it is the contender
	RSS      int64 `json:"rss"` // and its peak, in KiB
}

//go:embed wrk.lua
var script []byte

//go:embed client.php
var client []byte

// runs tells the uniques of one run of wrk from those of another.
var runs atomic.Int64

// wrk loads a rig over HTTP.
func (b *bench) wrk(ctx context.Context, r *rig, c *cell, d time.Duration) (loaded, error) {
	file := filepath.Join(r.dir, "request")
	if err := os.WriteFile(file, requestFor(r.setup, c.work, c.size), 0o600); err != nil {
		return loaded{}, err
	}
	return generate(ctx, d, "wrk", "-t1", "-c"+strconv.Itoa(c.conns), "-d1h", "--timeout", "30s", "-s", filepath.Join(b.dir, "wrk.lua"), "http://"+r.http,
		"--", file, fmt.Sprintf("run%d-", runs.Add(1)))
}

// raw loads the job server of a rig with this program.
func (b *bench) raw(ctx context.Context, r *rig, c *cell, d time.Duration) (loaded, error) {
	return generate(ctx, 0, b.self, "raw", "--addr", r.gearman, "--work", c.work, "--callers", strconv.Itoa(c.conns), "--size", strconv.Itoa(c.size),
		"--time", d.String())
}

// php loads the job server of a rig with php-gearman. It has one connection, and waits for each answer.
func (b *bench) php(ctx context.Context, r *rig, c *cell, d time.Duration) (loaded, error) {
	host, port, _ := strings.Cut(r.gearman, ":")
	return generate(ctx, 0, "php", filepath.Join(b.dir, "client.php"), host, port, c.work, workload(c.size), fmt.Sprint(d.Seconds()))
}

// generate runs a load generator and reads the last line that it prints. wrk knows whole seconds only: it is interrupted after d, and stops
// within 100 ms of that. Those that are given their time have a d of 0.
func generate(ctx context.Context, d time.Duration, argv ...string) (l loaded, err error) {
	ctx, cancel := context.WithTimeout(ctx, d+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	runtime.LockOSThread() // as in start
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return l, err
	}
	exited := make(chan struct{})
	interrupting := make(chan struct{})
	go func() {
		defer close(interrupting)
		for wait := d; d > 0; wait = 5 * time.Millisecond {
			select {
			case <-exited:
				return
			case <-time.After(wait):
			}
			if catchesInterrupt(cmd.Process.Pid) { // before that it would die of it
				_ = cmd.Process.Signal(os.Interrupt) // fails when it is gone already
				return
			}
		}
	}()
	err = cmd.Wait()
	close(exited)
	<-interrupting
	if err == nil {
		lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
		err = json.Unmarshal(lines[len(lines)-1], &l)
	}
	if err != nil {
		return l, fmt.Errorf("%s: %w: %s%s", filepath.Base(argv[0]), err, out.Bytes(), log.Bytes())
	}
	return l, nil
}

// catchesInterrupt reports whether a process has a handler for SIGINT.
func catchesInterrupt(pid int) bool {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(status), "SigCgt:\t")
	mask, _, _ := strings.Cut(rest, "\n")
	caught, _ := strconv.ParseUint(mask, 16, 64)
	return caught>>(syscall.SIGINT-1)&1 == 1
}

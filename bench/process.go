//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program under measurement. The kernel kills it when this program ends.
type process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when it is gone
	log    string        // file of what it writes
}

// start runs a program. Its standard output and error go to a file of dir.
func start(dir, name string, argv ...string) (*process, error) {
	out, err := os.CreateTemp(dir, name+"-*.log")
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{name: name, cmd: exec.Command(argv[0], argv[1:]...), exited: make(chan struct{}), log: out.Name()}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the parent, to the kernel, is the thread that forked: it must live as long as the process
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // the log tells more
			close(p.exited)
		}
	}()
	return p, <-started
}

// kill ends the process and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails when it is gone already
	<-p.exited
}

// tail is the end of what the process wrote.
func (p *process) tail() string {
	text, _ := os.ReadFile(p.log)
	text = bytes.TrimSpace(text)
	return string(text[max(0, len(text)-500):])
}

// ready polls until a process does what is asked for, which says why not by its error.
func (p *process) ready(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.name, err, p.tail())
		case <-p.exited:
			return fmt.Errorf("%s: %w\n%s", p.name, errEnded, p.tail())
		case <-tick.C:
		}
	}
}

var errEnded = errors.New("has ended")

// clockTick is USER_HZ, in which the kernel counts CPU time for /proc on every architecture that Go knows.
const clockTick = time.Second / 100

// cpu is the CPU time that the process has used, in user and kernel mode.
func (p *process) cpu() (time.Duration, error) {
	if p == nil {
		return 0, nil
	}
	stat, err := os.ReadFile(p.proc("stat"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // "pid (name) state …", where the name may hold anything
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s: /proc has no CPU time", p.name)
	}
	user, errUser := strconv.Atoi(fields[11])
	system, errSystem := strconv.Atoi(fields[12])
	return time.Duration(user+system) * clockTick, errors.Join(errUser, errSystem)
}

// memory returns a line of /proc/…/status in bytes: VmRSS for what is resident now, VmHWM for its peak; 0 for no process.
func (p *process) memory(name string) int64 {
	if p == nil {
		return 0
	}
	status, _ := os.ReadFile(p.proc("status"))
	_, rest, _ := strings.Cut(string(status), name+":")
	kib, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, _ := strconv.ParseInt(kib, 10, 64)
	return n << 10
}

// entries counts what is in a directory of /proc: task for threads, fd for descriptors.
func (p *process) entries(dir string) int {
	names, _ := filepath.Glob(filepath.Join(p.proc(dir), "*"))
	return len(names)
}

func (p *process) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), name)
}

// freeAddress returns an address of the loopback interface that nobody listens on. Its port lies below those that the kernel hands out by
// itself, so that no connection takes it before its server does, and among a hundred that most likely no other test takes one of.
func freeAddress() (string, error) {
	first := 10000 + os.Getpid()%220*100
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+rand.IntN(100)))
		if l, err := net.Listen("tcp4", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.New("no port is free")
}

package gearmandtest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// process is one run of gearmand. Its goroutine ends with it; kill ends both.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed once the process is gone and its exit status collected
}

// start runs the program with its stderr appended to the file log.
func start(program string, args []string, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the process has its own copy
	p := &process{cmd: exec.Command(program, args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = out, out, diesWithParent()
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the parent, to the kernel, is the thread that forked: it must live as long as the process
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // an exit status tells nothing that the log does not
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("gearmand: %w", err)
	}
	return p, nil
}

// kill ends the process if it still runs and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails when it is gone already
	<-p.exited
}

// askPID returns the process id of the gearmand that answers on addr, 0 when none does. A connect alone would say less:
// another process may hold the port, and gearmand tries for 20 s to bind one that is taken.
func askPID(addr string) int {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return 0
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("getpid\n")); err != nil {
		return 0
	}
	line, _ := bufio.NewReader(conn).ReadString('\n')
	pid, _ := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "OK ")))
	return pid
}

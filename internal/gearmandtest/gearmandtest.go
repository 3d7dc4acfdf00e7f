// Package gearmandtest runs real gearmand processes for tests. Only tests import it.
package gearmandtest

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// deadline is how long a step may take on a loaded machine before the test fails.
const deadline = 60 * time.Second

// Server is one gearmand on 127.0.0.1, with an address that stays the same over restarts. Its methods but Addr fail the
// test when they cannot do what they say, so they are for the goroutine that runs the test, one at a time.
type Server struct {
	t       testing.TB
	program string
	args    []string
	port    int
	log     string // the file that every process of this server writes its stderr to
	proc    *process
}

// Start runs gearmand with args after its own (-L, -p, -l and --hashtable-buckets) and returns once it answers. The
// test's cleanup kills it, in whatever state it is, and shows its log when the test failed. A machine without gearmand
// fails the test.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{t: t, program: lookPath(t), args: args, log: filepath.Join(t.TempDir(), "gearmand.log")}
	t.Cleanup(func() {
		if s.proc != nil {
			s.proc.kill()
		}
		if t.Failed() {
			log, _ := os.ReadFile(s.log)
			t.Logf("gearmand on %s wrote:\n%s", s.Addr(), log)
		}
	})
	for range 10 {
		s.port = freePort(t)
		if s.run() {
			return s
		}
		s.proc.kill() // somebody took the port between the look and the bind
	}
	t.Fatal("gearmand did not start on any of 10 ports")
	return nil
}

// Addr returns the host:port that the server listens on. It is safe for concurrent use.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// PID returns the id of the process that runs now or ran last.
func (s *Server) PID() int { return s.proc.cmd.Process.Pid }

// Kill ends the server with SIGKILL, paused or not, and returns when it is gone.
func (s *Server) Kill() {
	s.t.Helper()
	s.proc.kill()
}

// Terminate ends the server with SIGTERM, as an operator does, and returns when it is gone. A paused server is resumed,
// or it would never see the signal.
func (s *Server) Terminate() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	s.signal(syscall.SIGCONT)
	select {
	case <-s.proc.exited:
	case <-time.After(deadline):
		s.t.Fatalf("gearmand %d outlived SIGTERM", s.PID())
	}
}

// Pause stops the server with SIGSTOP and returns when every thread of it stands still. The kernel goes on accepting
// connections and bytes for it: only the answers cease.
func (s *Server) Pause() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	poll(s.t, "gearmand to stand still", func() bool { return s.proc.stopped() })
}

// Resume lets a paused server go on with SIGCONT.
func (s *Server) Resume() {
	s.t.Helper()
	s.signal(syscall.SIGCONT)
}

// Restart runs gearmand again on the same port with the same arguments, after Kill or Terminate, and returns once it answers.
func (s *Server) Restart() {
	s.t.Helper()
	select {
	case <-s.proc.exited:
	default:
		s.t.Fatalf("gearmand %d is to be restarted, but still runs", s.PID())
	}
	if !s.run() {
		s.t.Fatalf("gearmand did not come back on %s", s.Addr())
	}
}

// run starts a process and reports whether it came to own the port.
func (s *Server) run() bool {
	s.t.Helper()
	args := append([]string{
		"-L", "127.0.0.1", "-p", strconv.Itoa(s.port), "-l", "stderr",
		"--hashtable-buckets", "100003", // the default of 991 makes a long queue slow
	}, s.args...)
	proc, err := start(s.program, args, s.log)
	if err != nil {
		s.t.Fatal(err)
	}
	s.proc = proc
	owner := 0
	poll(s.t, "gearmand to answer", func() bool {
		select {
		case <-proc.exited:
			return true
		default:
			owner = askPID(s.Addr())
			return owner != 0
		}
	})
	return owner == s.PID()
}

func (s *Server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.proc.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Fatalf("gearmand %d: %v: %v", s.PID(), sig, err)
	}
}

func lookPath(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"gearmand", "/usr/sbin/gearmand", "/usr/local/sbin/gearmand"} { // an unprivileged PATH has no sbin
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("gearmand is not installed: run make test, which installs it")
	return ""
}

// freePort returns a port that nobody listens on. It lies below the ports that the kernel hands out by itself (from
// 32768 up), so that no other socket takes it while the server is down between Kill and Restart; and among a hundred that most likely no
// other package's tests, which run at the same time, take one of.
func freePort(t testing.TB) int {
	t.Helper()
	first := 10000 + os.Getpid()%220*100
	for range 1000 {
		port := first + rand.IntN(100)
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// poll waits until done, looking every 10 ms, and fails the test at the deadline.
func poll(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(deadline); !done(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", deadline, what)
		}
	}
}

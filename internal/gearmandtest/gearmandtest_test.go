package gearmandtest

import (
	"bufio"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestServerLivesThroughItsMethods(t *testing.T) {
	s := Start(t)
	addr, first := s.Addr(), s.PID()
	if got := askPID(addr); got != first {
		t.Fatalf("process %d answers on %s, want %d", got, addr, first)
	}

	s.Kill()
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("a killed server accepts connections")
	}
	s.Restart()
	if s.Addr() != addr || s.PID() == first {
		t.Errorf("after a restart: %s, process %d; before: %s, process %d", s.Addr(), s.PID(), addr, first)
	}

	s.Terminate()
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("a terminated server accepts connections")
	}
	s.Restart()
	if got := askPID(addr); got != s.PID() {
		t.Errorf("process %d answers after two restarts, want %d", got, s.PID())
	}
}

func TestPausedServerAcceptsButStaysSilent(t *testing.T) {
	s := Start(t)
	s.Pause()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("version\n")); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Fatalf("a paused server answered %d bytes", n)
	}

	s.Resume()
	_ = conn.SetReadDeadline(time.Now().Add(deadline))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "OK ") {
		t.Errorf("the resumed server answered %q, %v", line, err)
	}
}

func TestPausedServerCanBeEnded(t *testing.T) {
	for name, end := range map[string]func(*Server){"kill": (*Server).Kill, "terminate": (*Server).Terminate} {
		t.Run(name, func(t *testing.T) {
			s := Start(t)
			s.Pause()
			end(s)
			if got := askPID(s.Addr()); got != 0 {
				t.Errorf("process %d answers after its end", got)
			}
		})
	}
}

func TestCleanupEndsAPausedServer(t *testing.T) {
	var s *Server
	t.Run("paused", func(t *testing.T) {
		s = Start(t)
		s.Pause()
	})
	select {
	case <-s.proc.exited:
	default:
		t.Error("gearmand runs after its test")
	}
}

func TestStartLeavesATakenPort(t *testing.T) {
	taken := Start(t)
	s := &Server{t: t, program: taken.program, port: taken.port, log: filepath.Join(t.TempDir(), "log")}
	if s.run() {
		t.Error("two servers say that they own one port")
	}
	s.Kill()
}

func TestArgumentsReachGearmand(t *testing.T) {
	db := filepath.Join(t.TempDir(), "queue.db")
	s := Start(t, "-q", "libsqlite3", "--libsqlite3-db="+db)
	s.Terminate()
	if found, _ := filepath.Glob(db); found == nil {
		t.Errorf("no queue at %s", db)
	}
}

package jobserver_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"gearman-gateway/internal/gearman/wire"
	"gearman-gateway/internal/jobserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

func start(t testing.TB, o jobserver.Options) *jobserver.Server {
	t.Helper()
	o.Listen = "127.0.0.1:0"
	s := jobserver.New(o)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// eventually polls a condition that another connection's end brings about.
func eventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !met(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// A peer is a client or a worker, packet by packet.
type peer struct {
	t       testing.TB
	nc      net.Conn
	br      *bufio.Reader
	packets *wire.Reader
}

func connect(t testing.TB, s *jobserver.Server) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetReadDeadline(time.Now().Add(3 * patience))
	br := bufio.NewReader(nc)
	return &peer{t, nc, br, wire.NewReader(br, wire.Response, 0)}
}

// worker connects and registers functions.
func worker(t testing.TB, s *jobserver.Server, functions ...string) *peer {
	t.Helper()
	p := connect(t, s)
	for _, f := range functions {
		p.send(wire.CanDo, f)
	}
	p.silent()
	return p
}

func (p *peer) close() { p.nc.Close() }

func (p *peer) send(t wire.Type, args ...string) {
	p.t.Helper()
	raw := make([][]byte, len(args))
	for i, a := range args {
		raw[i] = []byte(a)
	}
	p.write(wire.Append(nil, wire.Request, t, raw...))
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	if _, err := p.nc.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

// read returns the next packet as a line: its type and arguments.
func (p *peer) read() string {
	p.t.Helper()
	packet, err := p.packets.Next()
	if err != nil {
		p.t.Fatal(err)
	}
	return line(packet.Type, packet.Args)
}

func line[A string | []byte](t wire.Type, args []A) string {
	s := t.String()
	for _, a := range args {
		s += fmt.Sprintf(" %q", a)
	}
	return s
}

func (p *peer) want(t wire.Type, args ...string) {
	p.t.Helper()
	if diff := cmp.Diff(line(t, args), p.read()); diff != "" {
		p.t.Fatalf("packet (-want +got):\n%s", diff)
	}
}

// wantError expects ERROR with a code, whatever its text.
func (p *peer) wantError(code string) {
	p.t.Helper()
	if got := p.read(); !strings.HasPrefix(got, fmt.Sprintf("ERROR %q", code)) {
		p.t.Fatalf("got %s, want ERROR %s", got, code)
	}
}

// silent shows that the server has nothing else to say: the next packet is the echo asked for now. All requests before have been
// acted on then.
func (p *peer) silent() {
	p.t.Helper()
	p.send(wire.EchoReq, "silence")
	p.want(wire.EchoRes, "silence")
}

// wantEnd expects the server to close the connection.
func (p *peer) wantEnd() {
	p.t.Helper()
	if got, err := p.packets.Next(); err == nil {
		p.t.Fatalf("got %s, want the end of the connection", line(got.Type, got.Args))
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		p.t.Fatal("the connection stays open")
	}
}

// submit sends a submitting packet and returns the handle.
func (p *peer) submit(t wire.Type, args ...string) string {
	p.t.Helper()
	p.send(t, args...)
	packet, err := p.packets.Next()
	if err != nil {
		p.t.Fatal(err)
	}
	if packet.Type != wire.JobCreated {
		p.t.Fatalf("got %s, want JOB_CREATED", line(packet.Type, packet.Args))
	}
	return string(packet.Args[0])
}

// grab expects to be assigned the job with that handle, and returns its workload.
func (p *peer) grab(handle string) string {
	p.t.Helper()
	p.send(wire.GrabJob)
	packet, err := p.packets.Next()
	if err != nil {
		p.t.Fatal(err)
	}
	if packet.Type != wire.JobAssign || string(packet.Args[0]) != handle {
		p.t.Fatalf("got %s, want the job %s", line(packet.Type, packet.Args), handle)
	}
	return string(packet.Args[2])
}

// run expects to be assigned the job with that handle, and completes it.
func (p *peer) run(handle string) {
	p.t.Helper()
	p.grab(handle)
	p.send(wire.WorkComplete, handle, "")
	p.silent()
}

func (p *peer) wantNoJob() {
	p.t.Helper()
	p.send(wire.GrabJob)
	p.want(wire.NoJob)
}

// sleep says PRE_SLEEP and makes sure that the server has heard it and does not wake the worker again.
func (p *peer) sleep() {
	p.t.Helper()
	p.send(wire.PreSleep)
	p.silent()
}

func (p *peer) status(handle string) string {
	p.t.Helper()
	p.send(wire.GetStatus, handle)
	packet, err := p.packets.Next()
	if err != nil {
		p.t.Fatal(err)
	}
	got := line(packet.Type, packet.Args)
	status, ok := strings.CutPrefix(got, fmt.Sprintf("STATUS_RES %q ", handle))
	if !ok {
		p.t.Fatalf("got %s, want STATUS_RES of %s", got, handle)
	}
	return strings.ReplaceAll(status, `"`, "")
}

func (p *peer) wantStatus(handle, want string) {
	p.t.Helper()
	if got := p.status(handle); got != want {
		p.t.Fatalf("status of %s: got %s, want %s", handle, got, want)
	}
}

// admin sends a line on a connection of its own and returns the whole answer: the server ends the connection after it because
// the peer has.
func admin(t testing.TB, s *jobserver.Server, command string) string {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	io.WriteString(nc, command)
	nc.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(nc)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// functionStatus returns the line of a function in the table "status", as numbers joined by spaces.
func functionStatus(t testing.TB, s *jobserver.Server, function string) string {
	t.Helper()
	for row := range strings.Lines(admin(t, s, "status\n")) {
		if rest, ok := strings.CutPrefix(row, function+"\t"); ok {
			return strings.ReplaceAll(strings.TrimSpace(rest), "\t", " ")
		}
	}
	return ""
}

func itoa(n int) string { return strconv.Itoa(n) }

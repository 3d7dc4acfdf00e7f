package jobserver_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/gearman/wire"
	"gearman-gateway/internal/jobserver"
)

// A logBook is a logger's output that a test may read meanwhile.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBook) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

func TestTakenPortIsNamed(t *testing.T) {
	s := start(t, jobserver.Options{})
	err := jobserver.New(jobserver.Options{Listen: s.Addr()}).Start()
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), s.Addr()) {
		t.Errorf("got %v, want EADDRINUSE and the address %s", err, s.Addr())
	}
}

func TestStopEndsConnectionsAndTwiceIsOnce(t *testing.T) {
	s := start(t, jobserver.Options{})
	idle, w := connect(t, s), worker(t, s, "f")
	w.grab(idle.submit(wire.SubmitJob, "f", "", ""))
	s.Stop()
	s.Stop()
	idle.wantEnd()
	w.wantEnd()
	if _, err := net.Dial("tcp", s.Addr()); err == nil {
		t.Error("it still listens")
	}
}

func TestStopTellsWhatIsLost(t *testing.T) {
	var book logBook
	s := start(t, jobserver.Options{Log: zerolog.New(&book)})
	c := connect(t, s)
	for range 2 {
		c.submit(wire.SubmitJobBG, "f", "", "")
	}
	c.submit(wire.SubmitJob, "f", "", "") // whose client is told
	s.Stop()
	if !book.has("are lost") || !book.has(`"jobs":2,`) {
		t.Errorf("the log has %s", book.b.String())
	}
}

func TestFullQueues(t *testing.T) {
	const full = "Job queue is full"
	for name, test := range map[string]struct {
		options jobserver.Options
		command string
	}{
		"maxqueue":                 {command: "maxqueue f 2\n"},
		"maxqueue of the priority": {command: "maxqueue f 9 2 9\n"},
		"jobs":                     {options: jobserver.Options{MaxJobs: 2}},
		"bytes":                    {options: jobserver.Options{MaxBytes: 2*4 + 3}},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, test.options)
			if test.command != "" {
				if got := admin(t, s, test.command); got != "OK\r\n" {
					t.Fatalf("%q: %q", test.command, got)
				}
			}
			c, w := connect(t, s), worker(t, s, "f")
			h := c.submit(wire.SubmitJobBG, "f", "u", "xx")
			c.submit(wire.SubmitJobBG, "f", "v", "xx")
			for _, submit := range []wire.Type{wire.SubmitJob, wire.SubmitJobBG} {
				c.send(submit, "f", "w", "xx")
				c.want(wire.Error, "QUEUE_ERROR", full)
			}
			if again := c.submit(wire.SubmitJob, "f", "u", "xx"); again != h { // makes no job
				t.Errorf("got %s, want %s", again, h)
			}
			w.grab(h)
			c.send(wire.SubmitJob, "f", "w", "xx") // a running job counts
			c.want(wire.Error, "QUEUE_ERROR", full)
			w.send(wire.WorkComplete, h, "")
			c.want(wire.WorkComplete, h, "")
			c.submit(wire.SubmitJob, "f", "w", "xx")
		})
	}
}

func TestMaxqueueOfOnePriorityLeavesOthers(t *testing.T) {
	s := start(t, jobserver.Options{})
	c := connect(t, s)
	admin(t, s, "maxqueue f 0 1 2\n")
	c.submit(wire.SubmitJobBG, "f", "", "")
	c.send(wire.SubmitJobBG, "f", "", "")
	c.wantError("QUEUE_ERROR")
	c.submit(wire.SubmitJobLowBG, "f", "", "")
	c.send(wire.SubmitJobLowBG, "f", "", "")
	c.wantError("QUEUE_ERROR")
	for range 5 {
		c.submit(wire.SubmitJobHighBG, "f", "", "")
	}
	admin(t, s, "maxqueue f\n") // no more limit
	c.submit(wire.SubmitJobBG, "f", "", "")
}

func TestIdleFunctionsMakeRoom(t *testing.T) {
	s := start(t, jobserver.Options{MaxFunctions: 2})
	w := worker(t, s, "a", "b")
	w.send(wire.CanDo, "c")
	w.wantError("QUEUE_ERROR")
	w.send(wire.SubmitJobBG, "c", "", "")
	w.wantError("QUEUE_ERROR")
	w.send(wire.CantDo, "b")
	w.submit(wire.SubmitJobBG, "c", "", "")
}

func TestConnectionsAreLimited(t *testing.T) {
	var log logBook
	s := start(t, jobserver.Options{MaxConnections: 2, Log: zerolog.New(&log)})
	a, b := connect(t, s), connect(t, s)
	a.silent()
	b.silent()
	connect(t, s).wantEnd()
	eventually(t, "logged", func() bool { return log.has("too many connections") })
	a.close()
	eventually(t, "room again", func() bool {
		nc, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		io.WriteString(nc, "version\n")
		n, _ := nc.Read(make([]byte, 1))
		return n == 1
	})
}

func TestSlowReaderIsClosedAndLogged(t *testing.T) {
	var log logBook
	s := start(t, jobserver.Options{SendBuffer: 1 << 20, Log: zerolog.New(&log)})
	slow, other := connect(t, s), connect(t, s)
	echo := wire.Append(nil, wire.Request, wire.EchoReq, make([]byte, 1<<20))
	for range 200 { // more than loopback sockets hold
		if _, err := slow.nc.Write(echo); err != nil {
			break
		}
	}
	eventually(t, "logged", func() bool { return log.has("reads too slowly") })
	other.silent()
}

// TestLargePayloadsPassThrough keeps several results under way at once; each is passed on rather than copied.
func TestLargePayloadsPassThrough(t *testing.T) {
	s := start(t, jobserver.Options{})
	a, b, w := connect(t, s), connect(t, s), worker(t, s, "f")
	for _, size := range []int{0, 1, 16<<10 - 1, 16 << 10, 1 << 20} {
		load := strings.Repeat("x", size)
		h := a.submit(wire.SubmitJob, "f", "u", load)
		b.submit(wire.SubmitJob, "f", "u", "")
		if got := w.grab(h); got != load {
			t.Fatalf("workload of %d bytes came as %d", size, len(got))
		}
		for i := range 4 {
			w.send(wire.WorkData, h, itoa(i)+load)
			w.send(wire.WorkStatus, h, itoa(i), "4")
		}
		w.send(wire.WorkComplete, h, load)
		for _, c := range []*peer{a, b} {
			for i := range 4 {
				c.want(wire.WorkData, h, itoa(i)+load)
				c.want(wire.WorkStatus, h, itoa(i), "4")
			}
			c.want(wire.WorkComplete, h, load)
		}
	}
}

// TestWorkloadStaysAsItIs grabs a workload, which is passed on rather than copied, lets the connection send other things, and has
// the job run again.
func TestWorkloadStaysAsItIs(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, doomed := connect(t, s), worker(t, s, "f")
	load := strings.Repeat("x", 20<<10)
	h := c.submit(wire.SubmitJobBG, "f", "", load)
	doomed.grab(h)
	for range 5 {
		doomed.silent()
	}
	doomed.close()
	eventually(t, "worker gone", func() bool { return functionStatus(t, s, "f") == "1 0 0" })
	if got := worker(t, s, "f").grab(h); got != load {
		t.Error("the workload has changed")
	}
}

func TestGarbage(t *testing.T) {
	header := func(magic string, packet wire.Type, size uint32) []byte {
		b := binary.BigEndian.AppendUint32([]byte(magic), uint32(packet))
		return binary.BigEndian.AppendUint32(b, size)
	}
	for _, test := range []struct {
		name  string
		bytes []byte
		code  string
		ends  bool
	}{
		{"unknown type", header("\x00REQ", 43, 0), "INVALID_COMMAND", false},
		{"type 0", header("\x00REQ", 0, 0), "INVALID_COMMAND", false},
		{"huge type", header("\x00REQ", 0xffffffff, 0), "INVALID_COMMAND", false},
		{"arguments missing", append(header("\x00REQ", wire.SubmitJob, 3), "f\x00u"...), "INVALID_COMMAND", false},
		{"no arguments", header("\x00REQ", wire.WorkStatus, 0), "INVALID_COMMAND", false},
		{"a response", append(header("\x00RES", wire.EchoReq, 1), 'x'), "INVALID_MAGIC", true},
		{"bad magic", append(header("\x00FOO", wire.EchoReq, 1), 'x'), "INVALID_MAGIC", true},
		{"zeros", make([]byte, 100), "INVALID_MAGIC", true},
		{"over the limit", header("\x00REQ", wire.SubmitJob, 1<<20+1), "ARGUMENT_TOO_LARGE", true},
		{"4 GiB", header("\x00REQ", wire.EchoReq, 0xffffffff), "ARGUMENT_TOO_LARGE", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, jobserver.Options{MaxBody: 1 << 20})
			p := connect(t, s)
			p.write(test.bytes)
			p.wantError(test.code)
			if test.ends {
				p.wantEnd()
			} else {
				p.silent()
			}
			connect(t, s).silent()
		})
	}
}

func TestHalfPacket(t *testing.T) {
	s := start(t, jobserver.Options{})
	p := connect(t, s)
	p.send(wire.EchoReq, "whole")
	p.write(wire.Append(nil, wire.Request, wire.EchoReq, []byte("half"))[:14])
	p.want(wire.EchoRes, "whole") // the reply does not wait for the rest
	p.write([]byte("lf"))
	p.want(wire.EchoRes, "half")
	p.write([]byte("\x00REQ\x00"))
	p.close()
	connect(t, s).silent()
}

func TestOverlongLineEndsTheConnection(t *testing.T) {
	s := start(t, jobserver.Options{})
	p := connect(t, s)
	p.write(bytes.Repeat([]byte("x"), 16<<10))
	got, _ := io.ReadAll(p.br)
	if !strings.HasPrefix(string(got), "ERR INVALID_ARGUMENTS") {
		t.Errorf("got %q", got)
	}
}

func TestBrowserIsNotServed(t *testing.T) {
	var log logBook
	s := start(t, jobserver.Options{Log: zerolog.New(&log)})
	answer := admin(t, s, "POST / HTTP/1.1\r\nHost: x\r\n\r\nmaxqueue f 1\n")
	if answer != "" {
		t.Errorf("answer %q", answer)
	}
	if got := admin(t, s, "status\n"); got != ".\n" {
		t.Errorf("it has done something: %q", got)
	}
	eventually(t, "logged", func() bool { return log.has("HTTP") })
}

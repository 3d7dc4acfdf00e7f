package gearman_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/gearman/wire"
)

// fakeServer is a job server whose every packet the test decides.
type fakeServer struct {
	t     testing.TB
	ln    net.Listener
	conns chan *fakeConn
}

// fakeConn is one connection to it, already greeted.
type fakeConn struct {
	net.Conn
	t testing.TB
	r *wire.Reader
}

func startFake(t testing.TB) *fakeServer {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &fakeServer{t: t, ln: ln, conns: make(chan *fakeConn, 10)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { nc.Close() })
			c := &fakeConn{nc, t, wire.NewReader(bufio.NewReader(nc), wire.Request, 0)}
			if p, err := c.r.Next(); err != nil || p.Type != wire.OptionReq {
				nc.Close()
				continue
			}
			c.send(wire.OptionRes, "exceptions")
			s.conns <- c
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return s
}

func (s *fakeServer) addr() string { return s.ln.Addr().String() }

func (s *fakeServer) accept() *fakeConn {
	s.t.Helper()
	select {
	case c := <-s.conns:
		return c
	case <-time.After(20 * time.Second):
		s.t.Fatal("nobody connected")
		return nil
	}
}

func (c *fakeConn) send(t wire.Type, args ...string) {
	b := make([][]byte, len(args))
	for i, a := range args {
		b[i] = []byte(a)
	}
	c.Write(wire.Append(nil, wire.Response, t, b...))
}

func (c *fakeConn) expect(want wire.Type) wire.Packet {
	c.t.Helper()
	p, err := c.r.Next()
	if err != nil || p.Type != want {
		c.t.Fatalf("the client sent %v (%v), want %v", p.Type, err, want)
	}
	return p
}

// answer is what a call in the background came to.
type answer struct {
	job gearman.Job
	err error
}

func submitAsync(ctx context.Context, c interface {
	Submit(context.Context, gearman.Task, gearman.Watch) (gearman.Job, error)
}, task gearman.Task, w gearman.Watch,
) chan answer {
	got := make(chan answer, 1)
	go func() {
		job, err := c.Submit(ctx, task, w)
		got <- answer{job, err}
	}()
	return got
}

// A client with one slot for replies hands a late JOB_CREATED, and later the result, to the next caller.
func TestAReplyThatComesLateGoesToNobodyElse(t *testing.T) {
	s := startFake(t)
	c := connect(t, s.addr())
	server := s.accept()
	ctx, giveUp := context.WithCancel(context.Background())
	late := newUpdates()
	first := submitAsync(ctx, c, gearman.Task{Function: "f", Workload: []byte("first")}, late.watch)
	server.expect(wire.SubmitJob)
	giveUp()
	if a := <-first; !errors.Is(a.err, gearman.ErrOutcomeUnknown) || !errors.Is(a.err, context.Canceled) {
		t.Errorf("given up: %v", a.err)
	}
	second := newUpdates()
	got := submitAsync(testContext(t), c, gearman.Task{Function: "f", Workload: []byte("second")}, second.watch)
	server.expect(wire.SubmitJob)
	server.send(wire.JobCreated, "H:x:1")
	server.send(wire.JobCreated, "H:x:2")
	server.send(wire.WorkComplete, "H:x:1", "first")
	server.send(wire.WorkComplete, "H:x:2", "second")
	if a := <-got; a.err != nil || a.job.Handle != "H:x:2" {
		t.Errorf("the second caller got %+v", a)
	}
	if u := second.next(t, gearman.Created); string(u.Payload) != "second" {
		t.Errorf("the second caller got the result %q", u.Payload)
	}
	if u := late.next(t); u.Kind != gearman.Created || u.Job.Handle != "H:x:1" {
		t.Errorf("who gave up was told %+v, want Created", u)
	}
	if u := late.next(t); string(u.Payload) != "first" {
		t.Errorf("who gave up was told %+v, want the result", u)
	}
}

// A task's Timeout is as if the caller had given up, but says that it was the job server that did not answer.
func TestASubmitHasATimeout(t *testing.T) {
	s := startFake(t)
	c := connect(t, s.addr())
	server := s.accept()
	late := newUpdates()
	began := time.Now()
	got := submitAsync(testContext(t), c, gearman.Task{Function: "f", Timeout: 20 * time.Millisecond}, late.watch)
	server.expect(wire.SubmitJob)
	a := <-got
	if !errors.Is(a.err, gearman.ErrOutcomeUnknown) || !strings.Contains(a.err.Error(), "did not answer") || a.job.Server != s.addr() {
		t.Errorf("got %+v", a)
	}
	if took := time.Since(began); took < 20*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	server.send(wire.JobCreated, "H:x:1")
	if u := late.next(t); u.Kind != gearman.Created {
		t.Errorf("the watch was told %+v, want Created", u)
	}
}

// A client that holds a lock over the round trip has one request on the wire at a time.
func TestSubmitsArePipelined(t *testing.T) {
	s := startFake(t)
	c := connect(t, s.addr())
	server := s.accept()
	const n = 100
	var calls [n]chan answer
	for i := range calls {
		calls[i] = submitAsync(testContext(t), c, gearman.Task{Function: "f", Background: true}, nil)
	}
	for range n {
		server.expect(wire.SubmitJobBG) // would wait forever for the second
	}
	seen := map[string]bool{}
	for i := range n {
		server.send(wire.JobCreated, fmt.Sprint("H:x:", i))
	}
	for i := range calls {
		a := <-calls[i]
		if a.err != nil || seen[a.job.Handle] {
			t.Fatalf("call %d: %+v, seen before: %v", i, a, seen[a.job.Handle])
		}
		seen[a.job.Handle] = true
	}
}

// An ERROR carries no handle: it answers the oldest request. A client that leaves that in its list gives the next caller's
// reply to this one.
func TestAnErrorAnswersTheOldestRequest(t *testing.T) {
	s := startFake(t)
	c := connect(t, s.addr())
	server := s.accept()
	first := submitAsync(testContext(t), c, gearman.Task{Function: "a"}, newUpdates().watch)
	server.expect(wire.SubmitJob)
	second := submitAsync(testContext(t), c, gearman.Task{Function: "b"}, newUpdates().watch)
	server.expect(wire.SubmitJob)
	server.send(wire.Error, "QUEUE_ERROR", "Job queue is full")
	server.send(wire.JobCreated, "H:x:2")
	var refused *gearman.ServerError
	if a := <-first; !errors.As(a.err, &refused) || refused.Code != "QUEUE_ERROR" {
		t.Errorf("first: %+v, want the ServerError", a)
	}
	if a := <-second; a.err != nil || a.job.Handle != "H:x:2" {
		t.Errorf("second: %+v", a)
	}
}

func TestALostConnectionIsToldToEveryWaiterAtOnce(t *testing.T) {
	s := startFake(t)
	c := connect(t, s.addr())
	server := s.accept()
	running := newUpdates()
	created := submitAsync(testContext(t), c, gearman.Task{Function: "f"}, running.watch)
	server.expect(wire.SubmitJob)
	server.send(wire.JobCreated, "H:x:1")
	<-created
	unknown := newUpdates()
	pending := submitAsync(testContext(t), c, gearman.Task{Function: "f"}, unknown.watch)
	server.expect(wire.SubmitJob)
	status := make(chan error, 1)
	go func() {
		_, err := c.Status(testContext(t), gearman.Job{Handle: "H:x:1"})
		status <- err
	}()
	server.expect(wire.GetStatus)
	server.Close()

	if a := <-pending; !errors.Is(a.err, gearman.ErrOutcomeUnknown) || errors.Is(a.err, gearman.ErrNotSent) {
		t.Errorf("a submit on the wire: %v, want ErrOutcomeUnknown", a.err)
	}
	if err := <-status; err == nil {
		t.Error("a status request has no error")
	}
	if u := running.next(t, gearman.Created); u.Kind != gearman.Lost || u.Job.Handle != "H:x:1" {
		t.Errorf("who waited for a result was told %+v, want Lost", u)
	}
	if u := unknown.next(t); u.Kind != gearman.Lost {
		t.Errorf("the watch of the submit on the wire was told %+v, want Lost", u)
	}
}

func TestASubmitBehindAStuckWriteWasNotSent(t *testing.T) {
	s := startFake(t)
	c := connect(t, s.addr())
	server := s.accept()
	// More than the kernel's buffers take: the writer is stuck in it, because nobody reads.
	big := submitAsync(testContext(t), c, gearman.Task{Function: "f", Workload: make([]byte, 60<<20)}, newUpdates().watch)
	if _, err := io.ReadFull(server, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	behind := newUpdates()
	small := submitAsync(testContext(t), c, gearman.Task{Function: "f"}, behind.watch)
	poll(t, "both to be pending", func() bool { return c.Info().Pending == 2 })
	server.Close()
	if a := <-big; !errors.Is(a.err, gearman.ErrOutcomeUnknown) {
		t.Errorf("half sent: %v, want ErrOutcomeUnknown", a.err)
	}
	if a := <-small; !errors.Is(a.err, gearman.ErrNotSent) {
		t.Errorf("behind it: %v, want ErrNotSent", a.err)
	}
	if len(behind) > 0 {
		t.Errorf("the watch of a task that was not sent was told %+v", <-behind)
	}
}

func TestWithoutAConnectionASubmitFailsAtOnce(t *testing.T) {
	c := gearman.NewClient(gearman.Options{Addr: unusedAddr(t)})
	defer closeNow(c)
	if err := c.WaitConnected(testContext(t)); !errors.Is(err, gearman.ErrUnavailable) {
		t.Errorf("WaitConnected: %v", err)
	}
	_, err := c.Submit(testContext(t), gearman.Task{Function: "f"}, newUpdates().watch)
	if !errors.Is(err, gearman.ErrNotSent) || !errors.Is(err, gearman.ErrUnavailable) {
		t.Errorf("Submit: %v, want ErrNotSent and ErrUnavailable", err)
	}
}

// unusedAddr is an address where nobody listens.
func unusedAddr(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestAServerThatHangsIsFoundByEcho(t *testing.T) {
	s := startFake(t)
	c := gearman.NewClient(gearman.Options{
		Addr: s.addr(), Silence: 100 * time.Millisecond, EchoTimeout: 2 * time.Second,
	})
	defer closeNow(c)
	server := s.accept()
	if err := c.WaitConnected(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for range 3 { // as long as it answers, it stays
		server.send(wire.EchoRes, string(server.expect(wire.EchoReq).Args[0]))
	}
	u := newUpdates()
	call := submitAsync(testContext(t), c, gearman.Task{Function: "f"}, u.watch)
	if a := <-call; !errors.Is(a.err, gearman.ErrOutcomeUnknown) || !strings.Contains(a.err.Error(), "ECHO") {
		t.Errorf("a submit to a server that hangs: %v", a.err)
	}
	s.accept() // it connects anew
}

// slowly sends a packet in as many pieces as the client asks for signs of life, and answers only behind it, as a job server must.
func (c *fakeConn) slowly(t wire.Type, args ...[]byte) {
	c.t.Helper()
	packet := wire.Append(nil, wire.Response, t, args...)
	var echoes [][]byte
	for range 3 {
		c.Write(packet[:10])
		packet = packet[10:]
		echoes = append(echoes, c.expect(wire.EchoReq).Args[0])
	}
	c.Write(packet)
	for _, e := range echoes {
		c.send(wire.EchoRes, string(e))
	}
}

// A result or a workload of 64 MiB is on its way for longer than a job server may be silent, where the network is slow.
func TestALargePacketThatComesSlowlyIsNoSilence(t *testing.T) {
	patience := gearman.Options{Silence: 500 * time.Millisecond, EchoTimeout: 500 * time.Millisecond}
	large := strings.Repeat("x", 100)
	t.Run("to a client", func(t *testing.T) {
		s, o := startFake(t), patience
		o.Addr = s.addr()
		c := gearman.NewClient(o)
		defer closeNow(c)
		server := s.accept()
		if err := c.WaitConnected(testContext(t)); err != nil {
			t.Fatal(err)
		}
		u := newUpdates()
		submitAsync(testContext(t), c, gearman.Task{Function: "f"}, u.watch)
		server.expect(wire.SubmitJob)
		server.send(wire.JobCreated, "H:x:1")
		server.slowly(wire.WorkComplete, []byte("H:x:1"), []byte(large))
		if got := u.next(t, gearman.Created); got.Kind != gearman.Completed || string(got.Payload) != large {
			t.Errorf("the job ended with %+v", got)
		}
	})
	t.Run("to a worker", func(t *testing.T) {
		s, o := startFake(t), patience
		o.Addr = s.addr()
		ran := make(chan string, 1)
		w := gearman.NewWorker(gearman.WorkerOptions{
			Options: o, Functions: []string{"f"}, Slots: make(gearman.Slots, 1),
			Run: func(a *gearman.Assignment) { ran <- string(a.Workload); a.Complete(nil) },
		})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); w.Run(ctx) }()
		defer func() { cancel(); w.Abort(); <-ended }()
		server := s.accept()
		server.expect(wire.CanDo)
		server.expect(wire.GrabJobUniq)
		server.slowly(wire.JobAssignUniq, []byte("H:x:1"), []byte("f"), nil, []byte(large))
		if got := <-ran; got != large {
			t.Errorf("ran %q", got)
		}
	})
}

func TestTooMuchPendingIsRefused(t *testing.T) {
	s := startFake(t)
	c := gearman.NewClient(gearman.Options{Addr: s.addr(), MaxPending: 2})
	defer closeNow(c)
	s.accept()
	if err := c.WaitConnected(testContext(t)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for range 2 {
		submitAsync(ctx, c, gearman.Task{Function: "f"}, newUpdates().watch)
	}
	poll(t, "two to be pending", func() bool { return c.Info().Pending == 2 })
	_, err := c.Submit(ctx, gearman.Task{Function: "f"}, newUpdates().watch)
	if !errors.Is(err, gearman.ErrBusy) || !errors.Is(err, gearman.ErrNotSent) {
		t.Errorf("the third: %v, want ErrBusy and ErrNotSent", err)
	}
}

func TestWhatIsNoGearmanServerIsNamed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(nc, "HTTP/1.1 400 Bad Request\r\n\r\n")
			nc.Close()
		}
	}()
	c := gearman.NewClient(gearman.Options{Addr: ln.Addr().String()})
	defer closeNow(c)
	if err := c.WaitConnected(testContext(t)); !errors.Is(err, wire.ErrMagic) {
		t.Errorf("connected to a web server: %v, want ErrMagic", err)
	}
}

func TestAReplyOutOfOrderEndsTheConnection(t *testing.T) {
	s := startFake(t)
	c := connect(t, s.addr())
	server := s.accept()
	call := submitAsync(testContext(t), c, gearman.Task{Function: "f"}, newUpdates().watch)
	server.expect(wire.SubmitJob)
	server.send(wire.EchoRes, "?")
	if a := <-call; !errors.Is(a.err, gearman.ErrOutcomeUnknown) {
		t.Errorf("answered with ECHO_RES: %v", a.err)
	}
	s.accept()
}

func TestASecondEndAfterACancelIsTolerated(t *testing.T) {
	s := startFake(t)
	c := connect(t, s.addr())
	server := s.accept()
	u := newUpdates()
	call := submitAsync(testContext(t), c, gearman.Task{Function: "f"}, u.watch)
	server.expect(wire.SubmitJob)
	server.send(wire.JobCreated, "H:x:1")
	<-call
	server.send(wire.WorkFail, "H:x:1\x00") // as gearmand sends it
	server.send(wire.WorkComplete, "H:x:1", "late")
	if got := u.next(t, gearman.Created); got.Kind != gearman.Failed {
		t.Errorf("first end: %+v", got)
	}
	echo := make(chan error)
	go func() { echo <- c.Echo(testContext(t)) }()
	server.send(wire.EchoRes, string(server.expect(wire.EchoReq).Args[0]))
	if err := <-echo; err != nil || len(u) > 0 {
		t.Errorf("after the second end: %v, %d more updates", err, len(u))
	}
}

func TestCloseWaitsForOpenJobs(t *testing.T) {
	s := startFake(t)
	c := gearman.NewClient(gearman.Options{Addr: s.addr()})
	server := s.accept()
	if err := c.WaitConnected(testContext(t)); err != nil {
		t.Fatal(err)
	}
	u := newUpdates()
	call := submitAsync(testContext(t), c, gearman.Task{Function: "f"}, u.watch)
	server.expect(wire.SubmitJob)
	server.send(wire.JobCreated, "H:x:1")
	<-call
	go func() { // answers the submits of poll
		for {
			if _, err := server.r.Next(); err != nil {
				return
			}
			server.send(wire.Error, "QUEUE_ERROR", "Job queue is full")
		}
	}()
	closed := make(chan struct{})
	go func() { defer close(closed); c.Close(testContext(t)) }()
	poll(t, "new requests to be refused", func() bool {
		_, err := c.Submit(testContext(t), gearman.Task{Function: "f"}, newUpdates().watch)
		return errors.Is(err, gearman.ErrClosed) && errors.Is(err, gearman.ErrNotSent)
	})
	server.send(wire.WorkComplete, "H:x:1", "done")
	<-closed
	if got := u.next(t, gearman.Created); got.Kind != gearman.Completed {
		t.Errorf("the open job: %+v", got)
	}
}

// A worker asks for jobs with GRAB_JOB_UNIQ, and falls back where the job server does not know that.
func TestAWorkerFallsBackToGrabJob(t *testing.T) {
	s := startFake(t)
	ran := make(chan string, 1)
	w := gearman.NewWorker(gearman.WorkerOptions{
		Options: gearman.Options{Addr: s.addr()}, Functions: []string{"f"}, Slots: make(gearman.Slots, 1),
		Run: func(a *gearman.Assignment) { ran <- string(a.Workload); a.Exception([]byte("no")) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); w.Run(ctx) }()
	server := s.accept()
	server.expect(wire.CanDo)
	server.expect(wire.GrabJobUniq)
	server.send(wire.Error, "unknown_command", "Unknown+server+command")
	server.expect(wire.GrabJob)
	server.send(wire.JobAssign, "H:x:1", "f", "w")
	if got := <-ran; got != "w" {
		t.Errorf("ran %q", got)
	}
	server.expect(wire.WorkException)
	server.expect(wire.WorkFail) // without it Perl's job server takes the job for running
	server.send(wire.Error, "JOB_NOT_FOUND", "Job given in work result not found")
	server.expect(wire.GrabJob) // it goes on
	server.send(wire.NoJob)
	server.expect(wire.PreSleep)
	cancel()
	server.send(wire.EchoRes, string(server.expect(wire.EchoReq).Args[0]))
	<-ended
}

func TestNothingIsLeftBehind(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	addr := func() string {
		ln, _ := net.Listen("tcp", "127.0.0.1:0")
		go func() {
			for {
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				nc.Close()
			}
		}()
		defer time.AfterFunc(50*time.Millisecond, func() { ln.Close() })
		return ln.Addr().String()
	}()
	cluster, err := gearman.NewCluster([]gearman.Options{{Addr: addr}, {Addr: unusedAddr(t)}})
	if err != nil {
		t.Fatal(err)
	}
	cluster.WaitConnected(testContext(t))
	closeNow(cluster)
	w := gearman.NewWorker(gearman.WorkerOptions{
		Options: gearman.Options{Addr: addr}, Functions: []string{"f"}, Slots: make(gearman.Slots, 1),
	})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	w.Run(ctx)
}

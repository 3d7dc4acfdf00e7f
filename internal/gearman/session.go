package gearman

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"gearman-gateway/internal/gearman/wire"
)

// session is one life of a Client's connection. Requests go out in the order of the pending list, and the job server answers in
// that order, ERROR included (PROTOCOL says nothing of it; GEARMAN: always so): one list of calls is enough. The
// goroutine in serve alone completes them.
type session struct {
	*link
	generation uint64
	unwatch    func() bool  // undoes the watch on the client's end
	waiters    chan *waiter // those that nobody uses

	// guarded by link.mu, so that the order of pending is the order on the wire
	pending fifo
	jobs    map[string][]*call // foreground jobs by handle, in the order of their JOB_CREATED
	drained chan struct{}      // not nil: closed when nothing is pending and no job is open
}

// call is a request that waits for its reply, and a foreground submit that waits for its job's end. A caller that gave up
// leaves it where it is: taking it from the list would give the next caller its reply.
type call struct {
	want    wire.Type     // the reply's type, if it is not ERROR
	start   int64         // offset in the stream
	watch   Watch         // of a submit
	fg      bool          // of a foreground submit
	timeout time.Duration // how long the caller waits; 0: as long as its context

	mu    sync.Mutex
	left  bool       // nobody waits: the caller gave up; what becomes of a submit is told to watch alone
	reply chan reply // a waiter's: it has room for the one reply, and the reader never waits
}

// waiter is what a caller waits with. A session keeps some of them for the next callers: they cost more than the rest of a call.
type waiter struct {
	reply chan reply
	timer *time.Timer // stopped
}

const keepWaiters = 64

func (s *session) waiter() *waiter {
	select {
	case w := <-s.waiters:
		return w
	default:
	}
	w := &waiter{make(chan reply, 1), time.NewTimer(time.Hour)}
	w.timer.Stop()
	return w
}

// keep takes a waiter back to which no reply will come any more.
func (s *session) keep(w *waiter) {
	w.timer.Stop()
	select {
	case s.waiters <- w:
	default:
	}
}

type reply struct {
	packet wire.Packet
	job    Job
	err    error
}

// finish hands the caller its reply. Its watch hears of an error too, where the caller is gone or cannot know what became of
// the task.
func (c *call) finish(r reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.err != nil && c.watch != nil && (c.left || errors.Is(r.err, ErrOutcomeUnknown)) {
		c.watch(Update{Kind: Lost, Job: r.job, Err: r.err})
	}
	if !c.left {
		c.reply <- r
	}
}

// leave gives the call up, and reports false if its reply is there already.
func (c *call) leave() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = len(c.reply) == 0
	return c.left
}

// begin queues a request. Its error is always ErrNotSent, with the cause.
func (s *session) begin(c *call, t wire.Type, args ...[]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return s.lost(ErrNotSent, s.err)
	case s.drained != nil && t != wire.EchoReq:
		return s.lost(ErrNotSent, ErrClosed)
	case s.pending.len() >= s.o.MaxPending || len(s.buf) > s.o.MaxBuffered:
		return s.lost(ErrNotSent, ErrBusy)
	}
	c.start = s.appendLocked(t, args...)
	s.pending.push(c)
	return nil
}

func (s *session) job(handle string) Job {
	return Job{Server: s.o.Addr, Handle: handle, Generation: s.generation}
}

// lost says which of the two conditions a failed call is in, where, and why.
func (s *session) lost(condition, cause error) error {
	return fmt.Errorf("job server %s: %w: %w", s.o.Addr, condition, cause)
}

// serve reads until the connection ends and returns why. By then every call and every job's watch knows.
func (s *session) serve() error {
	s.wg.Go(func() { s.heartbeat(s.ask) })
	var err error
	for err == nil {
		var p wire.Packet
		if p, err = s.next(); err == nil {
			err = s.handle(p)
		}
	}
	err = s.fail(err)
	s.unwatch()
	s.wait()
	s.abort(err)
	return err
}

func (s *session) ask() {
	_ = s.begin(&call{want: wire.EchoRes, left: true}, wire.EchoReq, []byte("alive?"))
}

func (s *session) handle(p wire.Packet) error {
	switch p.Type {
	case wire.JobCreated, wire.Error, wire.EchoRes, wire.StatusRes, wire.StatusResUnique:
		return s.answer(p)
	case wire.WorkComplete, wire.WorkFail, wire.WorkException, wire.WorkData, wire.WorkWarning, wire.WorkStatus:
		s.work(p)
		return nil
	}
	return fmt.Errorf("job server sent %v to a client", p.Type)
}

// answer gives a reply to the call at the head of the list.
func (s *session) answer(p wire.Packet) error {
	s.mu.Lock()
	c := s.pending.peek()
	switch {
	case c == nil && p.Type == wire.Error:
		s.mu.Unlock()
		return &ServerError{Code: string(p.Args[0]), Text: string(p.Args[1])} // before it closes the connection
	case c == nil || p.Type != c.want && p.Type != wire.Error:
		s.mu.Unlock()
		return fmt.Errorf("job server sent %v out of order", p.Type)
	}
	s.pending.pop()
	r := reply{packet: p}
	switch p.Type {
	case wire.Error:
		r.err = &ServerError{Code: string(p.Args[0]), Text: string(p.Args[1])}
	case wire.JobCreated:
		r.job = s.job(string(p.Args[0]))
		if c.fg {
			s.jobs[r.job.Handle] = append(s.jobs[r.job.Handle], c)
		}
	}
	s.checkDrained()
	s.mu.Unlock()

	if r.err == nil && c.watch != nil {
		c.watch(Update{Kind: Created, Job: r.job})
	}
	c.finish(r)
	return nil
}

// work gives a packet about a job to the submit that waits for it. When several submits of this connection share the job, the
// packet comes once for each of them, and they take it in turn: giving each copy to all would double the data.
func (s *session) work(p wire.Packet) {
	u, ok := update(p)
	if !ok {
		s.o.Log.Warn().Stringer("packet", p.Type).Msg("job server sent a status that is no number")
		return
	}
	// GEARMAN: a WORK_FAIL made of an exception ends in a NUL that is not part of the handle.
	handle := string(bytes.TrimSuffix(p.Args[0], []byte{0}))
	s.mu.Lock()
	waiting := s.jobs[handle]
	if len(waiting) == 0 { // the second end of a cancelled job, which is to be expected
		s.mu.Unlock()
		return
	}
	c := waiting[0]
	copy(waiting, waiting[1:])
	waiting[len(waiting)-1] = c
	if u.Kind.Ends() {
		if waiting = waiting[:len(waiting)-1]; len(waiting) > 0 {
			s.jobs[handle] = waiting
		} else {
			delete(s.jobs, handle)
		}
	}
	s.checkDrained()
	s.mu.Unlock()
	u.Job = s.job(handle)
	c.watch(u)
}

func update(p wire.Packet) (u Update, ok bool) {
	switch p.Type {
	case wire.WorkStatus:
		n, err1 := parseNumber(p.Args[1])
		d, err2 := parseNumber(p.Args[2])
		return Update{Kind: Status, Numerator: n, Denominator: d}, err1 == nil && err2 == nil
	case wire.WorkFail:
		return Update{Kind: Failed}, true
	case wire.WorkComplete:
		return Update{Kind: Completed, Payload: p.Args[1]}, true
	case wire.WorkException:
		return Update{Kind: Exception, Payload: p.Args[1]}, true
	case wire.WorkData:
		return Update{Kind: Data, Payload: p.Args[1]}, true
	default:
		return Update{Kind: Warning, Payload: p.Args[1]}, true
	}
}

// parseNumber reads one of a status' two numbers: a worker may send "0.5", and Perl's job server sends nothing for none.
func parseNumber(b []byte) (float64, error) {
	if len(b) == 0 {
		return 0, nil
	}
	f, err := strconv.ParseFloat(string(bytes.TrimRight(b, "\x00")), 64)
	if err == nil && (math.IsInf(f, 0) || math.IsNaN(f)) {
		err = strconv.ErrRange
	}
	return f, err
}

// abort tells every caller and every watch that the connection is gone. Only requests that were never handed to the
// connection are surely not sent.
func (s *session) abort(cause error) {
	s.mu.Lock()
	calls, jobs := s.pending.drain(), s.jobs
	s.jobs = nil
	started := s.started
	s.checkDrained()
	s.mu.Unlock()
	for _, c := range calls {
		condition := ErrOutcomeUnknown
		if c.start >= started {
			condition = ErrNotSent
		}
		c.finish(reply{err: s.lost(condition, cause), job: s.job("")})
	}
	for handle, waiting := range jobs {
		for _, c := range waiting {
			c.watch(Update{
				Kind: Lost,
				Job:  s.job(handle),
				Err:  s.lost(ErrOutcomeUnknown, cause),
			})
		}
	}
}

// drain takes no more requests, and closes the returned channel when nothing is pending and no foreground job is open.
func (s *session) drain() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drained == nil {
		s.drained = make(chan struct{})
		s.checkDrained()
	}
	return s.drained
}

func (s *session) checkDrained() {
	if s.drained != nil && s.pending.len() == 0 && len(s.jobs) == 0 {
		select {
		case <-s.drained:
		default:
			close(s.drained)
		}
	}
}

// fifo is a queue of calls that reuses its memory.
type fifo struct {
	calls []*call
	head  int
}

func (f *fifo) len() int { return len(f.calls) - f.head }

func (f *fifo) push(c *call) {
	if f.head > 64 && f.head > len(f.calls)/2 {
		n := copy(f.calls, f.calls[f.head:])
		clear(f.calls[n:])
		f.calls, f.head = f.calls[:n], 0
	}
	f.calls = append(f.calls, c)
}

func (f *fifo) peek() *call {
	if f.len() == 0 {
		return nil
	}
	return f.calls[f.head]
}

func (f *fifo) pop() {
	f.calls[f.head] = nil
	if f.head++; f.head == len(f.calls) {
		f.calls, f.head = f.calls[:0], 0
	}
}

func (f *fifo) drain() []*call {
	calls := f.calls[f.head:]
	*f = fifo{}
	return calls
}

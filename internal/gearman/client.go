package gearman

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"gearman-gateway/internal/gearman/wire"
)

// Client speaks to one job server over one connection, which all callers share: requests are pipelined, and none waits for
// another's reply. It connects in the background, and again whenever the connection is lost. Its methods are safe for
// concurrent use. Close it.
type Client struct {
	o      Options
	stop   context.CancelFunc
	closed chan struct{} // the connecting goroutine has ended

	mu         sync.Mutex
	session    *session      // nil while not connected
	why        error         // of session being nil
	changed    chan struct{} // closed, and made anew, when session or why change
	generation uint64
}

// errConnecting is why a client is not connected that has not yet tried.
var errConnecting = errors.New("connecting")

// NewClient returns a client that has begun to connect.
func NewClient(o Options) *Client {
	ctx, stop := context.WithCancel(context.Background())
	c := &Client{
		o:       o.withDefaults(),
		stop:    stop,
		closed:  make(chan struct{}),
		why:     errConnecting,
		changed: make(chan struct{}),
	}
	go c.run(ctx)
	return c
}

// Addr returns the job server's host:port, as configured.
func (c *Client) Addr() string { return c.o.Addr }

// run keeps the client connected until ctx ends.
func (c *Client) run(ctx context.Context) {
	defer close(c.closed)
	pause := c.o.newBackoff()
	for ctx.Err() == nil {
		s, err := c.connect(ctx)
		if err == nil {
			pause.Reset()
			c.o.Log.Info().Uint64("generation", s.generation).Msg("connected to the job server")
			c.set(s, nil)
			err = s.serve()
		}
		if first := c.set(nil, err); first && ctx.Err() == nil {
			c.o.Log.Warn().Err(err).Msg("no connection to the job server, trying again")
		}
		select {
		case <-time.After(pause.NextBackOff()):
		case <-ctx.Done():
		}
	}
	c.set(nil, ErrClosed)
}

// set publishes the session, or why there is none, and reports whether that ends a session or the first attempt to get one.
func (c *Client) set(s *session, why error) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first = c.session != nil || c.why == errConnecting
	c.session, c.why = s, why
	close(c.changed)
	c.changed = make(chan struct{})
	return first
}

// connect returns a session whose job server has answered: one that hangs still accepts connections. The first
// packet asks for WORK_EXCEPTION, which job servers send only to those who did.
func (c *Client) connect(ctx context.Context) (*session, error) {
	nc, err := c.o.dial(ctx)
	if err != nil {
		return nil, err
	}
	c.generation++ // only this goroutine uses it
	s := &session{link: newLink(nc, c.o), generation: c.generation, jobs: map[string][]*call{}, waiters: make(chan *waiter, keepWaiters)}
	s.unwatch = context.AfterFunc(ctx, func() { s.fail(ErrClosed) })
	if err := s.greet(); err != nil {
		s.unwatch()
		err = s.fail(err)
		s.wait()
		return nil, err
	}
	return s, nil
}

// greet sends the options and waits for the answer. A job server that knows no options answers ERROR, which is fine.
func (l *link) greet() error {
	if err := l.nc.SetReadDeadline(time.Now().Add(l.o.DialTimeout)); err != nil {
		return err
	}
	if err := l.send(wire.OptionReq, []byte("exceptions")); err != nil {
		return err
	}
	p, err := l.next()
	if err != nil {
		return fmt.Errorf("no answer within %v: %w", l.o.DialTimeout, err)
	}
	if p.Type != wire.OptionRes && p.Type != wire.Error {
		return fmt.Errorf("job server answered %v to OPTION_REQ", p.Type)
	}
	return l.nc.SetReadDeadline(time.Time{})
}

// WaitConnected blocks until the client is connected. It returns early, with the cause, when the first attempt to connect
// failed, the client is closed, or ctx ends.
func (c *Client) WaitConnected(ctx context.Context) error {
	for {
		c.mu.Lock()
		s, why, changed := c.session, c.why, c.changed
		c.mu.Unlock()
		switch {
		case s != nil:
			return nil
		case why != errConnecting:
			return fmt.Errorf("job server %s: %w: %w", c.o.Addr, ErrUnavailable, why)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// current returns the session, or ErrNotSent with why there is none.
func (c *Client) current() (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.session != nil:
		return c.session, nil
	case errors.Is(c.why, ErrClosed):
		return nil, fmt.Errorf("job server %s: %w: %w", c.o.Addr, ErrNotSent, ErrClosed)
	}
	return nil, fmt.Errorf("job server %s: %w: %w: %w", c.o.Addr, ErrNotSent, ErrUnavailable, c.why)
}

// Submit sends a task and blocks until the job server has given it a handle. It does not wait for a connection: without one the error
// is ErrNotSent at once. Other errors are a *NameError, a *ServerError when the job server refused the task, and ErrOutcomeUnknown,
// with the Job's server known, when the connection was lost or ctx ended before the answer.
//
// Only with no error or ErrOutcomeUnknown does watch, which may be nil for a background task, hear anything: Created or
// Lost, also after ctx ended, and all that follows.
func (c *Client) Submit(ctx context.Context, t Task, watch Watch) (Job, error) {
	if err := errors.Join(CheckFunction(t.Function), CheckUnique(t.Unique)); err != nil {
		return Job{}, err
	}
	if watch == nil {
		watch = func(Update) {}
	}
	r, err := c.call(ctx, &call{want: wire.JobCreated, watch: watch, fg: !t.Background, timeout: t.Timeout},
		submitType(t), []byte(t.Function), []byte(t.Unique), t.Workload)
	return r.job, err
}

func submitType(t Task) wire.Type {
	types := [...][2]wire.Type{
		Normal: {wire.SubmitJob, wire.SubmitJobBG},
		High:   {wire.SubmitJobHigh, wire.SubmitJobHighBG},
		Low:    {wire.SubmitJobLow, wire.SubmitJobLowBG},
	}
	if t.Background {
		return types[t.Priority][1]
	}
	return types[t.Priority][0]
}

var errNoAnswer = errors.New("the job server did not answer in time")

// call sends a request and blocks for its reply.
func (c *Client) call(ctx context.Context, pending *call, t wire.Type, args ...[]byte) (reply, error) {
	s, err := c.current()
	if err != nil {
		return reply{}, err
	}
	return s.call(ctx, pending, t, args...)
}

func (s *session) call(ctx context.Context, pending *call, t wire.Type, args ...[]byte) (reply, error) {
	w := s.waiter()
	defer s.keep(w)
	pending.reply = w.reply
	if err := s.begin(pending, t, args...); err != nil {
		return reply{}, err
	}
	if pending.timeout > 0 {
		w.timer.Reset(pending.timeout)
	}
	var why error
	select {
	case r := <-pending.reply:
		return r, r.err
	case <-ctx.Done():
		why = context.Cause(ctx)
	case <-w.timer.C:
		why = errNoAnswer
	}
	if pending.leave() {
		return reply{job: s.job("")}, s.lost(ErrOutcomeUnknown, why)
	}
	r := <-pending.reply
	return r, r.err
}

// Status asks for a job by its handle. A handle names a job only for one life of the job server: where j has a Generation that is
// not the connection's the error is ErrStale. Generation 0 asks whatever connection there is.
func (c *Client) Status(ctx context.Context, j Job) (JobStatus, error) {
	if err := CheckHandle(j.Handle); err != nil {
		return JobStatus{}, err
	}
	s, err := c.current()
	if err != nil {
		return JobStatus{}, err
	}
	if j.Generation != 0 && j.Generation != s.generation {
		return JobStatus{}, fmt.Errorf("job server %s: %w", c.o.Addr, ErrStale)
	}
	r, err := s.call(ctx, &call{want: wire.StatusRes}, wire.GetStatus, []byte(j.Handle))
	if err != nil {
		return JobStatus{}, err
	}
	return parseStatus(r.packet.Args[1:])
}

// StatusUnique asks for a job by its unique, whatever its function. A job server that does not know this request answers with a
// *ServerError.
func (c *Client) StatusUnique(ctx context.Context, unique string) (JobStatus, error) {
	if unique == "" {
		return JobStatus{}, &NameError{"unique", "is empty"}
	}
	if err := CheckUnique(unique); err != nil {
		return JobStatus{}, err
	}
	r, err := c.call(ctx, &call{want: wire.StatusResUnique}, wire.GetStatusUnique, []byte(unique))
	if err != nil {
		return JobStatus{}, err
	}
	return parseStatus(r.packet.Args[1:])
}

func parseStatus(args [][]byte) (JobStatus, error) {
	n, err1 := parseNumber(args[2])
	d, err2 := parseNumber(args[3])
	if err := errors.Join(err1, err2); err != nil {
		return JobStatus{}, fmt.Errorf("job server sent a status that is no number: %w", err)
	}
	is := func(b []byte) bool { v, _ := strconv.Atoi(strings.TrimRight(string(b), "\x00")); return v != 0 }
	return JobStatus{Known: is(args[0]), Running: is(args[1]), Numerator: n, Denominator: d}, nil
}

// Echo asks the job server to answer: the only proof that it works.
func (c *Client) Echo(ctx context.Context) error {
	_, err := c.call(ctx, &call{want: wire.EchoRes}, wire.EchoReq, []byte("alive?"))
	return err
}

// Generation counts the connections that the client has had; 0 while it is not connected. A Job of another generation may name
// a different job by now.
func (c *Client) Generation() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil {
		return 0
	}
	return c.session.generation
}

// Info returns how the client sees its job server; Version is left out.
func (c *Client) Info() ServerInfo {
	c.mu.Lock()
	s, why := c.session, c.why
	c.mu.Unlock()
	if s == nil {
		return ServerInfo{Server: c.o.Addr, Error: why.Error()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return ServerInfo{Server: c.o.Addr, Connected: true, Pending: s.pending.len()}
}

// Close takes no more requests, waits until those that are pending and all foreground jobs have ended or ctx has, then closes
// the connection; whoever still waits gets ErrClosed. A job server discards the queued foreground jobs of a closed connection.
func (c *Client) Close(ctx context.Context) {
	if s, err := c.current(); err == nil {
		select {
		case <-s.drain():
		case <-ctx.Done():
		case <-s.done:
		}
	}
	c.stop()
	<-c.closed
}

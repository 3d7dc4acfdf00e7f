package workerpool_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/gearmandtest"
	"gearman-gateway/internal/jobserver"
	"gearman-gateway/internal/workerpool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline is how long anything may take on a loaded machine before the test fails.
const deadline = 30 * time.Second

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// ended is a context that has ended.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func startServer(t testing.TB, listen string) *jobserver.Server {
	t.Helper()
	s := jobserver.New(jobserver.Options{Listen: listen})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func connect(t testing.TB, addr string) *gearman.Client {
	t.Helper()
	c := gearman.NewClient(gearman.Options{Addr: addr})
	t.Cleanup(func() { c.Close(ended()) })
	if err := c.WaitConnected(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return c
}

type functions = map[string]workerpool.Function

// fn is a function without limits.
func fn(f workerpool.HandlerFunc) workerpool.Function { return workerpool.Function{Handler: f} }

// startPool starts a pool, which the test's cleanup stops if the test does not; what it runs then is cancelled.
func startPool(t testing.TB, o workerpool.Options, addrs ...string) (p *workerpool.Pool, stop func(context.Context) error) {
	t.Helper()
	for _, addr := range addrs {
		o.Servers = append(o.Servers, gearman.Options{Addr: addr, MaxBackoff: 50 * time.Millisecond})
	}
	p, err := workerpool.New(o)
	if err != nil {
		t.Fatal(err)
	}
	p.Start()
	var once sync.Once
	stop = func(ctx context.Context) (err error) {
		once.Do(func() { err = p.Stop(ctx) })
		return err
	}
	t.Cleanup(func() { stop(ended()) })
	return p, stop
}

// updates is a Watch that keeps what it is told.
type updates chan gearman.Update

func submit(t testing.TB, c *gearman.Client, function, workload string) updates {
	t.Helper()
	u := make(updates, 1000)
	if _, err := c.Submit(testContext(t), gearman.Task{Function: function, Workload: []byte(workload)},
		func(update gearman.Update) { u <- update }); err != nil {
		t.Fatal(err)
	}
	return u
}

// next returns the next update but Created.
func (u updates) next(t testing.TB) gearman.Update {
	t.Helper()
	for {
		select {
		case update := <-u:
			if update.Kind != gearman.Created {
				return update
			}
		case <-time.After(deadline):
			t.Fatal("no update")
		}
	}
}

// call runs a job and returns how it ended.
func call(t testing.TB, c *gearman.Client, function, workload string) gearman.Update {
	t.Helper()
	return submit(t, c, function, workload).next(t)
}

// receive waits for a channel.
func receive[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(deadline):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// recorder keeps what it hears as an Observer and as a Sink, in one order.
type recorder struct {
	mu      sync.Mutex
	changed chan struct{}
	events  []event.Event
	facts   event.Facts // of every job
}

func newRecorder() *recorder { return &recorder{changed: make(chan struct{})} }

func (r *recorder) Begin(*gearman.Assignment) event.Facts { return r.facts }

func (r *recorder) Observe(a *gearman.Assignment, t event.Type, d *event.Data) {
	e := event.Event{Type: t, Data: *d}
	e.Data.Handle, e.Data.Server, e.Data.Function, e.Data.Unique = a.Handle, a.Server, a.Function, a.Unique
	r.Publish(e)
}

func (r *recorder) Publish(events ...event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, events...)
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *recorder) all() []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// types returns what was heard but the types left out.
func (r *recorder) types(but ...event.Type) []event.Type {
	var types []event.Type
	for _, e := range r.all() {
		if !slices.Contains(but, e.Type) {
			types = append(types, e.Type)
		}
	}
	return types
}

func (r *recorder) count(t event.Type) (n int) {
	for _, e := range r.all() {
		if e.Type == t {
			n++
		}
	}
	return n
}

// await blocks until t was heard n times.
func (r *recorder) await(tb testing.TB, t event.Type, n int) {
	tb.Helper()
	late := time.After(deadline)
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if r.count(t) >= n {
			return
		}
		select {
		case <-changed:
		case <-late:
			tb.Fatalf("%s was heard %d times, want %d; all: %v", t, r.count(t), n, r.types())
		}
	}
}

// contract runs a test against the embedded job server and against a real gearmand.
func contract(t *testing.T, test func(t *testing.T, addr string)) {
	t.Run("embedded", func(t *testing.T) { test(t, startServer(t, "127.0.0.1:0").Addr()) })
	t.Run("gearmand", func(t *testing.T) { test(t, gearmandtest.Start(t).Addr()) })
}

// held is a function whose jobs end when they are told to.
type held struct {
	began  chan string
	finish chan struct{}
}

func newHeld(t testing.TB) *held {
	h := &held{make(chan string, 1000), make(chan struct{}, 1000)}
	t.Cleanup(func() { close(h.finish) })
	return h
}

func (h *held) Run(_ context.Context, j *workerpool.Job) ([]byte, error) {
	h.began <- string(j.Workload)
	<-h.finish
	return append([]byte("held "), j.Workload...), nil
}

package workerpool_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/workerpool"
)

// startEcho starts a pool of a second worker, to see which jobs come to it.
func startEcho(t testing.TB, addr string) {
	startPool(t, workerpool.Options{ID: "other", Functions: functions{
		"f": fn(func(_ context.Context, j *workerpool.Job) ([]byte, error) {
			return append([]byte("other: "), j.Workload...), nil
		}),
	}}, addr)
}

// patience is a context that tells when somebody waits for its end: by then Stop has told everybody to take no more.
type patience struct {
	context.Context
	once  sync.Once
	begun chan struct{}
}

func (p *patience) Done() <-chan struct{} {
	p.once.Do(func() { close(p.begun) })
	return p.Context.Done()
}

func TestStopFinishesWhatRunsAndTakesNoMore(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	started, finish := make(chan string, 10), make(chan struct{})
	_, stop := startPool(t, workerpool.Options{Concurrency: 1, Functions: functions{
		"f": fn(func(ctx context.Context, j *workerpool.Job) ([]byte, error) {
			started <- string(j.Workload)
			<-finish
			return []byte("done"), ctx.Err()
		}),
	}}, s.Addr())
	c := connect(t, s.Addr())
	first := submit(t, c, "f", "first")
	receive(t, started, "the first job")
	second := submit(t, c, "f", "second")
	stopped := make(chan error, 1)
	patience := &patience{Context: testContext(t), begun: make(chan struct{})}
	go func() { stopped <- stop(patience) }()
	receive(t, patience.begun, "Stop to wait")
	close(finish)
	if got := first.next(t); got.Kind != gearman.Completed || string(got.Payload) != "done" {
		t.Errorf("the job that ran: %+v", got)
	}
	if err := receive(t, stopped, "Stop"); err != nil {
		t.Error(err)
	}
	startEcho(t, s.Addr())
	if got := second.next(t); string(got.Payload) != "other: second" {
		t.Errorf("the job behind it: %+v (%q)", got, got.Payload)
	}
}

func TestStopOfAnIdlePoolReturnsAtOnce(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	rec := newRecorder()
	ok := fn(func(context.Context, *workerpool.Job) ([]byte, error) { return nil, nil })
	_, idle := startPool(t, workerpool.Options{Events: rec, Functions: functions{"f": ok}}, s.Addr())
	rec.await(t, event.WorkerOnIOWait, 1)
	_, unconnected := startPool(t, workerpool.Options{Functions: functions{"f": ok}}, "127.0.0.1:1")
	for name, stop := range map[string]func(context.Context) error{"idle": idle, "never connected": unconnected} {
		begin := time.Now()
		if err := stop(testContext(t)); err != nil || time.Since(begin) > deadline/2 {
			t.Errorf("%s: %v after %v", name, err, time.Since(begin))
		}
	}
}

func TestWhatIsCancelledIsHandedBack(t *testing.T) {
	for name, returned := range map[string]func(context.Context) error{
		"with the cause":     context.Cause,
		"with ctx.Err":       context.Context.Err,
		"wrapped in its own": func(ctx context.Context) error { return errors.Join(errors.New("fetching"), ctx.Err()) },
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, "127.0.0.1:0")
			rec := newRecorder()
			started, causes := make(chan struct{}), make(chan error, 1)
			_, stop := startPool(t, workerpool.Options{Observer: rec, Functions: functions{
				"f": fn(func(ctx context.Context, _ *workerpool.Job) ([]byte, error) {
					close(started)
					<-ctx.Done()
					causes <- context.Cause(ctx)
					return nil, returned(ctx)
				}),
			}}, s.Addr())
			u := submit(t, connect(t, s.Addr()), "f", "job")
			receive(t, started, "the job")
			if err := stop(ended()); err != nil {
				t.Errorf("Stop: %v", err)
			}
			if cause := receive(t, causes, "the cause"); !errors.Is(cause, workerpool.ErrStopped) {
				t.Errorf("cause %v", cause)
			}
			heard := rec.all()
			if last := heard[len(heard)-1]; last.Type != event.FunctionOnFailure || last.Data.Reason != event.HandedBack {
				t.Errorf("observed %s, %+v", last.Type, last.Data)
			}
			startEcho(t, s.Addr())
			if got := u.next(t); got.Kind != gearman.Completed || string(got.Payload) != "other: job" {
				t.Errorf("the job ended with %+v (%q), want it run by the other", got, got.Payload)
			}
		})
	}
}

// assigned is an Observer that passes on the jobs that it hears of.
type assigned struct {
	*recorder
	begun func(*gearman.Assignment)
}

func (o *assigned) Observe(a *gearman.Assignment, t event.Type, d *event.Data) {
	o.recorder.Observe(a, t, d)
	if t == event.FunctionBeforeExecute {
		o.begun(a)
	}
}

func TestWhatWasOverBeforeThePoolStopsIsNotHandedBack(t *testing.T) {
	for kind, timeout := range map[string]time.Duration{"cancelled": 0, "timeout": 200 * time.Millisecond} {
		t.Run(kind, func(t *testing.T) {
			s := startServer(t, "127.0.0.1:0")
			jobs := make(chan *gearman.Assignment, 2)
			rec := &assigned{newRecorder(), func(a *gearman.Assignment) { jobs <- a }}
			over, finish, other, stopping := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
			running := make(chan struct{})
			p, stop := startPool(t, workerpool.Options{Observer: rec, Grace: deadline, Functions: functions{
				"f": {Timeout: timeout, Handler: workerpool.HandlerFunc(func(ctx context.Context, _ *workerpool.Job) ([]byte, error) {
					close(running)
					<-ctx.Done()
					close(over)
					<-finish
					return nil, errors.New("interrupted")
				})},
				"other": fn(func(ctx context.Context, _ *workerpool.Job) ([]byte, error) {
					close(other)
					<-ctx.Done()
					close(stopping)
					return nil, ctx.Err()
				}),
			}}, s.Addr())
			c := connect(t, s.Addr())
			u := submit(t, c, "f", "job")
			receive(t, running, "the handler") // one that is over before it begins does not run
			if a := receive(t, jobs, "the job"); kind == "cancelled" {
				p.Cancel(a)
			}
			receive(t, over, "the end of its context")
			submit(t, c, "other", "")
			receive(t, other, "the other handler")
			stopped := make(chan error, 1)
			go func() { stopped <- stop(ended()) }()
			receive(t, stopping, "the pool to cancel what runs")
			close(finish) // within the grace
			if err := receive(t, stopped, "Stop"); err != nil {
				t.Errorf("Stop: %v", err)
			}
			for _, e := range rec.all() {
				if e.Type == event.FunctionOnFailure && e.Data.Function == "f" && (e.Data.Reason != "" || e.Data.Error.Kind != kind) {
					t.Errorf("observed %+v, %+v", e.Data, e.Data.Error)
				}
			}
			startEcho(t, s.Addr())
			if got := u.next(t); got.Kind != gearman.Exception {
				t.Errorf("the job ended with %+v (%q), want it failed", got, got.Payload)
			}
		})
	}
}

// Else its retry policy would have it run again.
func TestACancelledJobIsCancelledHoweverItsHandlerEnds(t *testing.T) {
	for how, end := range map[string]func() error{
		"fails":  func() error { return workerpool.ErrFailed },
		"panics": func() error { panic("closed by the context") },
	} {
		s := startServer(t, "127.0.0.1:0")
		jobs := make(chan *gearman.Assignment, 1)
		rec := &assigned{newRecorder(), func(a *gearman.Assignment) { jobs <- a }}
		p, _ := startPool(t, workerpool.Options{Observer: rec, Functions: functions{
			"f": fn(func(ctx context.Context, _ *workerpool.Job) ([]byte, error) {
				<-ctx.Done()
				return nil, end()
			}),
		}}, s.Addr())
		submit(t, connect(t, s.Addr()), "f", "")
		p.Cancel(receive(t, jobs, "the job"))
		rec.await(t, event.FunctionOnFailure, 1)
		heard := rec.all()
		if e := heard[len(heard)-1].Data.Error; e.Kind != "cancelled" {
			t.Errorf("a handler that %s: %+v", how, e)
		}
	}
}

func TestAJobIsCancelledHoweverEarly(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	var p *workerpool.Pool
	rec := &assigned{newRecorder(), func(a *gearman.Assignment) { p.Cancel(a) }}
	p, _ = startPool(t, workerpool.Options{Observer: rec, Functions: functions{
		"f": fn(func(context.Context, *workerpool.Job) ([]byte, error) { return []byte("ran"), nil }),
	}}, s.Addr())
	if got := call(t, connect(t, s.Addr()), "f", ""); got.Kind != gearman.Exception || string(got.Payload) != workerpool.ErrCancelled.Error() {
		t.Errorf("the job ended with %+v (%q)", got, got.Payload)
	}
}

func TestAJobThatCompletesWhenCancelledIsComplete(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	started := make(chan struct{})
	_, stop := startPool(t, workerpool.Options{Functions: functions{
		"f": fn(func(ctx context.Context, _ *workerpool.Job) ([]byte, error) {
			close(started)
			<-ctx.Done()
			return []byte("quickly"), nil
		}),
	}}, s.Addr())
	u := submit(t, connect(t, s.Addr()), "f", "")
	receive(t, started, "the job")
	if err := stop(ended()); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if got := u.next(t); got.Kind != gearman.Completed || string(got.Payload) != "quickly" {
		t.Errorf("got %+v", got)
	}
}

func TestAHandlerThatIsStuckIsAbandoned(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	rec := newRecorder()
	started, forever := make(chan struct{}), make(chan struct{})
	const grace = 50 * time.Millisecond
	_, stop := startPool(t, workerpool.Options{Grace: grace, Observer: rec, Functions: functions{
		"f": fn(func(context.Context, *workerpool.Job) ([]byte, error) {
			close(started)
			<-forever
			return []byte("too late"), nil
		}),
	}}, s.Addr())
	u := submit(t, connect(t, s.Addr()), "f", "job")
	receive(t, started, "the job")
	begin := time.Now()
	if err := stop(ended()); err == nil || time.Since(begin) < grace || time.Since(begin) > deadline/2 {
		t.Errorf("Stop: %v after %v", err, time.Since(begin))
	}
	startEcho(t, s.Addr())
	if got := u.next(t); string(got.Payload) != "other: job" {
		t.Errorf("the job ended with %+v (%q), want it run by the other", got, got.Payload)
	}
	close(forever)
	rec.await(t, event.FunctionAfterExecute, 1) // it does no harm when it ends at last
}

// ErrStopped means nothing while the pool does not stop: a job that is neither ended nor given back would run forever in the
// job server's eyes.
func TestErrStoppedFromAHandlerOfARunningPoolIsAnError(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	startPool(t, workerpool.Options{Functions: functions{
		"f": fn(func(context.Context, *workerpool.Job) ([]byte, error) { return nil, workerpool.ErrStopped }),
	}}, s.Addr())
	u := submit(t, connect(t, s.Addr()), "f", "")
	late := time.After(deadline / 3)
	for {
		select {
		case got := <-u:
			switch got.Kind {
			case gearman.Created:
				continue
			case gearman.Exception:
			default:
				t.Errorf("got %+v, want an exception", got)
			}
		case <-late:
			t.Error("the job does not end")
		}
		return
	}
}

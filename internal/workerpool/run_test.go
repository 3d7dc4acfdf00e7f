package workerpool_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/workerpool"
)

type exitError struct{}

func (exitError) Error() string { return "exit status 3" }
func (exitError) Kind() string  { return "exit" }

func TestEachWayThatAHandlerEndsReachesTheClient(t *testing.T) {
	rec := newRecorder()
	s := startServer(t, "127.0.0.1:0")
	startPool(t, workerpool.Options{Observer: rec, Functions: functions{
		"f": fn(func(_ context.Context, j *workerpool.Job) ([]byte, error) {
			switch string(j.Workload) {
			case "fail":
				return []byte("not sent"), workerpool.ErrFailed
			case "wrapped fail":
				return nil, fmt.Errorf("no luck: %w", workerpool.ErrFailed)
			case "error":
				return []byte("not sent"), errors.New("no such image")
			case "timeout":
				return nil, fmt.Errorf("asking the other side: %w", context.DeadlineExceeded)
			case "retry":
				return nil, &workerpool.RetryError{After: time.Second, Err: errors.New("busy")}
			case "retry for no reason":
				return nil, &workerpool.RetryError{}
			case "never":
				return nil, fmt.Errorf("bad: %w", &workerpool.NeverRetryError{})
			case "exit":
				return nil, &workerpool.NeverRetryError{Err: exitError{}}
			case "exit at the timeout":
				return nil, errors.Join(context.DeadlineExceeded, exitError{})
			case "panic":
				panic(errors.New("index out of range"))
			case "goexit":
				runtime.Goexit() // as testing.T.FailNow does
			case "nothing":
				return nil, nil
			}
			return append([]byte("did "), j.Workload...), nil
		}),
	}}, s.Addr())
	c := connect(t, s.Addr())
	for _, test := range []struct {
		function, workload string
		kind               gearman.Kind
		payload            string
		failure            *event.Error
	}{
		{"f", "work\x00\xff", gearman.Completed, "did work\x00\xff", nil},
		{"f", "nothing", gearman.Completed, "", nil},
		{"f", "fail", gearman.Failed, "", &event.Error{Kind: "failed", Message: "the handler reported a failure"}},
		{"f", "wrapped fail", gearman.Failed, "", &event.Error{Kind: "failed", Message: "no luck: the handler reported a failure"}},
		{"f", "error", gearman.Exception, "no such image", &event.Error{Kind: "exception", Message: "no such image"}},
		{
			"f", "timeout", gearman.Exception, "asking the other side: context deadline exceeded",
			&event.Error{Kind: "timeout", Message: "asking the other side: context deadline exceeded"},
		},
		{"f", "retry", gearman.Exception, "busy", &event.Error{Kind: "exception", Message: "busy"}},
		{
			"f", "retry for no reason", gearman.Exception, "the handler asks for a retry",
			&event.Error{Kind: "exception", Message: "the handler asks for a retry"},
		},
		{
			"f", "never", gearman.Exception, "bad: the handler asks for no retry",
			&event.Error{Kind: "exception", Message: "bad: the handler asks for no retry"},
		},
		{"f", "exit", gearman.Exception, "exit status 3", &event.Error{Kind: "exit", Message: "exit status 3"}},
		{
			"f", "exit at the timeout", gearman.Exception, "context deadline exceeded\nexit status 3",
			&event.Error{Kind: "timeout", Message: "context deadline exceeded\nexit status 3"},
		},
		{
			"f", "panic", gearman.Exception, "panic: index out of range",
			&event.Error{Kind: "panic", Message: "panic: index out of range"},
		},
		{"f", "after a panic", gearman.Completed, "did after a panic", nil},
		{
			"f", "goexit", gearman.Exception, "the handler ended its goroutine",
			&event.Error{Kind: "exception", Message: "the handler ended its goroutine"},
		},
		{"f", "after a goexit", gearman.Completed, "did after a goexit", nil},
	} {
		got := call(t, c, test.function, test.workload)
		if got.Kind != test.kind || string(got.Payload) != test.payload {
			t.Errorf("%s: kind %d, %q, want %d, %q", test.workload, got.Kind, got.Payload, test.kind, test.payload)
		}
		heard := rec.all()
		last := heard[len(heard)-1]
		if test.failure == nil {
			if last.Type != event.FunctionAfterExecute || string(last.Data.Result) != test.payload {
				t.Errorf("%s: observed %s, %+v", test.workload, last.Type, last.Data)
			}
			continue
		}
		if last.Type != event.FunctionOnFailure || !cmp.Equal(last.Data.Error, test.failure) || last.Data.Reason != "" {
			t.Errorf("%s: observed %s, %+v", test.workload, last.Type, last.Data)
		}
	}
}

func TestAJobSendsDataWarningsAndProgress(t *testing.T) {
	rec := newRecorder()
	s := startServer(t, "127.0.0.1:0")
	startPool(t, workerpool.Options{Observer: rec, Functions: functions{
		"f": fn(func(_ context.Context, j *workerpool.Job) ([]byte, error) {
			if err := errors.Join(j.Progress(1, 3), j.Data([]byte("part")), j.Warning([]byte("careful"))); err != nil {
				return nil, err
			}
			return []byte(" and rest"), nil
		}),
	}}, s.Addr())
	u := submit(t, connect(t, s.Addr()), "f", "")
	for _, want := range []gearman.Update{
		{Kind: gearman.Status, Numerator: 1, Denominator: 3},
		{Kind: gearman.Data, Payload: []byte("part")},
		{Kind: gearman.Warning, Payload: []byte("careful")},
		{Kind: gearman.Completed, Payload: []byte(" and rest")},
	} {
		got := u.next(t)
		got.Job = gearman.Job{}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	want := []event.Type{
		event.FunctionBeforeExecute, event.JobProgress, event.JobData, event.JobWarning, event.FunctionAfterExecute,
	}
	if diff := cmp.Diff(want, rec.types()); diff != "" {
		t.Error(diff)
	}
}

func TestAHandlerHasTheJob(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	jobs := make(chan *workerpool.Job, 1)
	rec := newRecorder()
	rec.facts = event.Facts{ID: "id", Attempt: 2, Deadline: time.Now().Add(time.Hour), Traceparent: "00-1-2-01"}
	startPool(t, workerpool.Options{Observer: rec, Functions: functions{
		"f": fn(func(ctx context.Context, j *workerpool.Job) ([]byte, error) {
			if until, _ := ctx.Deadline(); !until.Equal(rec.facts.Deadline) {
				t.Errorf("the context ends at %v", until)
			}
			jobs <- j
			return nil, nil
		}),
	}}, s.Addr())
	where, err := connect(t, s.Addr()).Submit(testContext(t),
		gearman.Task{Function: "f", Unique: "u", Workload: []byte("w"), Background: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	j := receive(t, jobs, "the job")
	if j.Handle != where.Handle || j.Function != "f" || j.Unique != "u" || string(j.Workload) != "w" {
		t.Errorf("got %+v", j)
	}
	if got := (event.Facts{ID: j.ID, Attempt: j.Attempt, Deadline: j.Deadline, Traceparent: j.Traceparent}); got != rec.facts {
		t.Errorf("it is known as %+v, want %+v", got, rec.facts)
	}
}

// truth is an Observer that is slow to know what it is told: a packet that is written meanwhile reaches the client first.
type truth struct {
	client *gearman.Client

	sync.Mutex
	told map[string][]event.Type
}

func (o *truth) Begin(*gearman.Assignment) event.Facts { return event.Facts{} }

func (o *truth) Observe(a *gearman.Assignment, t event.Type, _ *event.Data) {
	for range 20 {
		_ = o.client.Echo(context.Background()) // ends with the client
	}
	o.Lock()
	defer o.Unlock()
	o.told[a.Handle] = append(o.told[a.Handle], t)
}

func (o *truth) last(handle string, n int) (event.Type, bool) {
	o.Lock()
	defer o.Unlock()
	if len(o.told[handle]) < n {
		return "", false
	}
	return o.told[handle][n-1], true
}

func TestNoPacketOvertakesItsObserver(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	c := connect(t, s.Addr())
	o := &truth{client: c, told: map[string][]event.Type{}}
	startPool(t, workerpool.Options{Concurrency: 4, Observer: o, Functions: functions{
		"f": fn(func(_ context.Context, j *workerpool.Job) ([]byte, error) {
			_ = j.Data([]byte("x"))
			_ = j.Warning([]byte("x"))
			_ = j.Progress(1, 1)
			if string(j.Workload) == "fail" {
				return nil, workerpool.ErrFailed
			}
			return nil, nil
		}),
	}}, s.Addr())
	want := map[gearman.Kind]event.Type{
		gearman.Data: event.JobData, gearman.Warning: event.JobWarning, gearman.Status: event.JobProgress,
		gearman.Completed: event.FunctionAfterExecute, gearman.Failed: event.FunctionOnFailure,
	}
	const jobs = 30
	var left sync.WaitGroup
	for i := range jobs {
		workload := "succeed"
		if i%3 == 0 {
			workload = "fail"
		}
		left.Add(1)
		packets := 1 // FunctionBeforeExecute comes without one
		if _, err := c.Submit(testContext(t), gearman.Task{Function: "f", Workload: []byte(workload)}, func(u gearman.Update) {
			if u.Kind == gearman.Created {
				return
			}
			packets++
			if got, ok := o.last(u.Job.Handle, packets); !ok || got != want[u.Kind] {
				t.Errorf("packet %d of %s has kind %d, and the observer knows %q", packets-1, u.Job.Handle, u.Kind, got)
			}
			if u.Kind >= gearman.Completed {
				left.Done()
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() { left.Wait(); close(done) }()
	receive(t, done, "all jobs")
}

func TestNoMoreJobsRunThanConcurrencyAllowsOverAllServers(t *testing.T) {
	const most, jobs = 3, 20
	a, b := startServer(t, "127.0.0.1:0"), startServer(t, "127.0.0.1:0")
	var running atomic.Int64
	started, finish := make(chan int64, 2*jobs), make(chan struct{})
	startPool(t, workerpool.Options{Concurrency: most, Functions: functions{
		"f": fn(func(ctx context.Context, _ *workerpool.Job) ([]byte, error) {
			started <- running.Add(1)
			defer running.Add(-1)
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return nil, nil
		}),
	}}, a.Addr(), b.Addr())
	ca, cb := connect(t, a.Addr()), connect(t, b.Addr())
	var all []updates
	for range jobs {
		all = append(all, submit(t, ca, "f", ""), submit(t, cb, "f", ""))
	}
	for range most {
		receive(t, started, "the slots to be taken")
	}
	queued := 0
	for _, addr := range []string{a.Addr(), b.Addr()} {
		table, err := gearman.NewAdmin(gearman.Options{Addr: addr}).Status(testContext(t))
		if err != nil || len(table) != 1 {
			t.Fatalf("%v, %v", table, err)
		}
		queued += table[0].Total - table[0].Running
	}
	if queued != 2*jobs-most {
		t.Errorf("%d of %d jobs are left in the queues, want all but %d: a pool must not hold what it does not run", queued, 2*jobs, most)
	}
	close(finish)
	for _, u := range all {
		if got := u.next(t); got.Kind != gearman.Completed {
			t.Errorf("got %+v", got)
		}
	}
	for len(started) > 0 {
		if n := <-started; n > most {
			t.Errorf("%d jobs ran at a time, want at most %d", n, most)
		}
	}
}

// What ends in the JSON of a job must be UTF-8.
func TestAnErrorsTextIsUTF8WhereItIsObserved(t *testing.T) {
	rec := newRecorder()
	s := startServer(t, "127.0.0.1:0")
	startPool(t, workerpool.Options{Observer: rec, Functions: functions{
		"f": fn(func(context.Context, *workerpool.Job) ([]byte, error) { return nil, errors.New("b\xffd") }),
	}}, s.Addr())
	call(t, connect(t, s.Addr()), "f", "")
	rec.await(t, event.FunctionOnFailure, 1)
	for _, e := range rec.all() {
		if e.Data.Error != nil && !utf8.ValidString(e.Data.Error.Message) {
			t.Errorf("%s says %q", e.Type, e.Data.Error.Message)
		}
	}
}

func TestAPoolNeedsFunctionsAndServers(t *testing.T) {
	ok := fn(func(context.Context, *workerpool.Job) ([]byte, error) { return nil, nil })
	one := []gearman.Options{{Addr: "127.0.0.1:1"}}
	if _, err := workerpool.New(workerpool.Options{Servers: one}); !errors.Is(err, workerpool.ErrNoFunctions) {
		t.Errorf("no handler: %v", err)
	}
	if _, err := workerpool.New(workerpool.Options{Functions: functions{"f": ok}}); err == nil {
		t.Error("no server: no error")
	}
	for _, name := range []string{"", "a b", "a\x00b", string(make([]byte, 600))} {
		_, err := workerpool.New(workerpool.Options{Servers: one, Functions: functions{name: ok}})
		if !errors.As(err, new(*gearman.NameError)) {
			t.Errorf("function %q: %v", name, err)
		}
	}
}

package workerpool_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/workerpool"
)

// closable is a handler that is closed once nobody uses it any more.
type closable struct {
	held
	closed chan struct{}
}

func newClosable(t testing.TB) *closable { return &closable{*newHeld(t), make(chan struct{})} }

func (c *closable) Close() { close(c.closed) } // twice would panic

func (c *closable) open() bool {
	select {
	case <-c.closed:
		return false
	default:
		return true
	}
}

func TestFunctionsComeAndGo(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		rec, kept, old, renewed := newRecorder(), newClosable(t), newClosable(t), newClosable(t)
		p, stop := startPool(t, workerpool.Options{Events: rec, Functions: functions{
			"f": {Handler: old}, "limited": {Handler: kept, Concurrency: 1}, "kept": {Handler: kept},
		}}, addr)
		c := connect(t, addr)
		u := submit(t, c, "f", "1")
		receive(t, old.began, "the job")
		waiting := submit(t, c, "new", "2")
		second := functions{"f": {Handler: renewed, Concurrency: 2}, "new": {Handler: renewed}, "kept": {Handler: kept}}
		if err := p.Reload(second, workerpool.Limits{}); err != nil {
			t.Fatal(err)
		}
		receive(t, renewed.began, "the new function's job")
		submit(t, c, "f", "3")
		receive(t, renewed.began, "the job of the new handler")
		if !old.open() {
			t.Error("a handler was closed that runs a job")
		}
		old.finish <- struct{}{}
		if got := u.next(t); string(got.Payload) != "held 1" {
			t.Errorf("the job that ran: %+v", got)
		}
		receive(t, old.closed, "the old handler to be closed")
		renewed.finish <- struct{}{}
		renewed.finish <- struct{}{}
		waiting.next(t)

		if err := p.Reload(nil, workerpool.Limits{}); err != nil {
			t.Fatal(err)
		}
		receive(t, renewed.closed, "the new handler to be closed")
		receive(t, kept.closed, "the handler of several functions to be closed")
		last := newClosable(t)
		waiting = submit(t, c, "f", "4")
		if err := p.Reload(functions{"f": {Handler: last}}, workerpool.Limits{}); err != nil {
			t.Fatal(err)
		}
		receive(t, last.began, "the job of the pool that was empty")
		last.finish <- struct{}{}
		waiting.next(t)
		if err := stop(testContext(t)); err != nil {
			t.Error(err)
		}
		if err := p.Reload(functions{"f": {Handler: kept}}, workerpool.Limits{}); !errors.Is(err, workerpool.ErrStopped) {
			t.Errorf("after Stop: %v", err)
		}
		if last.open() {
			t.Error("Stop has not closed the handler")
		}
		if rec.count(event.WorkerServerOnConnected) != 1 {
			t.Error("it has told of another connection")
		}
	})
}

func TestAReloadThatFailsChangesNothing(t *testing.T) {
	addr := startServer(t, "127.0.0.1:0").Addr()
	rec := newRecorder()
	p, stop := startPool(t, workerpool.Options{Events: rec, Observer: rec, Functions: functions{"f": fn(nothing)}}, addr)
	rec.await(t, event.WorkerOnAfterRegisterFunctions, 1)
	for name, try := range map[string]func() error{
		"a name":    func() error { return p.Reload(functions{"a b": fn(nothing)}, workerpool.Limits{}) },
		"a handler": func() error { return p.Reload(functions{"g": {}}, workerpool.Limits{}) },
		"a limit":   func() error { return p.Reload(functions{"g": fn(nothing)}, workerpool.Limits{MaxJobs: -1}) },
		"a word":    func() error { return p.Reload(functions{"g": fn(nothing)}, workerpool.Limits{OnLimit: "halt"}) },
	} {
		if try() == nil {
			t.Errorf("%s that makes no sense: no error", name)
		}
	}
	if got := call(t, connect(t, addr), "f", ""); got.Kind != gearman.Completed {
		t.Errorf("got %+v", got)
	}
	stop(testContext(t))
	if diff := cmp.Diff(wholeLife(1), rec.types(idle...)); diff != "" {
		t.Error(diff)
	}
}

func TestReloadsUnderLoadLoseNoJobAndRunNoneTwice(t *testing.T) {
	const reloads, jobs = 20, 600
	contract(t, func(t *testing.T, addr string) {
		var runs sync.Map
		var ended atomic.Int64
		run := func(_ context.Context, j *workerpool.Job) ([]byte, error) {
			n, _ := runs.LoadOrStore(string(j.Workload), &atomic.Int64{})
			if n.(*atomic.Int64).Add(1) > 1 {
				t.Errorf("%s runs again", j.Workload)
			}
			_ = j.Progress(1, 2)
			ended.Add(1)
			return j.Workload, nil
		}
		// Each time another function is left out, and another has limits.
		choose := func(n int) functions {
			all := functions{"always": fn(nothing)}
			for i := range 4 {
				f := fn(run)
				if (n+i)%3 == 0 {
					f.Concurrency = 1 + n%2
				}
				if (n+i)%4 != 0 {
					all[fmt.Sprint("f", i)] = f
				}
			}
			return all
		}
		p, _ := startPool(t, workerpool.Options{Concurrency: 6, Functions: choose(0)}, addr)
		c := connect(t, addr)
		var all []updates
		for n := range jobs {
			all = append(all, submit(t, c, fmt.Sprint("f", n%4), fmt.Sprint("job ", n)))
			if n%(jobs/reloads) == 0 {
				if err := p.Reload(choose(n/(jobs/reloads)), workerpool.Limits{}); err != nil {
					t.Fatal(err)
				}
				call(t, c, "always", "") // by then it has begun
			}
		}
		everything := functions{"always": fn(nothing)}
		for i := range 4 {
			everything[fmt.Sprint("f", i)] = fn(run)
		}
		if err := p.Reload(everything, workerpool.Limits{}); err != nil {
			t.Fatal(err)
		}
		for n, u := range all {
			got := u.next(t)
			if got.Kind == gearman.Status {
				got = u.next(t)
			}
			if want := fmt.Sprint("job ", n); got.Kind != gearman.Completed || string(got.Payload) != want {
				t.Errorf("%s: %+v", want, got)
			}
		}
		if ended.Load() != jobs {
			t.Errorf("%d runs of %d jobs", ended.Load(), jobs)
		}
	})
}

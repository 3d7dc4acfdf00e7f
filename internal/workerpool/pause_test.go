package workerpool_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/workerpool"
)

// depth returns a function's row of the job server's table.
func depth(t testing.TB, addr, function string) gearman.FunctionStatus {
	t.Helper()
	table, err := gearman.NewAdmin(gearman.Options{Addr: addr}).Status(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range table {
		if f.Function == function {
			return f
		}
	}
	return gearman.FunctionStatus{Function: function}
}

// awaitDepth looks until a function's row is as wanted, whatever its workers.
func awaitDepth(t testing.TB, addr string, want gearman.FunctionStatus) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(deadline); ; <-tick.C {
		got := depth(t, addr, want.Function)
		if got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}
}

// answered returns when the pool has the answers to what it asked for before the call: the worker has at most eight requests under way.
func answered(t testing.TB, c *gearman.Client) {
	t.Helper()
	for range 9 {
		call(t, c, "other", "")
	}
}

// Once with the other functions on the same connection, and once with limits, which make a connection of its own.
func TestAPausedFunctionKeepsItsJobsAndTakesNoMore(t *testing.T) {
	for _, concurrency := range []int{0, 2} {
		t.Run(fmt.Sprint("concurrency ", concurrency), func(t *testing.T) {
			contract(t, func(t *testing.T, addr string) {
				h := newClosable(t)
				p, stop := startPool(t, workerpool.Options{Functions: functions{
					"f": {Handler: h, Concurrency: concurrency}, "other": fn(nothing),
				}}, addr)
				c := connect(t, addr)
				running := []updates{submit(t, c, "f", "1"), submit(t, c, "f", "2")}
				receive(t, h.began, "the first job")
				receive(t, h.began, "the second job")

				for range 2 { // the second time is as good as the first
					if !p.Pause("f") {
						t.Fatal("f is not the pool's")
					}
				}
				if paused, own := p.Paused("f"); !paused || !own {
					t.Errorf("f: paused %v, own %v", paused, own)
				}
				answered(t, c)
				queued := submit(t, c, "f", "3")
				for range 5 { // the pool has slots and goes on
					if got := call(t, c, "other", ""); got.Kind != gearman.Completed {
						t.Errorf("another function's job: %+v", got)
					}
				}
				if got := depth(t, addr, "f"); got.Total != 3 || got.Running != 2 {
					t.Errorf("two jobs run and one waits, but the job server says %+v", got)
				}
				h.finish <- struct{}{}
				h.finish <- struct{}{}
				for n, u := range running {
					if got, want := u.next(t), fmt.Sprint("held ", n+1); got.Kind != gearman.Completed || string(got.Payload) != want {
						t.Errorf("a job that ran: %+v, want %s", got, want)
					}
				}
				awaitDepth(t, addr, gearman.FunctionStatus{Function: "f", Total: 1})
				call(t, c, "other", "")
				if len(h.began) > 0 || !h.open() {
					t.Error("the handler has run a job, or was closed")
				}

				for range 2 {
					if !p.Resume("f") {
						t.Fatal("f is not the pool's")
					}
				}
				if got := receive(t, h.began, "the job that waited"); got != "3" {
					t.Errorf("job %s began, want 3", got)
				}
				h.finish <- struct{}{}
				if got := queued.next(t); got.Kind != gearman.Completed {
					t.Errorf("the job that waited: %+v", got)
				}
				if err := stop(testContext(t)); err != nil {
					t.Error(err)
				}
				receive(t, h.closed, "the handler to be closed")
			})
		})
	}
}

func TestAFunctionsLimitsHoldOverAPause(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		h := newHeld(t)
		p, _ := startPool(t, workerpool.Options{Functions: functions{"f": {Handler: h, Concurrency: 1}, "other": fn(nothing)}}, addr)
		c := connect(t, addr)
		first := submit(t, c, "f", "1")
		receive(t, h.began, "the first job")
		second := submit(t, c, "f", "2")
		p.Pause("f")
		p.Resume("f")
		for range 5 {
			call(t, c, "other", "")
		}
		if len(h.began) > 0 {
			t.Error("two jobs run of a function that may run one")
		}
		h.finish <- struct{}{}
		receive(t, h.began, "the second job")
		h.finish <- struct{}{}
		first.next(t)
		second.next(t)
	})
}

func TestPausesOutliveReloadsAndWorkersButNotTheirFunction(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		rec := newRecorder()
		all := functions{"f": fn(nothing), "moves": fn(nothing), "other": fn(nothing)}
		p, _ := startPool(t, workerpool.Options{Events: rec, Functions: all, Limits: workerpool.Limits{MaxJobs: 3}}, addr)
		c := connect(t, addr)
		p.Pause("f")
		p.Pause("moves")
		paused := func(when string, names ...string) {
			t.Helper()
			for _, name := range names {
				if paused, own := p.Paused(name); !paused || !own {
					t.Errorf("%s: %s: paused %v, own %v", when, name, paused, own)
				}
				awaitDepth(t, addr, gearman.FunctionStatus{Function: name, Total: 1})
			}
		}
		answered(t, c)
		f, moves := submit(t, c, "f", ""), submit(t, c, "moves", "")
		rec.await(t, event.WorkerOnBeforeDestroy, 1)
		call(t, c, "other", "")
		paused("another worker", "f", "moves")

		all["moves"] = workerpool.Function{Handler: workerpool.HandlerFunc(nothing), Rate: 100} // has a connection of its own now
		if err := p.Reload(all, workerpool.Limits{}); err != nil {
			t.Fatal(err)
		}
		call(t, c, "other", "")
		paused("reload", "f", "moves")
		p.Resume("moves")
		moves.next(t)

		if err := p.Reload(functions{"other": fn(nothing)}, workerpool.Limits{}); err != nil {
			t.Fatal(err)
		}
		if paused, own := p.Paused("f"); paused || own {
			t.Errorf("a function that is gone: paused %v, own %v", paused, own)
		}
		if p.Pause("f") || p.Resume("f") || p.Pause("never was") {
			t.Error("a function that is not the pool's was paused or resumed")
		}
		if err := p.Reload(all, workerpool.Limits{}); err != nil {
			t.Fatal(err)
		}
		f.next(t)
	})
}

func TestPausesUnderLoadLoseNoJobAndRunNoneTwice(t *testing.T) {
	const pauses, jobs = 60, 600
	contract(t, func(t *testing.T, addr string) {
		var runs sync.Map
		run := func(_ context.Context, j *workerpool.Job) ([]byte, error) {
			n, _ := runs.LoadOrStore(string(j.Workload), &atomic.Int64{})
			if n.(*atomic.Int64).Add(1) > 1 {
				t.Errorf("%s runs again", j.Workload)
			}
			_ = j.Progress(1, 2)
			return j.Workload, nil
		}
		limited := fn(run)
		limited.Concurrency = 1
		p, _ := startPool(t, workerpool.Options{Concurrency: 6, Functions: functions{
			"f0": fn(run), "f1": fn(run), "f2": limited, "always": fn(nothing),
		}}, addr)
		c := connect(t, addr)
		var all []updates
		for n := range jobs {
			all = append(all, submit(t, c, fmt.Sprint("f", n%3), fmt.Sprint("job ", n)))
			if n%(jobs/pauses) == 0 {
				turn := n / (jobs / pauses)
				p.Resume(fmt.Sprint("f", (turn+1)%3))
				p.Pause(fmt.Sprint("f", turn%3))
				if turn%4 == 0 {
					call(t, c, "always", "") // which must not wait for the others
				}
			}
		}
		for i := range 3 {
			p.Resume(fmt.Sprint("f", i))
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
	})
}

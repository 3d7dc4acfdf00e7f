package workerpool_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/workerpool"
)

// The life of a worker that runs some jobs before it leaves.
func wholeLife(jobs int) []event.Type {
	life := slices.Concat([]event.Type{event.WorkerBeforeRun}, connecting)
	for range jobs {
		life = append(life, event.FunctionBeforeExecute, event.FunctionAfterExecute, event.WorkerAfterRun)
	}
	return append(life, event.WorkerOnBeforeDestroy)
}

// awaitReason returns why the nth worker left.
func (r *recorder) awaitReason(t testing.TB, n int) string {
	t.Helper()
	r.await(t, event.WorkerOnBeforeDestroy, n)
	var reasons []string
	for _, e := range r.all() {
		if e.Type == event.WorkerOnBeforeDestroy {
			reasons = append(reasons, e.Data.Reason)
		}
	}
	return reasons[n-1]
}

func TestEachLimitEndsAWorkersLife(t *testing.T) {
	var large atomic.Int64
	for name, test := range map[string]struct {
		limits workerpool.Limits
		jobs   int
		reason string
	}{
		"jobs":    {workerpool.Limits{MaxJobs: 3}, 3, "job limit: 3 jobs were run"},
		"runtime": {workerpool.Limits{MaxRuntime: 1}, 1, "runtime limit: it ran for "},
		"memory":  {workerpool.Limits{MemoryLimit: 1200}, 1, "memory limit: 1000 bytes are in use, of 1200"},
		"idle":    {workerpool.Limits{IdleTimeout: 50 * time.Millisecond}, 0, "idle limit: no job for 50ms"},
	} {
		for _, then := range []workerpool.OnLimit{workerpool.Restart, workerpool.Exit} {
			t.Run(name+" "+string(then), func(t *testing.T) {
				contract(t, func(t *testing.T, addr string) {
					large.Store(999)
					rec, exits := newRecorder(), make(chan string, 10)
					test.limits.OnLimit = then
					o := workerpool.Options{
						ID: "w", Concurrency: 1, Observer: rec, Events: rec, Limits: test.limits, Functions: functions{"f": fn(nothing)},
						Exit: func(reason string) { exits <- reason }, Memory: large.Load,
					}
					_, stop := startPool(t, o, addr)
					c := connect(t, addr)
					for n := range test.jobs {
						if n == test.jobs-1 {
							large.Store(1000)
						}
						call(t, c, "f", "")
					}
					if got := rec.awaitReason(t, 1); !strings.HasPrefix(got, test.reason) {
						t.Errorf("it left because of %q, want %q", got, test.reason)
					}
					if then == workerpool.Exit || name == "memory" {
						receive(t, exits, "the exit")
						if diff := cmp.Diff(wholeLife(test.jobs), rec.types(idle...)); diff != "" {
							t.Error(diff)
						}
						stop(testContext(t))
						if len(exits) > 0 || rec.count(event.WorkerOnBeforeDestroy) != 1 {
							t.Error("it left twice")
						}
						return
					}
					rec.await(t, event.WorkerOnAfterRegisterFunctions, 2) // its successor
					if got := call(t, c, "f", ""); got.Kind != gearman.Completed {
						t.Errorf("the successor's job: %+v", got)
					}
					stop(testContext(t))
					checkLives(t, rec, wholeLife(test.jobs))
				})
			})
		}
	}
}

// checkLives looks at the events of workers that followed each other: each is a subject of its own.
func checkLives(t *testing.T, rec *recorder, first []event.Type) {
	t.Helper()
	lives := map[string][]event.Type{}
	var order []string
	for _, e := range rec.all() {
		w := e.Data.Worker
		if e.ID != "" && e.Subject != w {
			t.Errorf("%s of %s has the subject %s", e.Type, w, e.Subject)
		}
		if e.Type == event.WorkerBeforeRun {
			order = append(order, w)
		}
		if w != order[len(order)-1] {
			t.Errorf("%s of %s comes after its successor began", e.Type, w)
		}
		if !slices.Contains(idle, e.Type) {
			lives[w] = append(lives[w], e.Type)
		}
	}
	if len(order) < 2 || order[0] != "w" || order[1] != "w-2" {
		t.Errorf("the workers are %v", order)
	}
	if diff := cmp.Diff(first, lives["w"]); diff != "" {
		t.Error(diff)
	}
}

func TestAWorkerThatLeavesFinishesWhatRuns(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		h, rec := newHeld(t), newRecorder()
		startPool(t, workerpool.Options{
			Concurrency: 2, Events: rec, Limits: workerpool.Limits{MaxJobs: 1}, Functions: functions{"f": {Handler: h}, "g": fn(nothing)},
		}, addr)
		c := connect(t, addr)
		long := submit(t, c, "f", "long")
		receive(t, h.began, "the long job")
		call(t, c, "g", "")
		waiting := submit(t, c, "g", "")
		if rec.count(event.WorkerOnBeforeDestroy) > 0 {
			t.Error("it was gone before its job had ended")
		}
		h.finish <- struct{}{}
		if got := long.next(t); string(got.Payload) != "held long" {
			t.Errorf("the long job: %+v", got)
		}
		if got := waiting.next(t); got.Kind != gearman.Completed {
			t.Errorf("the job for the successor: %+v", got)
		}
	})
}

func TestAWorkerThatIsTooLargeAtItsStartLeavesAtOnce(t *testing.T) {
	rec, exits := newRecorder(), make(chan string, 10)
	startPool(t, workerpool.Options{
		Events: rec, Limits: workerpool.Limits{MemoryLimit: 1}, Functions: functions{"f": fn(nothing)},
		Exit: func(reason string) { exits <- reason },
	}, startServer(t, "127.0.0.1:0").Addr())
	receive(t, exits, "the exit")
	if diff := cmp.Diff([]event.Type{event.WorkerBeforeRun, event.WorkerOnBeforeDestroy}, rec.types()); diff != "" {
		t.Error(diff)
	}
}

func TestAWorkerThatWorksIsNotIdle(t *testing.T) {
	h, rec := newHeld(t), newRecorder()
	addr := startServer(t, "127.0.0.1:0").Addr()
	startPool(t, workerpool.Options{
		Concurrency: 2, Events: rec, Limits: workerpool.Limits{IdleTimeout: 100 * time.Millisecond}, Functions: functions{"f": {Handler: h}},
	}, addr)
	u := submit(t, connect(t, addr), "f", "")
	receive(t, h.began, "the job")
	other := newRecorder() // which has nothing to do, and begins later
	startPool(t, workerpool.Options{
		ID: "other", Events: other, Limits: workerpool.Limits{IdleTimeout: 100 * time.Millisecond}, Functions: functions{"g": fn(nothing)},
	}, addr)
	other.awaitReason(t, 2)
	if rec.count(event.WorkerOnBeforeDestroy) > 0 {
		t.Error("it left while it ran a job")
	}
	h.finish <- struct{}{}
	u.next(t)
	rec.awaitReason(t, 1)
}

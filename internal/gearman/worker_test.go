package gearman_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/gearmandtest"
)

func TestAWorkerTakesNoMoreJobsThanItHasSlots(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		c := connect(t, addr)
		var running, most atomic.Int64
		full, finish := make(chan struct{}), make(chan struct{})
		run := func(a *gearman.Assignment) {
			n := running.Add(1)
			defer running.Add(-1)
			most.Store(max(most.Load(), n))
			if n == 3 {
				close(full)
			}
			<-finish
			a.Complete(nil)
		}
		var all []updates
		for range 7 {
			_, u := submit(t, c, gearman.Task{Function: "f"})
			all = append(all, u)
		}
		startWorker3(t, addr, run)
		<-full
		status, err := gearman.NewAdmin(gearman.Options{Addr: addr}).Status(testContext(t))
		if err != nil || len(status) != 1 || status[0].Running != 3 || status[0].Total != 7 {
			t.Errorf("with 3 slots taken: %+v, %v, want 3 running of 7", status, err)
		}
		// Only now may the rest run, three at a time; full must not be closed twice.
		running.Store(100)
		close(finish)
		for _, u := range all {
			if got := u.next(t); got.Kind != gearman.Completed {
				t.Errorf("job ended with %+v", got)
			}
		}
		if m := most.Load(); m > 103 {
			t.Errorf("%d jobs ran at a time, with 3 slots", m-100)
		}
	})
}

func startWorker3(t testing.TB, addr string, run func(*gearman.Assignment)) {
	w := gearman.NewWorker(gearman.WorkerOptions{
		Options: gearman.Options{Addr: addr}, Functions: []string{"f"}, Slots: make(gearman.Slots, 3), Run: run,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
}

func TestAStoppedWorkerFinishesItsJobsAndTakesNoMore(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		c := connect(t, addr)
		started, finish := make(chan struct{}), make(chan struct{})
		stop, wait := startWorker(t, addr, 1, func(a *gearman.Assignment) {
			close(started) // a second job would panic here
			<-finish
			a.Complete([]byte("done"))
		}, "f")
		_, u := submit(t, c, gearman.Task{Function: "f"})
		<-started
		second, _ := submit(t, c, gearman.Task{Function: "f", Background: true, Unique: "later"})
		stop()
		close(finish)
		wait()
		if got := u.next(t); got.Kind != gearman.Completed || string(got.Payload) != "done" {
			t.Errorf("the job that ran at the stop: %+v", got)
		}
		if s, err := c.Status(testContext(t), second); err != nil || !s.Known || s.Running {
			t.Errorf("the job behind it is %+v (%v), want it queued", s, err)
		}
	})
}

func TestADyingWorkersJobGoesToAnother(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		c := connect(t, addr)
		_, u := submit(t, c, gearman.Task{Function: "f", Workload: []byte("x")})
		taken := make(chan struct{})
		forever := make(chan struct{})
		defer close(forever)
		w := gearman.NewWorker(gearman.WorkerOptions{
			Options: gearman.Options{Addr: addr}, Functions: []string{"f"}, Slots: make(gearman.Slots, 1),
			Run: func(*gearman.Assignment) { close(taken); <-forever },
		})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); w.Run(ctx) }()
		<-taken
		cancel()
		w.Abort()
		<-ended
		startWorkerThatRuns(t, addr, echoWorker)
		if got := u.next(t); got.Kind != gearman.Completed || string(got.Payload) != "x" {
			t.Errorf("the job whose worker died: %+v", got)
		}
	})
}

func TestAWorkerComesBackAfterEachRestart(t *testing.T) {
	s := gearmandtest.Start(t)
	runs := make(chan string, 10)
	w := gearman.NewWorker(gearman.WorkerOptions{
		Options: gearman.Options{Addr: s.Addr()}, Functions: []string{"f"}, Slots: make(gearman.Slots, 1),
		Run: func(a *gearman.Assignment) { runs <- string(a.Workload); a.Complete(nil) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); w.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	for i := range 3 {
		c := connect(t, s.Addr())
		want := fmt.Sprint("life ", i)
		_, u := submit(t, c, gearman.Task{Function: "f", Workload: []byte(want)})
		if got := <-runs; got != want {
			t.Errorf("ran %q, want %q", got, want)
		}
		if got := u.next(t); got.Kind != gearman.Completed {
			t.Errorf("%s: %+v", want, got)
		}
		closeNow(c)
		s.Kill()
		s.Restart()
	}
}

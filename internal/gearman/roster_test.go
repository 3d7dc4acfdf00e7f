package gearman_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/gearmandtest"
)

// startRoster runs a worker for each address, which share a roster and slots, until the test ends.
func startRoster(t testing.TB, shared gearman.Slots, abilities map[string]*gearman.Ability, addrs ...string) *gearman.Roster {
	t.Helper()
	roster := gearman.NewRoster(abilities)
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	t.Cleanup(func() { cancel(); ended.Wait() })
	for _, addr := range addrs {
		w := gearman.NewWorker(gearman.WorkerOptions{Options: gearman.Options{Addr: addr}, Roster: roster, Slots: shared})
		ended.Go(func() { w.Run(ctx) })
	}
	return roster
}

// capable returns how many workers a job server has for a function, and how many jobs of it run and wait.
func capable(t testing.TB, addr, function string) (workers, running, waiting int) {
	t.Helper()
	table, err := gearman.NewAdmin(gearman.Options{Addr: addr}).Status(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range table {
		if f.Function == function {
			return f.Workers, f.Running, f.Total - f.Running
		}
	}
	return 0, 0, 0
}

func awaitCapable(t testing.TB, addr, function string, want int) {
	t.Helper()
	poll(t, "the job server to know who does "+function, func() bool { n, _, _ := capable(t, addr, function); return n == want })
}

// held runs jobs that end when they are told to.
type held struct {
	began  chan *gearman.Assignment
	finish chan struct{}
}

func newHeld() *held { return &held{make(chan *gearman.Assignment, 100), make(chan struct{}, 100)} }

func (h *held) run(a *gearman.Assignment) {
	h.began <- a
	<-h.finish
	a.Complete(append([]byte("held "), a.Workload...))
}

func (h *held) next(t testing.TB) *gearman.Assignment {
	t.Helper()
	select {
	case a := <-h.began:
		return a
	case <-time.After(20 * time.Second):
		close(h.finish)
		t.Fatal("no job began")
		return nil
	}
}

func TestAFunctionAtItsLimitIsLeftToOtherWorkers(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		h := newHeld()
		slots := make(gearman.Slots, 4)
		startRoster(t, slots, map[string]*gearman.Ability{"f": {Run: h.run, Concurrency: 1}}, addr)
		startRoster(t, slots, map[string]*gearman.Ability{"g": {Run: echoWorker}}, addr)
		awaitCapable(t, addr, "f", 1)
		c := connect(t, addr)
		_, first := submit(t, c, gearman.Task{Function: "f", Workload: []byte("1")})
		h.next(t)
		_, second := submit(t, c, gearman.Task{Function: "f", Workload: []byte("2")})
		for range 5 { // it has slots for them, and goes on
			_, u := submit(t, c, gearman.Task{Function: "g", Workload: []byte("x")})
			if got := u.next(t); got.Kind != gearman.Completed {
				t.Errorf("another function's job: %+v", got)
			}
		}
		if _, running, waiting := capable(t, addr, "f"); running != 1 || waiting != 1 {
			t.Errorf("%d jobs run and %d wait, want one of each", running, waiting)
		}
		stop := startWorkerThatRuns(t, addr, echoWorker)
		if got := second.next(t); string(got.Payload) != "2" {
			t.Errorf("the second job: %q, want it run by the other worker", got.Payload)
		}
		stop()
		_, third := submit(t, c, gearman.Task{Function: "f", Workload: []byte("3")})
		close(h.finish)
		for want, u := range map[string]updates{"held 1": first, "held 3": third} {
			if got := u.next(t); string(got.Payload) != want {
				t.Errorf("got %q, want %q", got.Payload, want)
			}
		}
		awaitCapable(t, addr, "f", 1)
	})
}

// The one is real, the other embedded: they must have nothing in common but the worker.
func TestALimitHoldsOverAllJobServers(t *testing.T) {
	const jobs = 40
	a, b := startEmbedded(t), gearmandtest.Start(t).Addr()
	for _, limit := range []int64{1, 2} {
		var running, most atomic.Int64
		f := gearman.Ability{Concurrency: int(limit), Run: func(a *gearman.Assignment) {
			most.Store(max(most.Load(), running.Add(1)))
			capable(t, a.Server, a.Function) // takes a while
			running.Add(-1)
			a.Complete(nil)
		}}
		t.Run("", func(t *testing.T) {
			startRoster(t, make(gearman.Slots, 8), map[string]*gearman.Ability{"f": &f, "g": {Run: echoWorker}}, a, b, a)
			ca, cb := connect(t, a), connect(t, b)
			var all []updates
			for range jobs {
				for _, c := range []*gearman.Client{ca, cb} {
					for _, function := range []string{"f", "g"} {
						_, u := submit(t, c, gearman.Task{Function: function})
						all = append(all, u)
					}
				}
			}
			for _, u := range all {
				if got := u.next(t); got.Kind != gearman.Completed {
					t.Errorf("got %+v", got)
				}
			}
			if most.Load() > limit {
				t.Errorf("%d jobs ran at a time, want at most %d", most.Load(), limit)
			}
		})
	}
}

func TestJobsBeginAtTheRateOfTheirFunction(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		const perSecond, jobs = 20, 30
		h := newHeld()
		close(h.finish)
		c := connect(t, addr)
		var all []updates
		for range jobs {
			_, u := submit(t, c, gearman.Task{Function: "f"})
			all = append(all, u)
		}
		begin := time.Now()
		startRoster(t, make(gearman.Slots, 8), map[string]*gearman.Ability{"f": {Run: h.run, Rate: perSecond}, "g": {Run: echoWorker}}, addr)
		for n := range jobs {
			h.next(t)
			least := time.Duration(max(0, n+1-perSecond)) * time.Second / perSecond
			if took := time.Since(begin); took < least {
				t.Errorf("job %d began after %v, want at least %v", n, took, least)
			}
			if n == perSecond+2 { // the others wait where another worker could have them
				_, u := submit(t, c, gearman.Task{Function: "g"})
				u.next(t)
				if _, running, waiting := capable(t, addr, "f"); running > 1 || waiting < 1 {
					t.Errorf("%d jobs run, %d wait", running, waiting)
				}
			}
		}
		for _, u := range all {
			u.next(t)
		}
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("all of them took %v", took)
		}
	})
}

func TestAbilitiesComeAndGoWithoutANewConnection(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		old, renewed := newHeld(), newHeld()
		unused := make(chan string, 10)
		ability := func(name string, h *held) *gearman.Ability {
			return &gearman.Ability{Run: h.run, Concurrency: 1, Unused: func() { unused <- name }}
		}
		roster := startRoster(t, make(gearman.Slots, 4), map[string]*gearman.Ability{"f": ability("old f", old), "g": ability("g", old)}, addr)
		c := connect(t, addr)
		_, first := submit(t, c, gearman.Task{Function: "f", Workload: []byte("1")})
		worker := old.next(t)
		_, queued := submit(t, c, gearman.Task{Function: "h", Workload: []byte("2")})

		roster.Set(map[string]*gearman.Ability{"f": ability("new f", renewed), "h": ability("h", renewed)})
		if got := <-unused; got != "g" {
			t.Errorf("%s is not used any more, want g", got)
		}
		if a := renewed.next(t); a.Function != "h" {
			t.Errorf("the new function's job is of %s", a.Function)
		}
		awaitCapable(t, addr, "g", 0)
		_, second := submit(t, c, gearman.Task{Function: "f", Workload: []byte("3")})
		if _, running, waiting := capable(t, addr, "f"); running != 1 || waiting != 1 {
			t.Errorf("%d jobs run and %d wait, want one of each: the old job counts", running, waiting)
		}
		old.finish <- struct{}{}
		if got := first.next(t); string(got.Payload) != "held 1" {
			t.Errorf("the job that ran: %+v", got)
		}
		if got := <-unused; got != "old f" {
			t.Errorf("%s is not used any more, want the old f", got)
		}
		if a := renewed.next(t); string(a.Workload) != "3" {
			t.Errorf("the new f runs %q", a.Workload)
		}
		close(renewed.finish)
		queued.next(t)
		second.next(t)

		roster.Set(nil)
		<-unused
		<-unused
		awaitCapable(t, addr, "f", 0)
		_, third := submit(t, c, gearman.Task{Function: "f", Workload: []byte("4")})
		roster.Set(map[string]*gearman.Ability{"f": ability("last", old)})
		if a := old.next(t); string(a.Workload) != "4" {
			t.Errorf("the last runs %q", a.Workload)
		} else if err := worker.Data(nil); err == nil {
			t.Error("a job that has ended speaks on")
		}
		close(old.finish)
		third.next(t)
	})
}

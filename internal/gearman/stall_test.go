package gearman_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/gearmandtest"
)

// A job server that is stopped and continued under load makes callers give up while their replies are still to come: nobody may
// get another's handle or result.
func TestNobodyGetsAnothersResultWhenGearmandStalls(t *testing.T) {
	s := gearmandtest.Start(t)
	startWorker(t, s.Addr(), 8, echoWorker, "echo")
	c := connect(t, s.Addr())

	var handles sync.Map // handle and generation → workload: each may be given once
	var done, gaveUp atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				workload := fmt.Sprintf("%d/%d", g, i)
				check := func(u gearman.Update) {
					switch u.Kind {
					case gearman.Created:
						if other, taken := handles.LoadOrStore(u.Job, workload); taken {
							t.Errorf("%+v was given to %s and to %v", u.Job, workload, other)
						}
					case gearman.Completed:
						if string(u.Payload) != workload {
							t.Errorf("%s got the result %q", workload, u.Payload)
						}
						if given, _ := handles.Load(u.Job); given != workload {
							t.Errorf("the result of %s came under the handle of %v", workload, given)
						}
						done.Add(1)
					}
				}
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				_, err := c.Submit(ctx, gearman.Task{Function: "echo", Workload: []byte(workload)}, check)
				cancel()
				switch {
				case err == nil:
				case errors.Is(err, gearman.ErrOutcomeUnknown):
					gaveUp.Add(1)
				case errors.Is(err, gearman.ErrNotSent): // the connection was given up: do not spin
					c.WaitConnected(context.Background())
				default:
					t.Errorf("%s: %v", workload, err)
				}
			}
		})
	}
	first := c.Generation()
	for round := range 3 {
		before, gone := done.Load(), gaveUp.Load()
		poll(t, "jobs to be done", func() bool { return done.Load() > before+200 })
		s.Pause()
		poll(t, "callers to give up", func() bool { return gaveUp.Load() > gone+100 })
		if round == 2 { // let the heartbeat find it
			begin := time.Now()
			poll(t, "the stalled server to be found", func() bool { return c.Generation() != first })
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("a stalled server was found after %v, want 10 s at most", took)
			}
		}
		s.Resume()
	}
	before := done.Load()
	poll(t, "jobs to be done after the last stall", func() bool { return done.Load() > before+200 })
	close(stop)
	wg.Wait()
	t.Logf("%d jobs done, %d submits given up", done.Load(), gaveUp.Load())
}

func TestAClientComesBackAfterEachRestart(t *testing.T) {
	s := gearmandtest.Start(t)
	c := connect(t, s.Addr())
	for range 3 {
		_, u := submit(t, c, gearman.Task{Function: "f"})
		generation := c.Generation()
		s.Kill()
		if got := u.next(t); got.Kind != gearman.Lost || !errors.Is(got.Err, gearman.ErrOutcomeUnknown) {
			t.Errorf("who waits for a result when gearmand dies was told %+v", got)
		}
		poll(t, "the loss to be seen", func() bool { return c.Generation() == 0 })
		if err := c.Echo(testContext(t)); !errors.Is(err, gearman.ErrUnavailable) {
			t.Errorf("Echo with gearmand dead: %v", err)
		}
		s.Restart()
		begin := time.Now()
		poll(t, "the client to come back", func() bool { return c.Generation() > generation })
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("it came back %v after gearmand listened, want 2 s at most", took)
		}
	}
}

package ledger

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

func TestAFailedJobIsTriedAgainWithGrowingPauses(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, Retry: Retry{Max: 3, Backoff: time.Minute}})
		uniques := map[string]bool{}
		s := b.next()
		for attempt := range 3 {
			s.created(at(fmt.Sprint("H:", attempt)))
			s.data("never mind")
			s.failed()
			waiting := b.ends(r.ID, Scheduled)
			if waiting.Attempt != attempt+1 || waiting.Error != nil || waiting.Handle != "" {
				t.Errorf("after attempt %d: %+v", attempt, waiting)
			}
			uniques[s.Unique] = true
			var pause time.Duration
			s, pause = b.within(time.Hour)
			if want := time.Minute << attempt; pause < want*3/4 || pause > want*5/4 {
				t.Errorf("pause %d is %v", attempt, pause)
			}
			if uniques[s.Unique] || len(s.Unique) > gearman.MaxUnique || string(s.Workload) != "w" {
				t.Errorf("attempt %d: %+v", attempt, s.Task)
			}
		}
		s.created(at("H:3"))
		s.failed()
		got := b.ends(r.ID, Failed)
		if got.Attempt != 3 || got.Error == nil || got.Error.Kind != "failed" {
			t.Errorf("got %+v", got)
		}
		later(24 * time.Hour)
		b.quiet()
		once := []event.Type{event.JobSubmitted, event.JobStarted}
		want := append(once, event.JobData)
		for i := range 3 {
			want = append(want, event.JobScheduled)
			want = append(want, once...)
			if i < 2 {
				want = append(want, event.JobData)
			}
		}
		if diff := cmp.Diff(append(want, event.JobFailed), b.disk.types(r.ID)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestThePauseBeforeAnAttemptIsAtMostAnHourOrSo(t *testing.T) {
	for _, backoff := range []time.Duration{time.Second, 40 * time.Minute, 24 * time.Hour, 1 << 62} {
		lives(t, Options{}, func(t *testing.T, b *life) {
			b.enter(Task{Mode: Tracked, Retry: Retry{Max: 70, Backoff: backoff}})
			s := b.next()
			for attempt := range 70 {
				s.created(at("H:1"))
				s.failed()
				var pause time.Duration
				s, pause = b.within(2 * time.Hour)
				if pause > 75*time.Minute || pause < min(backoff, time.Hour)*3/4 {
					t.Fatalf("backoff %v, attempt %d: pause %v", backoff, attempt, pause)
				}
			}
		})
	}
}

func TestTheResultIsThatOfTheLastAttempt(t *testing.T) {
	lives(t, Options{MaxBytes: 100}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, Retry: Retry{Max: 2, Backoff: time.Second}})
		s := b.next()
		s.created(at("H:1"))
		s.data("first")
		s.tell(gearman.Update{Kind: gearman.Exception, Payload: []byte("no")})
		s, _ = b.within(time.Minute)
		s.created(at("H:2"))
		s.data(string(make([]byte, 101))) // more than is kept
		s.failed()
		s, _ = b.within(time.Minute)
		s.created(at("H:3"))
		s.data("la")
		s.completed("st")
		if got := b.ends(r.ID, Completed); string(got.Result) != "last" || !got.Kept || got.Attempt != 2 || got.Handle != "H:3" {
			t.Errorf("got %+v", got)
		}
	})
}

// Our pool tells of a failure before the packet does, and the packet comes while the next attempt waits or has begun.
func TestAFailureOfOurPoolIsOneAttempt(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, Retry: Retry{Max: 5, Backoff: time.Minute}})
		s := b.next()
		s.created(at("H:1"))
		a := assign(s, "H:1")
		b.before(a)
		b.failed(a, "exit", "exit status 1")
		s.tell(gearman.Update{Kind: gearman.Exception, Payload: []byte("exit status 1")})
		if got := b.ends(r.ID, Scheduled); got.Attempt != 1 {
			t.Errorf("attempt %d", got.Attempt)
		}
		again, _ := b.within(2 * time.Minute)
		s.failed()
		s.completed("stale")
		s.lost(errCut)
		again.created(at("H:2"))
		b.quiet()
		if got := b.of(r.ID); got.Attempt != 1 || got.State != Queued {
			t.Errorf("got %+v", got)
		}
		again.completed("fresh")
		if got := b.ends(r.ID, Completed); string(got.Result) != "fresh" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAJobIsNotTriedAgainAfterItsDeadline(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, Retry: Retry{Max: 5, Backoff: time.Minute}, Deadline: time.Now().Add(time.Second)})
		s := b.next()
		s.created(at("H:1"))
		a := assign(s, "H:1")
		b.before(a)
		later(2 * time.Second)
		b.failed(a, "timeout", "the deadline passed")
		if got := b.ends(r.ID, Failed); got.Error.Kind != "timeout" {
			t.Errorf("error %+v", got.Error)
		}
		later(time.Hour)
		b.quiet()
	})
}

func TestACancelledRunIsNotTriedAgain(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, Retry: Retry{Max: 5, Backoff: time.Minute}})
		s := b.next()
		s.created(at("H:1"))
		a := assign(s, "H:1")
		b.before(a)
		b.failed(a, "cancelled", "cancelled")
		b.ends(r.ID, Cancelled)
		later(time.Hour)
		b.quiet()
	})
}

func TestRunAgainIsANewJobWithTheSameTask(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		task := Task{Mode: Tracked, Workload: []byte("w"), Priority: gearman.High, OnLost: Fail, Retry: Retry{Max: 1, Backoff: time.Second}}
		old := b.enter(task)
		_, err := b.RunAgain(t.Context(), everyone, old.ID)
		if !errors.Is(err, ErrNotEnded) {
			t.Errorf("queued: %v", err)
		}
		s := b.next()
		s.created(at("H:1"))
		s.failed()
		s, _ = b.within(time.Minute)
		s.created(at("H:2"))
		s.failed()
		b.ends(old.ID, Failed)
		for _, where := range []string{"in memory", "in the store alone"} {
			if where != "in memory" {
				b.restart()
			}
			r, err := b.RunAgain(t.Context(), everyone, old.ID)
			if err != nil {
				t.Fatal(err)
			}
			if r.ID == old.ID || r.RetryOf != old.ID || r.OnLost != Fail || r.Retry != task.Retry || r.Attempt != 0 {
				t.Errorf("%s: %+v", where, r)
			}
			s := b.next()
			if diff := cmp.Diff(gearman.Task{Function: "f", Unique: r.ID, Workload: []byte("w"), Priority: gearman.High}, s.Task); diff != "" {
				t.Errorf("%s: %s", where, diff)
			}
			s.created(at("H:3"))
			s.completed("done")
			if _, err := b.RunAgain(t.Context(), everyone, r.ID); !errors.Is(err, ErrCompleted) {
				t.Errorf("completed: %v", err)
			}
		}
		if _, err := b.RunAgain(t.Context(), everyone, "nobody"); !errors.Is(err, ErrNotFound) {
			t.Errorf("nobody: %v", err)
		}
	})
}

func TestRunAgainInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, servers := inMemory(t, Options{})
		r, err := l.Submit(t.Context(), Task{Function: "f", Mode: Tracked, Workload: []byte("w")})
		if err != nil {
			t.Fatal(err)
		}
		s := <-servers.submits
		s.created(at("H:1"))
		s.failed()
		again, err := l.RunAgain(t.Context(), everyone, r.ID)
		if err != nil || again.RetryOf != r.ID {
			t.Fatal(again, err)
		}
		if s := <-servers.submits; string(s.Workload) != "w" {
			t.Errorf("workload %q", s.Workload)
		}
		var bg Record
		done := make(chan struct{})
		go func() {
			defer close(done)
			bg, _ = l.Submit(t.Context(), Task{Function: "f", Workload: []byte("w")})
		}()
		(<-servers.submits).created(at("H:2"))
		<-done
		servers.say(gearman.JobStatus{})
		if r, err := l.Job(t.Context(), everyone, bg.ID, 0); err != nil || r.State != Unknown {
			t.Fatal(r, err)
		}
		if _, err := l.RunAgain(t.Context(), everyone, bg.ID); !errors.Is(err, ErrNoWorkload) {
			t.Errorf("background: %v", err)
		}
		if err := l.consistent(); err != nil {
			t.Error(err)
		}
	})
}

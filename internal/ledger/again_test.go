package ledger

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// judge plays one run of a job by our pool from its submit to the failure, and returns the submit's pause.
func (b *life) judge(n int, kind, message string, v event.Verdict) (pause time.Duration) {
	b.t.Helper()
	s, pause := b.within(2 * time.Hour)
	where := at(fmt.Sprint("H:", n))
	s.created(where)
	a := assign(s, where.Handle)
	b.before(a)
	b.judged(a, kind, message, v)
	return pause
}

func TestAFailureThatIsForGoodIsNotTriedAgain(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, Retry: Retry{Max: 3, Backoff: time.Second}})
		b.judge(1, "exit", "exit status 100", event.Verdict{Never: true, Retries: 5})
		if got := b.ends(r.ID, Failed); got.Attempt != 0 || got.Error.Message != "exit status 100" {
			t.Errorf("got %+v", got)
		}
		later(time.Hour)
		b.quiet()
	})
}

func TestAHandlerIsLeftAloneForAsLongAsItAsks(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, Retry: Retry{Max: 3, Backoff: time.Minute}})
		b.judge(1, "exception", "busy", event.Verdict{After: 20 * time.Minute})
		if pause := b.judge(2, "exception", "busy", event.Verdict{After: time.Second}); pause != 20*time.Minute {
			t.Errorf("tried again after %v", pause)
		}
		if pause := b.judge(3, "exception", "busy", event.Verdict{}); pause < 90*time.Second || pause > 150*time.Second {
			t.Errorf("tried again after %v, want what the policy says", pause)
		}
		b.ends(r.ID, Scheduled)
	})
}

func TestAJobWithoutAPolicyHasItsFunctions(t *testing.T) {
	for _, test := range []struct {
		own   Retry
		tries int
	}{
		{Retry{}, 2},
		{Retry{Max: 1, Backoff: time.Second}, 1},
		{Retry{Backoff: time.Second}, 0}, // never
	} {
		lives(t, Options{}, func(t *testing.T, b *life) {
			r := b.enter(Task{Mode: Tracked, Retry: test.own})
			for n := range test.tries + 1 {
				b.judge(n, "exit", "exit status 1", event.Verdict{Retries: 2, Backoff: time.Minute})
			}
			if got := b.ends(r.ID, Failed); got.Attempt != test.tries {
				t.Errorf("%+v: tried again %d times, want %d", test.own, got.Attempt, test.tries)
			}
			later(time.Hour)
			b.quiet()
		})
	}
}

// Whoever waits for a sync job, or gave a background job away, is told of its failure at once.
func TestOnlyTrackedJobsAreTriedAgain(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		a := assign(s, "H:1")
		b.before(a)
		b.judged(a, "exit", "killed", event.Verdict{After: time.Second, Retries: 3, Died: true, MaxDeaths: 3})
		if r := o.must(t); r.State != Failed || r.Error.Message != "killed" || r.Deaths != 0 {
			t.Errorf("got %+v", r)
		}
	})
}

func TestAPoisonousJobIsStoppedAndKept(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, Workload: []byte("poison"), Retry: Retry{Max: 50, Backoff: time.Second}})
		death := event.Verdict{Died: true, MaxDeaths: 3}
		b.judge(1, "exit", "killed by signal 9", death)
		b.judge(2, "exception", "it may fail in between", event.Verdict{MaxDeaths: 3})
		b.judge(3, "exit", "killed by signal 9", death)
		b.restart() // which does not forgive
		b.judge(4, "exit", "killed by signal 11: corrupt image", death)
		got := b.ends(r.ID, Failed)
		want := "stopped, because its handler died 3 times, the last time so: killed by signal 11: corrupt image"
		if got.Deaths != 3 || got.Error.Kind != "exit" || got.Error.Message != want {
			t.Errorf("got %+v, %+v", got, got.Error)
		}
		later(time.Hour)
		b.quiet()
		again, err := b.RunAgain(t.Context(), everyone, r.ID)
		if err != nil {
			t.Fatal(err)
		}
		s := b.next()
		if string(s.Workload) != "poison" || !strings.HasPrefix(s.Unique, again.ID) || again.RetryOf != r.ID || again.Deaths != 0 {
			t.Errorf("replayed as %+v, %+v", s.Task, again)
		}
		s.created(gearman.Job{Server: g1, Handle: "H:5", Generation: 1})
		s.completed("cured")
		b.ends(again.ID, Completed)
	})
}

func TestADeathIsAFailureLikeOthers(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		b.judge(1, "exit", "killed by signal 9", event.Verdict{Died: true, MaxDeaths: 3})
		if got := b.ends(r.ID, Failed); got.Deaths != 1 || got.Error.Message != "killed by signal 9" {
			t.Errorf("got %+v, %+v", got, got.Error)
		}
	})
}

package ledger

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// said records what a ledger tells its Meter.
type said struct{ all []any }

type (
	sayStart struct {
		Function string
		Queued   time.Duration
	}
	sayEnd struct {
		State     State
		Took, Ran time.Duration
	}
)

func (s *said) JobSubmitted(r *Record) { s.all = append(s.all, r.Mode) }
func (s *said) JobStarted(r *Record, queued time.Duration) {
	s.all = append(s.all, sayStart{r.Function, queued})
}

func (s *said) JobEnded(r *Record, took, ran time.Duration) {
	s.all = append(s.all, sayEnd{r.State, took, ran})
}

func TestTimesOfAJobThatOurPoolRuns(t *testing.T) {
	var m said
	bubble(t, Options{Meter: &m}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		a := assign(s, "H:1")
		time.Sleep(2 * time.Second)
		b.before(a)
		time.Sleep(3 * time.Second)
		b.after(a, "result")
		o.must(t)
		if diff := cmp.Diff([]any{Sync, sayStart{"f", 2 * time.Second}, sayEnd{Completed, 5 * time.Second, 3 * time.Second}}, m.all); diff != "" {
			t.Error(diff)
		}
		if got := b.Stats(); got.Sync != 0 || got.Records != 1 || got.MaxSync != 50_000 || got.ResultBytes != 6 {
			t.Errorf("stats: %+v", got)
		}
	})
}

func TestOfAnothersWorkerOnlyTheWholeTimeIsKnown(t *testing.T) {
	var m said
	bubble(t, Options{Meter: &m}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		time.Sleep(5 * time.Second)
		s.completed("result")
		o.must(t)
		if diff := cmp.Diff([]any{Sync, sayEnd{Completed, 5 * time.Second, 0}}, m.all); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAJobThatIsTriedAgainIsSubmittedOnceAndTakesAllTheTime(t *testing.T) {
	var m said
	lives(t, Options{Meter: &m}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, Retry: Retry{Max: 1, Backoff: time.Minute}})
		for i := range 2 {
			s, _ := b.within(time.Hour)
			s.created(at(fmt.Sprint("H:", i)))
			s.data("a part") // it runs
			later(time.Second)
			s.failed()
		}
		b.ends(r.ID, Failed)
		if len(m.all) != 3 || m.all[0] != Tracked || m.all[1] != (sayStart{"f", 0}) {
			t.Fatalf("got %v", m.all)
		}
		if end := m.all[2].(sayEnd); end.State != Failed || end.Ran != time.Second || end.Took < 40*time.Second || end.Took > 80*time.Second {
			t.Errorf("end: %+v", end)
		}
	})
}

func TestAScheduledJobIsNotQueuedBeforeItIsDue(t *testing.T) {
	var m said
	lives(t, Options{Meter: &m}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, RunAt: time.Now().Add(time.Hour)})
		s, _ := b.within(2 * time.Hour)
		s.created(at("H:1"))
		later(time.Second)
		s.data("a part")
		later(time.Second)
		s.completed("")
		b.ends(r.ID, Completed)
		if diff := cmp.Diff([]any{Tracked, sayStart{"f", time.Second}, sayEnd{Completed, 2 * time.Second, time.Second}}, m.all); diff != "" {
			t.Error(diff)
		}
	})
}

package ledger

import (
	"errors"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// kept reports whether the ledger still has a job.
func (b *lab) kept(id string) bool {
	_, err := b.Job(b.t.Context(), everyone, id, 0)
	return err == nil
}

func TestASyncJobThatATaskWithAKeyJoinedIsKept(t *testing.T) {
	bubble(t, Options{MaxReplied: 1}, func(t *testing.T, b *lab) {
		s, first := b.begin(t.Context(), Task{Function: "f", Unique: "u", Workload: []byte("w"), Mode: Sync, Wait: time.Minute})
		s.created(at("H:1"))
		task := keyed(Sync, "a")
		task.Unique = "u"
		joined := b.call(func() (Record, error) { return b.Submit(t.Context(), task) })
		s.completed("result")
		id := first.must(t).ID
		if r := joined.must(t); r.ID != id {
			t.Fatalf("it has not joined: %+v", r)
		}
		b.finish("H:2", "")
		b.finish("H:3", "")
		again, err := b.Submit(t.Context(), task)
		if err != nil || again.ID != id || !again.Replayed || string(again.Result) != "result" {
			t.Errorf("%+v, %v", again, err)
		}
	})
}

// Whoever was told that a job goes on comes back for its result, and may do so while it ends.
func TestASyncJobWhoseCallerWasAnsweredEarlyIsKept(t *testing.T) {
	bubble(t, Options{MaxReplied: 1}, func(t *testing.T, b *lab) {
		for name, comesBack := range map[string]func(id string) func() bool{
			"not yet": func(string) func() bool { return func() bool { return true } },
			"to wait": func(id string) func() bool {
				return b.call(func() (Record, error) { return b.Job(t.Context(), everyone, id, time.Minute) }).returned
			},
			"to follow": func(id string) func() bool { return follow(t.Context(), b.plain, id, 0).ended },
		} {
			s, o := b.sync("H:1")
			time.Sleep(time.Minute)
			id := o.must(t).ID
			ended := comesBack(id)
			s.completed("result")
			if !ended() {
				t.Errorf("%s: still waits", name)
			}
			b.finish("H:2", "")
			b.finish("H:3", "")
			if !b.kept(id) {
				t.Errorf("%s: it was forgotten", name)
			}
		}
	})
}

// So does a caller who was told that nobody knows whether a job server has the job.
func TestASyncJobWhoseSubmitWasNotAnsweredIsKept(t *testing.T) {
	bubble(t, Options{MaxReplied: 1}, func(t *testing.T, b *lab) {
		s, o := b.begin(t.Context(), Task{Function: "f", Mode: Sync, Wait: time.Minute})
		time.Sleep(time.Minute)
		r, err := o.get()
		if !errors.Is(err, gearman.ErrOutcomeUnknown) {
			t.Fatal(err)
		}
		waits := b.call(func() (Record, error) { return b.Job(t.Context(), everyone, r.ID, time.Minute) })
		s.tell(gearman.Update{Kind: gearman.Created, Job: at("H:1")})
		s.completed("result")
		if got := waits.must(t); got.State != Completed {
			t.Errorf("%+v", got)
		}
		b.finish("H:2", "")
		b.finish("H:3", "")
		if !b.kept(r.ID) {
			t.Error("it was forgotten")
		}
	})
}

// A callback is told where a large result is.
func TestASyncJobWithACallbackIsKept(t *testing.T) {
	bubble(t, Options{MaxReplied: 1}, func(t *testing.T, b *lab) {
		s, o := b.begin(t.Context(), Task{Function: "f", Mode: Sync, Wait: time.Minute, Callback: &event.Callback{URL: "https://app.example/hook"}})
		s.created(at("H:1"))
		s.completed("result")
		id := o.must(t).ID
		b.finish("H:2", "")
		b.finish("H:3", "")
		if !b.kept(id) {
			t.Error("it was forgotten")
		}
	})
}

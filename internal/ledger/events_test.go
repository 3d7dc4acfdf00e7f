package ledger

import (
	"errors"
	"testing"
	"time"

	"gearman-gateway/internal/event"
)

// The seq of a job's events goes on where it was when the gateway ended, so that it is never told twice.
func TestEventsAreCountedOnAfterARestart(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, RunAt: time.Now().Add(time.Hour)})
		b.restart()
		got, err := b.Cancel(t.Context(), everyone, r.ID)
		if err != nil || got.EventSeq != 2 {
			t.Errorf("%v; the cancel is event %d, want 2", err, got.EventSeq)
		}
	})
}

// What a caller wants to hear goes with the events themselves, and what must not be lost is marked.
func TestEventsSayWhoWantsThem(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		callback := &event.Callback{URL: "https://example.com/", Events: event.Patterns{"job.completed"}}
		s, o := b.begin(t.Context(), Task{Function: "f", Mode: Sync, Wait: time.Hour, Callback: callback, Traceparent: "00-trace"})
		s.created(at("H:1"))
		s.completed("r")
		r := o.must(t)
		for _, e := range b.store.of(t, r.ID) {
			want := ""
			if e.Type == event.JobCompleted {
				want = callback.URL
			}
			if e.Callback != want || e.Traceparent != "00-trace" || e.Promised {
				t.Errorf("%s: callback %q, want %q; traceparent %q; promised %v", e.Type, e.Callback, want, e.Traceparent, e.Promised)
			}
		}
	})
}

// Once there is no room for more events, jobs that would promise theirs are refused, and others are not.
func TestNoRoomForEventsRefusesTheJobsThatPromiseThem(t *testing.T) {
	bubble(t, Options{EventsFull: func() bool { return true }}, func(t *testing.T, b *lab) {
		for _, task := range []Task{
			{Function: "f", Mode: Tracked},
			{Function: "f", Mode: Background, RunAt: time.Now().Add(time.Hour)},
		} {
			if _, err := b.Submit(t.Context(), task); !errors.Is(err, ErrEventsFull) {
				t.Errorf("%s at %v: %v, want ErrEventsFull", task.Mode, task.RunAt, err)
			}
		}
		b.background("u", "H:1")
		if n := len(b.store.events); n != 1 {
			t.Errorf("%d events, want the one of the background job", n)
		}
	})
}

package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

// One that dies gives way to the next, and stands in front of it again when it is requeued, even while that is being tried.
func TestRequeue(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	register(t, d, "a")
	var ids []string
	for seq := range 3 {
		e := happened("s", seq)
		ids = append(ids, e.ID)
		d.Publish(e)
	}
	advance(t, d, "a", webhook.Step{Look: 100})
	end := func(n int64, state webhook.DeliveryState) {
		t.Helper()
		advance(t, d, "a", webhook.Step{Ends: []webhook.Ended{{N: n, Subject: "s", State: state, Attempts: 3, Due: d.o.Now().Add(time.Hour)}}})
		lined(t, d)
	}
	line := func(want ...int64) {
		t.Helper()
		diff(t, numbers(due(t, d, "a", webhook.DueQuery{}).Lines[0]), want)
	}
	line(1, 2, 3)
	if err := d.Requeue(t.Context(), "a", ids[0]); !errors.Is(err, webhook.ErrPending) {
		t.Errorf("got %v, want ErrPending", err)
	}
	end(1, webhook.Dead)
	end(2, webhook.Delivered)
	line(3)
	for _, id := range []string{ids[1], ids[0]} { // in front of 3, and then in front of 2
		if err := d.Requeue(t.Context(), "a", id); err != nil {
			t.Error(err)
		}
		lined(t, d)
	}
	line(1, 2, 3)
	end(3, webhook.Pending) // was on its way
	line(1, 2, 3)
	end(3, webhook.Delivered)
	end(3, webhook.Dead) // is not pending any more
	end(99, webhook.Dead)
	line(1, 2)
	first, err := d.Delivery(t.Context(), "a", ids[0])
	if err != nil || first.Attempts != 0 || first.State != webhook.Pending {
		t.Errorf("%+v, %v, want it pending without attempts", first, err)
	}
	for _, key := range [][2]string{{"a", "evt_none"}, {"b", ids[0]}} {
		if err := d.Requeue(t.Context(), key[0], key[1]); !errors.Is(err, webhook.ErrNoDelivery) {
			t.Errorf("got %v, want ErrNoDelivery", err)
		}
	}
}

func TestReplayTakesTheDeadOfATime(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	register(t, d, "a")
	const events = 2*piece + 100
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	var ends []webhook.Ended
	for i := range events {
		subject := fmt.Sprint("s", i%10)
		d.Publish(event.New(event.JobFailed, subject, uint64(i), at.Add(time.Duration(i)*time.Second), event.Data{}))
		ends = append(ends, webhook.Ended{N: int64(i + 1), Subject: subject, State: webhook.Dead, Attempts: 9})
	}
	advance(t, d, "a", webhook.Step{Look: events})
	advance(t, d, "a", webhook.Step{Ends: ends})
	want := func(b webhook.Backlog) {
		t.Helper()
		got, err := d.Backlog(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		diff(t, got, b)
	}
	want(webhook.Backlog{Dead: events})
	for _, test := range []struct {
		since, until time.Time
		want         int
	}{
		{at.Add(10 * time.Second), at.Add(20 * time.Second), 10},
		{time.Time{}, at.Add(20 * time.Second), 10},
		{at.Add(20 * time.Second), time.Time{}, events - 20},
		{time.Time{}, time.Time{}, 0},
	} {
		if got, err := d.Replay(t.Context(), "a", test.since, test.until); err != nil || got != test.want {
			t.Errorf("replayed %d, %v, want %d", got, err, test.want)
		}
		lined(t, d)
	}
	want(webhook.Backlog{Pending: events, Oldest: at})
	if _, err := d.Replay(t.Context(), "b", time.Time{}, time.Time{}); !errors.Is(err, webhook.ErrNoSink) {
		t.Errorf("got %v, want ErrNoSink", err)
	}
	if err := d.Hasten(t.Context(), "b"); !errors.Is(err, webhook.ErrNoSink) {
		t.Errorf("got %v, want ErrNoSink", err)
	}
}

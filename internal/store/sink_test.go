package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

func all(webhook.Head) bool { return true }

// register makes a sink known.
func register(t testing.TB, d *DB, sink string) webhook.Standing {
	t.Helper()
	s, err := d.Register(t.Context(), sink)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func advance(t testing.TB, d *DB, sink string, s webhook.Step) int {
	t.Helper()
	if s.Wants == nil {
		s.Wants = all
	}
	a, err := d.Advance(t.Context(), sink, s)
	if err != nil {
		t.Fatal(err)
	}
	return a.Looked
}

func due(t testing.TB, d *DB, sink string, q webhook.DueQuery) webhook.Ready {
	t.Helper()
	if q.Now.IsZero() {
		q.Now = d.o.Now()
	}
	if q.Lines == 0 {
		q.Lines = 100
	}
	if q.Letters == 0 {
		q.Letters = 100
	}
	r, err := d.Due(t.Context(), sink, q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// deliver takes steps of a sink until it has had all events, and returns what it had, by subject.
func deliver(t testing.TB, d *DB, sink string) map[string][]int64 {
	t.Helper()
	had := map[string][]int64{}
	var ends []webhook.Ended
	for {
		looked := advance(t, d, sink, webhook.Step{Ends: ends, Look: 500})
		ready := due(t, d, sink, webhook.DueQuery{Lines: 200, Letters: 3})
		if looked == 0 && len(ready.Lines) == 0 {
			return had
		}
		ends = nil
		for _, line := range ready.Lines {
			for _, l := range line.Letters {
				had[line.Subject] = append(had[line.Subject], l.N)
				ends = append(ends, webhook.Ended{N: l.N, Subject: line.Subject, State: webhook.Delivered, Attempts: 1})
			}
		}
	}
}

// lined fails the test unless of the pending deliveries of each sink with each subject the first is due, and no other.
func lined(t testing.TB, d *DB) {
	t.Helper()
	var wrong int
	err := d.read.QueryRow(`SELECT count(*) FROM deliveries d WHERE (due IS NOT NULL) <> (state = 'pending' AND n =
		(SELECT min(n) FROM deliveries e WHERE e.sink = d.sink AND e.subject = d.subject AND e.state = 'pending'))`).Scan(&wrong)
	if err != nil || wrong != 0 {
		t.Fatalf("%d deliveries are due that should not be, or the other way round, %v", wrong, err)
	}
}

func numbers(line webhook.Line) (ns []int64) {
	for _, l := range line.Letters {
		ns = append(ns, l.N)
	}
	return ns
}

func TestASinkBeginsAtTheEndAndStaysWhereItWas(t *testing.T) {
	dir := t.TempDir()
	d := open(t, Options{Dir: dir})
	d.Publish(happened("s", 1))
	register(t, d, "a")
	d.Publish(happened("s", 2), happened("s", 3), happened("s", 4))
	if got := advance(t, d, "a", webhook.Step{Look: 2}); got != 2 {
		t.Errorf("looked at %d, want 2", got)
	}
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	want := webhook.Standing{Paused: true, Disabled: "410", FailingSince: at, LastError: "e", LastErrorAt: at.Add(1e9), LastSuccess: at.Add(2e9)}
	advance(t, d, "a", webhook.Step{Standing: &want})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	d = open(t, Options{Dir: dir})
	diff(t, register(t, d, "a"), want)
	diff(t, register(t, d, "b"), webhook.Standing{})
	diff(t, deliver(t, d, "a"), map[string][]int64{"s": {2, 3, 4}})
	diff(t, deliver(t, d, "b"), map[string][]int64{})
	if _, err := d.Advance(t.Context(), "c", webhook.Step{}); !errors.Is(err, webhook.ErrNoSink) {
		t.Errorf("got %v, want ErrNoSink", err)
	}
	if _, err := d.Due(t.Context(), "c", webhook.DueQuery{Lines: 1, Letters: 1}); !errors.Is(err, webhook.ErrNoSink) {
		t.Errorf("got %v, want ErrNoSink", err)
	}
}

func TestALetterHasAllOfIt(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir(), Source: "/here"})
	register(t, d, "a")
	e := event.New(event.JobCompleted, "s", 7, time.Now(), event.Data{Function: "f", Result: []byte("{}")})
	e.Callback, e.Traceparent = "https://h/", "00-1"
	d.Publish(e)
	var heads []webhook.Head
	advance(t, d, "a", webhook.Step{Look: 9, Wants: func(h webhook.Head) bool { heads = append(heads, h); return true }})
	diff(t, heads, []webhook.Head{webhook.HeadOf(&e)})
	at := time.Date(2027, 1, 1, 0, 0, 0, 1000, time.UTC)
	log := []webhook.Attempt{{At: at, Duration: 5, Status: 500, Error: "no", Answer: []byte{0, 255}}, {At: at.Add(time.Hour), Error: "again"}}
	advance(t, d, "a", webhook.Step{Ends: []webhook.Ended{{N: 1, Subject: "s", State: webhook.Pending, Due: at, Attempts: 2, Log: log}}})
	want := webhook.Ready{Lines: []webhook.Line{{Subject: "s", Letters: []webhook.Letter{{
		N: 1, EventID: e.ID, Type: e.Type, Body: webhook.Encode("/here", e), Callback: e.Callback, Traceparent: e.Traceparent,
		Attempts: 2, Log: log,
	}}}}}
	diff(t, due(t, d, "a", webhook.DueQuery{Now: at}), want)
	got, err := d.Delivery(t.Context(), "a", e.ID)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, got, webhook.Delivery{
		N: 1, Sink: "a", EventID: e.ID, Type: e.Type, Subject: "s", Time: e.Time.Truncate(time.Microsecond).UTC(), State: webhook.Pending,
		Attempts: 2, Due: at, Log: log,
	})
	for _, key := range [][2]string{{"b", e.ID}, {"a", "evt_none"}} {
		if _, err := d.Delivery(t.Context(), key[0], key[1]); !errors.Is(err, webhook.ErrNoDelivery) {
			t.Errorf("%v: got %v, want ErrNoDelivery", key, err)
		}
	}
}

func TestLinesComeInTheOrderInWhichTheyAreDue(t *testing.T) {
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	now := newClock(at)
	d := open(t, Options{Dir: t.TempDir(), Now: now.get})
	register(t, d, "a")
	for i := range 4 {
		d.Publish(happened(fmt.Sprint("s", i), 1), happened(fmt.Sprint("s", i), 2)) // s0: 1 and 2, s1: 3 and 4 …
	}
	advance(t, d, "a", webhook.Step{Look: 100})
	var ends []webhook.Ended
	for i, wait := range []time.Duration{3, 1, 2, 5} {
		ends = append(ends, webhook.Ended{N: int64(2*i + 1), Subject: fmt.Sprint("s", i), State: webhook.Pending, Due: at.Add(wait * time.Hour), Attempts: 1})
	}
	advance(t, d, "a", webhook.Step{Ends: ends})
	hour := func(n int) time.Time { return at.Add(time.Duration(n) * time.Hour) }
	skip := func(subjects ...string) func(string) bool {
		return func(s string) bool { return slices.Contains(subjects, s) }
	}
	for _, test := range []struct {
		q    webhook.DueQuery
		want []string
		next time.Time
	}{
		{webhook.DueQuery{Now: hour(0)}, nil, hour(1)},
		{webhook.DueQuery{Now: hour(2)}, []string{"s1", "s2"}, hour(3)},
		{webhook.DueQuery{Now: hour(2), Lines: 1}, []string{"s1"}, hour(2)},
		{webhook.DueQuery{Now: hour(2), Skip: skip("s1")}, []string{"s2"}, hour(3)},
		{webhook.DueQuery{Now: hour(9), Skip: skip("s0", "s1", "s2", "s3")}, nil, time.Time{}},
		{webhook.DueQuery{Now: hour(9)}, []string{"s1", "s2", "s0", "s3"}, time.Time{}},
		{webhook.DueQuery{Now: hour(0), Early: true, Lines: 1}, []string{"s1"}, hour(2)},
		{webhook.DueQuery{Now: hour(0), Early: true, Lines: 1, Skip: skip("s1")}, []string{"s2"}, hour(3)},
		{webhook.DueQuery{Now: hour(1), Early: true}, []string{"s1"}, hour(2)},
	} {
		got := due(t, d, "a", test.q)
		var subjects []string
		for _, l := range got.Lines {
			subjects = append(subjects, l.Subject)
		}
		if !slices.Equal(subjects, test.want) || !got.Next.Equal(test.next) {
			t.Errorf("%+v: got %v, next %v, want %v, %v", test.q, subjects, got.Next, test.want, test.next)
		}
	}
	diff(t, numbers(due(t, d, "a", webhook.DueQuery{Now: hour(1)}).Lines[0]), []int64{3, 4})
	diff(t, numbers(due(t, d, "a", webhook.DueQuery{Now: hour(1), Letters: 1}).Lines[0]), []int64{3})

	if err := d.Hasten(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if got := due(t, d, "a", webhook.DueQuery{Now: at}); len(got.Lines) != 4 {
		t.Errorf("%d lines are due, want 4", len(got.Lines))
	}
	lined(t, d)
}

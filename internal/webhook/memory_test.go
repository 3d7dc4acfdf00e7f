package webhook_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
	"gearman-gateway/internal/webhook/outboxtest"
)

func TestMemoryIsAnOutbox(t *testing.T) {
	outboxtest.Test(t, func(_ *testing.T, wanted func(webhook.Head) bool) webhook.Outbox {
		return webhook.NewMemory(webhook.MemoryOptions{Wanted: wanted})
	})
}

func everything(webhook.Head) bool { return true }

// some returns n events of as many subjects.
func some(n int) []event.Event {
	var events []event.Event
	for i := range n {
		events = append(events, event.New(event.JobStarted, fmt.Sprint("j", i), 1, time.Now(), event.Data{}))
	}
	return events
}

func promised(n int) []event.Event {
	events := some(n)
	for i := range events {
		events[i].Promised = true
	}
	return events
}

func advance(t testing.TB, m *webhook.Memory, sink string, s webhook.Step) {
	t.Helper()
	if _, err := m.Advance(t.Context(), sink, s); err != nil {
		t.Fatal(err)
	}
}

func register(t testing.TB, m *webhook.Memory, sinks ...string) {
	t.Helper()
	for _, sink := range sinks {
		if _, err := m.Register(t.Context(), sink); err != nil {
			t.Fatal(err)
		}
	}
}

// deliver delivers what is pending, at most so many lines of one letter.
func deliver(t testing.TB, m *webhook.Memory, sink string, lines int) {
	t.Helper()
	advance(t, m, sink, webhook.Step{Look: 1_000, Wants: everything})
	r, err := m.Due(t.Context(), sink, webhook.DueQuery{Now: time.Now(), Lines: lines, Letters: 1})
	if err != nil {
		t.Fatal(err)
	}
	var ends []webhook.Ended
	for _, l := range r.Lines {
		ends = append(ends, webhook.Ended{
			N: l.Letters[0].N, Subject: l.Subject, State: webhook.Delivered, Attempts: 1, Log: []webhook.Attempt{{Status: 200}},
		})
	}
	advance(t, m, sink, webhook.Step{Ends: ends})
}

func TestMemoryEventsExpire(t *testing.T) {
	m := webhook.NewMemory(webhook.MemoryOptions{MaxEvents: 3})
	events := some(7)
	m.Publish(events...)
	for after, want := range []error{nil, 1: webhook.ErrEventsExpired, 3: webhook.ErrEventsExpired, 4: nil, 5: nil, 7: nil} {
		if after == 2 || after == 6 {
			continue
		}
		if _, err := m.Events(t.Context(), webhook.EventQuery{After: int64(after), Limit: 10}); !errors.Is(err, want) {
			t.Errorf("got %v after %d, want %v", err, after, want)
		}
	}
	if _, err := m.Events(t.Context(), webhook.EventQuery{AfterID: events[3].ID, Limit: 10}); !errors.Is(err, webhook.ErrNoEvent) {
		t.Errorf("got %v after an event that was given up, want %v", err, webhook.ErrNoEvent)
	}
	wantKept(t, m, 5, 7)
}

func TestMemoryLooksAtSoManyEventsForAPage(t *testing.T) {
	m := webhook.NewMemory(webhook.MemoryOptions{})
	m.Publish(some(5_001)...)
	page, err := m.Events(t.Context(), webhook.EventQuery{Subject: "j5000", Limit: 1})
	if err != nil || len(page.Bodies) != 0 || page.Next != 5_000 || page.End {
		t.Fatalf("got %d events up to %d, end %v, %v; want none up to 5000, and no end", len(page.Bodies), page.Next, page.End, err)
	}
	page, err = m.Events(t.Context(), webhook.EventQuery{Subject: "j5000", After: page.Next, Limit: 1})
	if err != nil || len(page.Bodies) != 1 || !page.End {
		t.Fatalf("got %d events, end %v, %v; want one, and the end", len(page.Bodies), page.End, err)
	}
}

func TestMemoryKeepsTheLastAttempts(t *testing.T) {
	m := webhook.NewMemory(webhook.MemoryOptions{})
	register(t, m, "audit")
	e := some(1)[0]
	m.Publish(e)
	log := make([]webhook.Attempt, 25)
	log[24].Status = 200
	end := webhook.Ended{N: 1, Subject: e.Subject, State: webhook.Delivered, Attempts: 25, Log: log}
	advance(t, m, "audit", webhook.Step{Look: 1, Wants: everything})
	advance(t, m, "audit", webhook.Step{Ends: []webhook.Ended{end}})
	d, err := m.Delivery(t.Context(), "audit", e.ID)
	if err != nil || len(d.Log) != 20 || d.Log[19].Status != 200 || d.Attempts != 25 {
		t.Errorf("got %+v and %v, want the last 20 of 25 attempts", d, err)
	}
}

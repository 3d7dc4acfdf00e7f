package webhook_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

// wantKept fails unless the log is of these numbers.
func wantKept(t *testing.T, m *webhook.Memory, first, last int64) {
	t.Helper()
	page, err := m.Events(t.Context(), webhook.EventQuery{Limit: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	if got := page.Next - int64(len(page.Bodies)) + 1; got != first || page.Next != last {
		t.Fatalf("got events %d to %d, want %d to %d", got, page.Next, first, last)
	}
}

func TestMemoryKeepsTheNewestSettledEvents(t *testing.T) {
	m := webhook.NewMemory(webhook.MemoryOptions{MaxEvents: 5})
	m.Publish(some(3)...)
	wantKept(t, m, 1, 3)
	m.Publish(some(5)...) // no sink is registered
	wantKept(t, m, 4, 8)
	register(t, m, "audit")
	deliver(t, m, "audit", 10)
	m.Publish(some(2)...)
	wantKept(t, m, 6, 10)
	deliver(t, m, "audit", 10)
	if m.Full() {
		t.Error("it is full of settled events")
	}
	wantKept(t, m, 6, 10) // they stay until their room is needed
	m.Publish(some(4)...)
	wantKept(t, m, 10, 14)
	if m.Dropped() != 0 {
		t.Errorf("dropped %d, want none", m.Dropped())
	}
}

func TestMemoryIsBoundedByBytes(t *testing.T) {
	m := webhook.NewMemory(webhook.MemoryOptions{MaxBytes: 10_000})
	e := some(1)[0]
	e.Type, e.Data.Result = event.JobCompleted, make([]byte, 2_000-1<<10)
	for range 7 {
		m.Publish(e)
	}
	wantKept(t, m, 3, 7)
	e.Data.Result = make([]byte, 1<<20) // that is too large to be sent, so that it counts 1 KiB
	m.Publish(e)
	wantKept(t, m, 4, 8)
}

func TestMemoryDropsWhenUnsettledEventsFillIt(t *testing.T) {
	m := webhook.NewMemory(webhook.MemoryOptions{MaxEvents: 5})
	register(t, m, "fast", "slow")
	m.Publish(some(4)...)
	deliver(t, m, "fast", 10)
	if m.Full() {
		t.Error("full with 4 of 5")
	}
	m.Publish(some(3)...)
	if !m.Full() || m.Dropped() != 2 {
		t.Errorf("got full %v and %d dropped, want true and 2", m.Full(), m.Dropped())
	}
	m.Publish(promised(3)...)
	wantKept(t, m, 1, 8)
	deliver(t, m, "slow", 2) // the oldest two go at once: there are too many
	wantKept(t, m, 3, 8)
	if !m.Full() {
		t.Error("not full with 6 of 5")
	}
	deliver(t, m, "slow", 2)
	wantKept(t, m, 4, 8)
	if m.Full() {
		t.Error("full although 4 is settled")
	}
	deliver(t, m, "fast", 10)
	m.Publish(some(1)...)
	wantKept(t, m, 5, 9)
	m.Publish(some(1)...)
	if !m.Full() || m.Dropped() != 3 {
		t.Errorf("got full %v and %d dropped, want true and 3", m.Full(), m.Dropped())
	}
}

func TestMemoryGivesUpWhatADisabledSinkWaitsFor(t *testing.T) {
	m := webhook.NewMemory(webhook.MemoryOptions{MaxEvents: 4})
	register(t, m, "audit", "gone")
	events := some(4)
	m.Publish(events...)
	deliver(t, m, "audit", 10)
	advance(t, m, "gone", webhook.Step{Look: 3, Wants: everything})
	if !m.Full() {
		t.Error("not full although a sink has had nothing")
	}
	advance(t, m, "gone", webhook.Step{Standing: &webhook.Standing{Disabled: "410 Gone"}})
	if m.Full() {
		t.Error("full of what only a disabled sink waits for")
	}
	m.Publish(some(2)...)
	wantKept(t, m, 3, 6)
	if _, err := m.Delivery(t.Context(), "gone", events[0].ID); !errors.Is(err, webhook.ErrNoDelivery) {
		t.Errorf("got %v for a delivery of what was given up", err)
	}
	if b, _ := m.Backlog(t.Context(), "gone"); b.Pending != 1 || b.Behind != 3 || !b.Oldest.Equal(events[2].Time) {
		t.Errorf("got backlog %+v, want 1 pending and 3 behind, the oldest of %v", b, events[2].Time)
	}
	r, err := m.Due(t.Context(), "gone", webhook.DueQuery{Now: time.Now(), Lines: 10, Letters: 10})
	if err != nil || len(r.Lines) != 1 || r.Lines[0].Letters[0].N != 3 {
		t.Errorf("got %+v and %v, want event 3", r.Lines, err)
	}
	deliver(t, m, "audit", 10)
	m.Publish(some(3)...) // 7 to 9: beyond what the sink has looked at
	advance(t, m, "gone", webhook.Step{Standing: &webhook.Standing{}})
	deliver(t, m, "audit", 10)
	if !m.Full() {
		t.Error("not full although a sink that is enabled again waits for all of it")
	}
	deliver(t, m, "gone", 10)
	deliver(t, m, "gone", 10) // two of them share a subject
	wantKept(t, m, 6, 9)
	found, err := m.Deliveries(t.Context(), webhook.DeliveryQuery{Sink: "gone", State: webhook.Delivered, Limit: 10})
	if err != nil || len(found) != 4 || found[3].N != 6 {
		t.Errorf("got %+v and %v, want those that are left, 9 to 6", found, err)
	}
}

func TestMemoryGivesUpWhatAnUnregisteredSinkWaitsFor(t *testing.T) {
	m := webhook.NewMemory(webhook.MemoryOptions{MaxEvents: 4})
	register(t, m, "audit", "gone")
	m.Publish(some(4)...)
	deliver(t, m, "audit", 10)
	advance(t, m, "gone", webhook.Step{Look: 3, Wants: everything})
	if err := m.Unregister(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if m.Full() {
		t.Error("full of what only an unregistered sink waits for")
	}
	m.Publish(some(2)...)
	wantKept(t, m, 3, 6)
	deliver(t, m, "audit", 10)
	register(t, m, "gone")
	if !m.Full() {
		t.Error("not full although a sink that has come back waits for all of it")
	}
	r, err := m.Due(t.Context(), "gone", webhook.DueQuery{Now: time.Now(), Lines: 10, Letters: 10})
	if err != nil || len(r.Lines) != 1 || r.Lines[0].Letters[0].N != 3 {
		t.Errorf("got %+v and %v, want event 3", r.Lines, err)
	}
	deliver(t, m, "gone", 10)
	m.Publish(some(1)...)
	wantKept(t, m, 4, 7)
}

func TestMemoryKeepsWhatIsRequeued(t *testing.T) {
	m := webhook.NewMemory(webhook.MemoryOptions{MaxEvents: 3})
	register(t, m, "audit")
	events := some(3)
	m.Publish(events...)
	deliver(t, m, "audit", 10)
	m.Publish(some(1)...)
	if err := m.Requeue(t.Context(), "audit", events[0].ID); !errors.Is(err, webhook.ErrNoDelivery) {
		t.Errorf("got %v for what was given up", err)
	}
	if err := m.Requeue(t.Context(), "audit", events[1].ID); err != nil {
		t.Fatal(err)
	}
	if m.Full() {
		t.Error("full although all but the oldest are settled")
	}
	m.Publish(some(1)...)
	wantKept(t, m, 4, 5)
	if d, err := m.Delivery(t.Context(), "audit", events[1].ID); err != nil || d.State != webhook.Pending {
		t.Errorf("got %+v and %v for what is left", d, err)
	}
	deliver(t, m, "audit", 10)
	if _, err := m.Delivery(t.Context(), "audit", events[1].ID); !errors.Is(err, webhook.ErrNoDelivery) {
		t.Errorf("got %v for what was left and is delivered", err)
	}
	deliver(t, m, "audit", 10) // two of them share a subject
	m.Publish(some(3)...)
	wantKept(t, m, 6, 8)
}

// What waits stays in the feed unless something settled behind it has to go.
func TestMemoryThatIsFullShowsWhatItHas(t *testing.T) {
	m := webhook.NewMemory(webhook.MemoryOptions{MaxEvents: 5})
	register(t, m, "a")
	m.Publish(promised(5)...)
	advance(t, m, "a", webhook.Step{Look: 10, Wants: everything})
	if !m.Full() {
		t.Error("it is not full")
	}
	wantKept(t, m, 1, 5)
}

// A delivery that fails for days holds nothing back but its own event.
func TestMemoryGivesUpWhatIsSettledThoughAnOlderEventWaits(t *testing.T) {
	m := webhook.NewMemory(webhook.MemoryOptions{MaxEvents: 5})
	register(t, m, "audit", "gone")
	events := some(1)
	m.Publish(events...)
	advance(t, m, "audit", webhook.Step{Look: 1, Wants: everything}) // it stays pending
	for last := int64(4); last <= 31; last += 3 {
		later := some(3)
		m.Publish(later...)
		advance(t, m, "audit", webhook.Step{Look: 10, Wants: everything})
		advance(t, m, "audit", webhook.Step{Ends: []webhook.Ended{
			{N: last, Subject: later[2].Subject, State: webhook.Delivered},
			{N: last - 1, Subject: later[1].Subject, State: webhook.Dead},
			{N: last - 2, Subject: later[0].Subject, State: webhook.Delivered},
		}})
		advance(t, m, "gone", webhook.Step{Look: 10, Wants: func(webhook.Head) bool { return false }})
		if m.Full() || m.Dropped() > 0 {
			t.Fatalf("it is full %v, and %d are dropped, with one that waits", m.Full(), m.Dropped())
		}
	}
	wantKept(t, m, 28, 31)
	r, err := m.Due(t.Context(), "audit", webhook.DueQuery{Now: time.Now(), Lines: 10, Letters: 10})
	if err != nil || len(r.Lines) != 1 || r.Lines[0].Letters[0].EventID != events[0].ID {
		t.Errorf("got %+v and %v, want the first event", r.Lines, err)
	}
	for _, q := range []webhook.EventQuery{{After: 1, Limit: 10}, {AfterID: events[0].ID, Limit: 10}} {
		if _, err := m.Events(t.Context(), q); err == nil {
			t.Errorf("%+v: there is a page, though events after it are gone", q)
		}
	}
	advance(t, m, "audit", webhook.Step{Standing: &webhook.Standing{Disabled: "410 Gone"}})
	if _, err := m.Delivery(t.Context(), "audit", events[0].ID); !errors.Is(err, webhook.ErrNoDelivery) {
		t.Errorf("got %v for what a disabled sink waited for", err)
	}
}

func TestMemoryLogsDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		m := webhook.NewMemory(webhook.MemoryOptions{MaxEvents: 1, Log: zerolog.New(&log)})
		register(t, m, "audit")
		m.Publish(some(3)...) // logged: 2
		for range 12 {
			m.Publish(some(1)...) // logged after 5 and 10 seconds: 6 and 5
			<-time.After(time.Second)
		}
		deliver(t, m, "audit", 1)
		m.Publish(some(1)...) // not dropped, but a moment ago one was
		<-time.After(5 * time.Second)
		deliver(t, m, "audit", 1) // over: the last 1
		<-time.After(time.Hour)
		m.Publish(some(2)...) // and once more: 1
		type line struct {
			Level, Message string
			Events         int
		}
		var lines []line
		for text := range strings.Lines(log.String()) {
			var l line
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, l)
		}
		full := "webhook outbox is full: events dropped"
		want := []line{
			{"error", full, 2}, {"error", full, 6}, {"error", full, 5}, {"info", "webhook outbox has room again", 1}, {"error", full, 1},
		}
		if !slices.Equal(lines, want) {
			t.Errorf("got %+v\nwant %+v", lines, want)
		}
		if m.Dropped() != 15 {
			t.Errorf("got %d dropped, want 15", m.Dropped())
		}
	})
}

// Every promised event is delivered although the outbox is far too small, whatever else goes on.
func TestMemoryUnderPressure(t *testing.T) {
	m := webhook.NewMemory(webhook.MemoryOptions{MaxEvents: 50})
	register(t, m, "audit")
	const each = 2_000
	var publishers, readers sync.WaitGroup
	for range 3 {
		publishers.Go(func() {
			for range each {
				m.Publish(promised(1)...)
				m.Publish(some(1)...)
				_ = m.Full()
			}
		})
	}
	done := make(chan struct{})
	readers.Go(func() {
		q := webhook.EventQuery{Limit: 100}
		for {
			grown := m.Grown()
			page, err := m.Events(t.Context(), q)
			q.After = page.Next // 0 after an error: from the oldest
			if err != nil && !errors.Is(err, webhook.ErrEventsExpired) {
				t.Error(err)
			}
			_, _ = m.Deliveries(t.Context(), webhook.DeliveryQuery{Limit: 20})
			_, _ = m.Replay(t.Context(), "audit", time.Time{}, time.Time{})
			_ = m.Hasten(t.Context(), "audit")
			select {
			case <-grown:
			case <-done:
				return
			}
		}
	})
	readers.Go(func() {
		for {
			deliver(t, m, "audit", 100)
			select {
			case <-done:
				return
			default:
			}
		}
	})
	publishers.Wait()
	close(done)
	readers.Wait()
	for b, _ := m.Backlog(t.Context(), "audit"); b.Behind+b.Pending > 0; b, _ = m.Backlog(t.Context(), "audit") {
		deliver(t, m, "audit", 1_000)
	}
	page, err := m.Events(t.Context(), webhook.EventQuery{Limit: 100})
	if err != nil || page.Next+int64(m.Dropped()) != 3*2*each || page.Next < 3*each {
		t.Errorf("got %d events, %d dropped and %v, want %d together and no promised one dropped", page.Next, m.Dropped(), err, 3*2*each)
	}
}

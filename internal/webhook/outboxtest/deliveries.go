package outboxtest

import (
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

// place is what identifies a delivery in a list.
type place struct {
	N     int64
	Sink  string
	State webhook.DeliveryState
}

func (b *bench) list(q webhook.DeliveryQuery) []place {
	b.Helper()
	found, err := b.outbox.Deliveries(b.Context(), q)
	b.must(err)
	var places []place
	for _, d := range found {
		places = append(places, place{d.N, d.Sink, d.State})
	}
	return places
}

func testDeliveries(b *bench) {
	b.register("b-sink")
	b.register("a-sink")
	b.same("of an empty outbox", b.list(webhook.DeliveryQuery{Limit: 9}), []place(nil))
	b.publish("x", "y", "x", "y")
	b.look("b-sink")
	b.step("a-sink", webhook.Step{Look: 3, Wants: all})
	b.end("b-sink", ended(1, "x", webhook.Delivered), ended(2, "y", webhook.Dead), ended(3, "x", webhook.Delivered))
	b.end("a-sink", ended(1, "x", webhook.Dead))
	all := []place{
		{4, "b-sink", webhook.Pending},
		{3, "a-sink", webhook.Pending},
		{3, "b-sink", webhook.Delivered},
		{2, "a-sink", webhook.Pending},
		{2, "b-sink", webhook.Dead},
		{1, "a-sink", webhook.Dead},
		{1, "b-sink", webhook.Delivered},
	}
	for _, sink := range []string{"", "a-sink", "b-sink", "c-sink"} {
		for _, state := range append([]webhook.DeliveryState{""}, webhook.DeliveryStates...) {
			for before := range int64(6) {
				var want []place
				for _, p := range all {
					if (sink == "" || p.Sink == sink) && (state == "" || p.State == state) && (before == 0 || p.N < before) {
						want = append(want, p)
					}
				}
				q := webhook.DeliveryQuery{Sink: sink, State: state, Before: before, Limit: 9}
				b.same("deliveries", b.list(q), want)
				q.Limit = 2
				b.same("the first two", b.list(q), want[:min(2, len(want))])
			}
		}
	}
}

// A page may end within an event.
func testDeliveriesPage(b *bench) {
	for _, sink := range []string{"c", "a", "b"} {
		b.register(sink)
	}
	b.publish("x", "y", "x")
	b.look("a", "b", "c")
	b.end("b", ended(2, "y", webhook.Dead), ended(1, "x", webhook.Dead))
	for _, q := range []webhook.DeliveryQuery{{}, {State: webhook.Pending}, {State: webhook.Dead}, {Sink: "b"}, {Sink: "c", State: webhook.Pending}} {
		q.Limit = 99
		want := b.list(q)
		for limit := 1; limit < 5; limit++ {
			q.Limit, q.Before, q.BeforeSink = limit, 0, ""
			var got []place
			for page := b.list(q); len(page) > 0; page = b.list(q) {
				got = append(got, page...)
				if len(page) > limit || len(got) > len(want) {
					b.Fatalf("got %v after %v, want at most %d and %v in all", page, q, limit, want)
				}
				last := page[len(page)-1]
				q.Before, q.BeforeSink = last.N, last.Sink
			}
			b.same("pages", got, want)
		}
	}
}

func testDelivery(b *bench) {
	b.register("audit")
	e := b.publish("a", "a")[0]
	_, err := b.outbox.Delivery(b.Context(), "audit", e.ID)
	b.wantError(err, webhook.ErrNoDelivery) // not yet
	before := time.Now().Truncate(time.Millisecond)
	b.step("audit", webhook.Step{Look: 1, Wants: all})
	got := b.delivery("audit", e.ID)
	if got.Due.Before(before) || got.Due.After(time.Now()) {
		b.Errorf("got due %v, want when it was made, %v", got.Due, before)
	}
	want := webhook.Delivery{
		N: 1, Sink: "audit", EventID: e.ID, Type: event.JobStarted, Subject: "a", Time: e.Time, State: webhook.Pending, Due: got.Due,
	}
	b.same("delivery", got, want)
	due := soon(time.Hour)
	b.end("audit", retry(1, "a", due))
	want.Due, want.Attempts, want.Log = due, 1, attempts(1)
	b.same("delivery", b.delivery("audit", e.ID), want)
	b.end("audit", webhook.Ended{N: 1, Subject: "a", State: webhook.Delivered, Attempts: 1, Log: attempts(2)})
	want.State, want.Due, want.Log = webhook.Delivered, time.Time{}, attempts(2)
	b.same("delivery", b.delivery("audit", e.ID), want)
	found, err := b.outbox.Deliveries(b.Context(), webhook.DeliveryQuery{Limit: 9})
	b.must(err)
	want.Log = nil
	b.same("deliveries", found, []webhook.Delivery{want})
	_, err = b.outbox.Delivery(b.Context(), "audit", "evt_of_nobody")
	b.wantError(err, webhook.ErrNoDelivery)
}

func testRequeue(b *bench) {
	events := b.started("audit", "a", "b", "c")
	b.wantError(b.outbox.Requeue(b.Context(), "audit", events[0].ID), webhook.ErrPending)
	b.wantError(b.outbox.Requeue(b.Context(), "audit", "evt_of_nobody"), webhook.ErrNoDelivery)
	b.end("audit", retry(1, "a", soon(time.Hour)), ended(2, "b", webhook.Delivered), ended(3, "c", webhook.Dead))
	b.wantError(b.outbox.Requeue(b.Context(), "audit", events[0].ID), webhook.ErrPending)
	b.wantDue("audit", "")
	for _, e := range events[1:] {
		b.must(b.outbox.Requeue(b.Context(), "audit", e.ID))
		b.wantError(b.outbox.Requeue(b.Context(), "audit", e.ID), webhook.ErrPending)
		d := b.delivery("audit", e.ID)
		if d.State != webhook.Pending || d.Attempts != 0 || d.Due.IsZero() || d.Due.After(time.Now()) {
			b.Errorf("got %s, due %v after %d attempts, want pending, now and 0", d.State, d.Due, d.Attempts)
		}
		b.same("log", d.Log, attempts(1)) // what was is still to be seen
	}
	r := b.wantLines("audit", webhook.DueQuery{}, "b:2 c:3")
	for _, l := range r.Lines {
		b.same("attempts", l.Letters[0].Attempts, 0)
		b.same("log", l.Letters[0].Log, attempts(1))
	}
	b.same("backlog", b.backlog("audit"), webhook.Backlog{Pending: 3, Oldest: noon})
	b.end("audit", ended(2, "b", webhook.Dead), ended(3, "c", webhook.Delivered))
	b.same("states", b.list(webhook.DeliveryQuery{Limit: 9}), []place{
		{3, "audit", webhook.Delivered}, {2, "audit", webhook.Dead}, {1, "audit", webhook.Pending},
	})
}

// The first of a subject by number is due, so that one that is requeued goes before those that wait, and due at once.
func testRequeueInFront(b *bench) {
	events := b.started("audit", "a", "a", "a", "a")
	b.end("audit", ended(1, "a", webhook.Dead), ended(2, "a", webhook.Delivered), retry(3, "a", soon(time.Hour)))
	b.wantDue("audit", "")
	b.must(b.outbox.Requeue(b.Context(), "audit", events[1].ID))
	b.wantDue("audit", "a:2,3,4")
	b.must(b.outbox.Requeue(b.Context(), "audit", events[0].ID))
	b.wantDue("audit", "a:1,2,3,4")
	for _, e := range events[1:] {
		b.same("due of one that waits", b.delivery("audit", e.ID).Due, time.Time{})
	}
	b.end("audit", ended(1, "a", webhook.Delivered))
	b.wantDue("audit", "a:2,3,4")
	b.end("audit", ended(2, "a", webhook.Delivered))
	b.wantDue("audit", "a:3,4") // it waited for another meanwhile, and is due when that has ended
	b.same("attempts", b.delivery("audit", events[2].ID).Attempts, 1)
	b.end("audit", ended(3, "a", webhook.Delivered), ended(4, "a", webhook.Delivered))
	b.wantDue("audit", "")
}

// An attempt may be under way while another is put in front.
func testRequeueInHand(b *bench) {
	events := b.started("audit", "a", "a", "a", "a")
	b.end("audit", ended(1, "a", webhook.Dead))
	b.wantDue("audit", "a:2,3,4")
	b.must(b.outbox.Requeue(b.Context(), "audit", events[0].ID))
	b.end("audit", ended(2, "a", webhook.Delivered), retry(3, "a", soon(time.Hour)))
	b.wantDue("audit", "a:1,3,4")
	b.same("due of one that waits", b.delivery("audit", events[2].ID).Due, time.Time{})
	b.same("attempts of one that waits", b.delivery("audit", events[2].ID).Attempts, 1)
	b.end("audit", ended(1, "a", webhook.Delivered))
	b.wantDue("audit", "a:3,4")
}

func (b *bench) replay(since, until time.Time) int {
	b.Helper()
	n, err := b.outbox.Replay(b.Context(), "audit", since, until)
	b.must(err)
	return n
}

func testReplay(b *bench) {
	b.register("other")
	b.started("audit", "a", "b", "a", "c", "d")
	b.look("other")
	b.end("other", ended(1, "a", webhook.Dead))
	die := func() {
		b.end("audit", ended(1, "a", webhook.Dead), ended(2, "b", webhook.Dead), ended(3, "a", webhook.Dead), ended(4, "c", webhook.Delivered))
	}
	die()
	b.wantDue("audit", "d:5")
	b.same("replayed", b.replay(noon.Add(time.Second), noon.Add(2*time.Second)), 1)
	b.wantDue("audit", "b:2 d:5")
	die()
	b.same("replayed", b.replay(noon.Add(time.Second), time.Time{}), 2)
	b.wantDue("audit", "a:3 b:2 d:5")
	die()
	b.same("replayed", b.replay(time.Time{}, noon.Add(2*time.Second)), 2)
	b.wantDue("audit", "a:1 b:2 d:5")
	b.same("replayed", b.replay(time.Time{}, time.Time{}), 1)
	r := b.wantLines("audit", webhook.DueQuery{}, "a:1,3 b:2 d:5")
	for _, l := range r.Lines {
		b.same("attempts", l.Letters[0].Attempts, 0)
	}
	b.same("replayed", b.replay(time.Time{}, time.Time{}), 0)
	b.same("the other's", b.backlog("other").Dead, int64(1))
}

func testHasten(b *bench) {
	b.register("other")
	events := b.started("audit", "a", "a", "b", "c")
	b.look("other")
	later, past := soon(time.Hour), soon(-time.Hour)
	for _, sink := range []string{"audit", "other"} {
		b.end(sink, retry(1, "a", later), retry(3, "b", later), retry(4, "c", past))
		b.wantDue(sink, "c:4")
	}
	b.must(b.outbox.Hasten(b.Context(), "audit"))
	r := b.wantLines("audit", webhook.DueQuery{}, "a:1,2 b:3 c:4")
	b.same("the first line", r.Lines[0].Subject, "c") // it waited before
	b.same("next", r.Next, time.Time{})
	b.same("due of the second", b.delivery("audit", events[1].ID).Due, time.Time{})
	b.same("attempts", b.delivery("audit", events[0].ID).Attempts, 1)
	b.wantDue("other", "c:4")
}

package outboxtest

import (
	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

// testOwners has events of two owners and of nobody.
func testOwners(b *bench) {
	b.register("audit")
	b.register("callbacks")
	of := func(owner, subject string) event.Event {
		return event.New(event.JobStarted, subject, 1, noon, event.Data{ID: subject, Owner: owner})
	}
	events := []event.Event{of("alice", "a"), of("bob", "b"), of("", "c"), of("alice", "d"), of("bob", "a")}
	b.publishAll(events...)
	b.look("audit", "callbacks")
	feed := func(q webhook.EventQuery) []string {
		q.Limit = 1 // so that it pages
		return b.feed(q)
	}
	b.same("alice's events", feed(webhook.EventQuery{Owner: "alice"}), idsOf([]event.Event{events[0], events[3]}))
	b.same("alice's of a subject", feed(webhook.EventQuery{Owner: "alice", Subject: "a"}), idsOf(events[:1]))
	b.same("nobody's events", feed(webhook.EventQuery{Owner: "carol"}), []string(nil))
	b.same("bob's after his own", feed(webhook.EventQuery{Owner: "bob", AfterID: events[1].ID}), idsOf(events[4:]))
	_, err := b.outbox.Events(b.Context(), webhook.EventQuery{Owner: "bob", AfterID: events[0].ID, Limit: 1})
	b.wantError(err, webhook.ErrNoEvent)

	b.same("alice's deliveries", b.list(webhook.DeliveryQuery{Owner: "alice", Limit: 9}), []place{
		{4, "audit", webhook.Pending},
		{4, "callbacks", webhook.Pending},
		{1, "audit", webhook.Pending},
		{1, "callbacks", webhook.Pending},
	})
	b.same("alice's deliveries to one sink, older than a number",
		b.list(webhook.DeliveryQuery{Owner: "alice", Sink: "callbacks", Before: 4, Limit: 9}), []place{{1, "callbacks", webhook.Pending}})
	b.same("bob's, two of them", b.list(webhook.DeliveryQuery{Owner: "bob", Sink: "audit", Limit: 1}), []place{{5, "audit", webhook.Pending}})
	for _, e := range events {
		b.same("the owner of a delivery", b.delivery("callbacks", e.ID).Owner, e.Data.Owner)
	}
}

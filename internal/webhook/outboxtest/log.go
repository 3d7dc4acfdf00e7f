package outboxtest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

func testWanted(t *testing.T, open func(*testing.T, func(webhook.Head) bool) webhook.Outbox) {
	wanted := func(h webhook.Head) bool {
		return h.Type == event.JobStarted && h.Function == "resize" || h.Type == event.JobCompleted && h.Callback
	}
	b := &bench{T: t, outbox: open(t, wanted)}
	b.register("audit")
	grown := b.outbox.Grown()
	make := func(typ event.Type, function, callback string) event.Event {
		e := event.New(typ, "j", 1, noon, event.Data{Function: function})
		e.Callback, e.Promised = callback, true
		return e
	}
	b.publishAll(make(event.JobStarted, "rotate", ""), make(event.JobCompleted, "resize", ""))
	select {
	case <-grown:
		t.Error("the log has grown by what nobody wants")
	default:
	}
	kept := []event.Event{make(event.JobStarted, "resize", ""), make(event.JobCompleted, "rotate", "http://127.0.0.1/")}
	b.publishAll(kept[0], make(event.JobProgress, "resize", ""), kept[1])
	b.same("the log", b.feed(webhook.EventQuery{Limit: 10}), idsOf(kept))
	b.look("audit")
	b.wantDue("audit", "j:1,2") // the others have no number
}

func testLog(b *bench) {
	page := b.events(webhook.EventQuery{Limit: 10})
	b.same("the page of an empty log", page, webhook.EventPage{End: true})
	b.register("audit")
	first := b.publish("a", "b", "a")
	second := []event.Event{
		event.New(event.JobStarted, "b", 1, noon, event.Data{}),
		event.New(event.WorkerBeforeRun, "", 1, noon, event.Data{}),
	}
	b.publishAll(second...)
	b.publishAll()
	page = b.events(webhook.EventQuery{Limit: 10})
	b.same("the log", ids(b.T, page.Bodies), idsOf(slices.Concat(first, second)))
	if page.Next != 5 || !page.End {
		b.Errorf("got next %d and end %v, want 5 and true", page.Next, page.End)
	}
	b.look("audit")
	b.wantDue("audit", ":5 a:1,3 b:2,4")
}

func testEventsAfter(b *bench) {
	want := idsOf(b.publish("a", "b", "a", "c", "a"))
	for limit := 1; limit <= 6; limit++ {
		b.same("the log by pages", b.feed(webhook.EventQuery{Limit: limit}), want)
	}
	page := b.events(webhook.EventQuery{After: 2, Limit: 2})
	b.same("a page", ids(b.T, page.Bodies), want[2:4])
	if page.Next != 4 || page.End {
		b.Errorf("got next %d and end %v, want 4 and false", page.Next, page.End)
	}
	page = b.events(webhook.EventQuery{After: 4, Limit: 1})
	b.same("the last page", ids(b.T, page.Bodies), want[4:])
	if page.Next != 5 || !page.End {
		b.Errorf("got next %d and end %v, want 5 and true", page.Next, page.End)
	}
	if _, err := b.outbox.Events(b.Context(), webhook.EventQuery{After: 6, Limit: 1}); !errors.Is(err, webhook.ErrEventsExpired) {
		b.Errorf("a cursor of another log: got %v, want ErrEventsExpired", err)
	}
	b.same("after the last", b.events(webhook.EventQuery{After: 5, Limit: 1}), webhook.EventPage{Next: 5, End: true})
}

func testEventsAfterID(b *bench) {
	events := b.publish("a", "b", "a")
	b.same("after the first", b.feed(webhook.EventQuery{AfterID: events[0].ID, Limit: 10}), idsOf(events[1:]))
	b.same("in place of After", b.feed(webhook.EventQuery{AfterID: events[0].ID, After: 2, Limit: 10}), idsOf(events[1:]))
	page := b.events(webhook.EventQuery{AfterID: events[2].ID, Limit: 10})
	b.same("after the last", page, webhook.EventPage{Next: 3, End: true})
	_, err := b.outbox.Events(b.Context(), webhook.EventQuery{AfterID: "evt_of_nobody", Limit: 10})
	b.wantError(err, webhook.ErrNoEvent)
}

func testEventsSelect(b *bench) {
	var events []event.Event
	for i, typ := range []event.Type{event.JobStarted, event.JobCompleted, event.WorkerOnWork, event.JobStarted, event.JobFailed} {
		events = append(events, event.New(typ, []string{"a", "b"}[i%2], 1, noon, event.Data{}))
	}
	b.publishAll(events...)
	for _, c := range []struct {
		query webhook.EventQuery
		want  []int
	}{
		{webhook.EventQuery{Types: event.Patterns{"job.*"}}, []int{0, 1, 3, 4}},
		{webhook.EventQuery{Types: event.Patterns{"worker.on_work", "job.failed"}}, []int{2, 4}},
		{webhook.EventQuery{Types: event.Patterns{"*"}, Subject: "a"}, []int{0, 2, 4}},
		{webhook.EventQuery{Subject: "b"}, []int{1, 3}},
		{webhook.EventQuery{Subject: "b", Types: event.Patterns{"job.started"}}, []int{3}},
		{webhook.EventQuery{Subject: "b", After: 2}, []int{3}},
		{webhook.EventQuery{Subject: "b", AfterID: events[1].ID}, []int{3}},
		{webhook.EventQuery{Subject: "c"}, nil},
		{webhook.EventQuery{Types: event.Patterns{"job.lost"}}, nil},
	} {
		var want []string
		for _, i := range c.want {
			want = append(want, events[i].ID)
		}
		for limit := 1; limit <= 3; limit++ {
			c.query.Limit = limit
			b.same("selected", b.feed(c.query), want)
		}
	}
}

func testGrown(b *bench) {
	for range 3 {
		grown := b.outbox.Grown()
		select {
		case <-grown:
			b.Fatal("it has grown by nothing")
		default:
		}
		b.outbox.Publish(event.New(event.JobStarted, "a", 1, noon, event.Data{}))
		select {
		case <-grown:
		case <-time.After(patience):
			b.Fatal("nobody says that the log has grown")
		}
		b.events(webhook.EventQuery{Limit: 1}) // all that was published is in the log
	}
	b.same("events", len(b.feed(webhook.EventQuery{Limit: 10})), 3)
}

func testNotFull(b *bench) {
	b.started("audit", "a", "b")
	b.publish("c")
	if b.outbox.Full() {
		b.Error("three events fill it")
	}
}

package outboxtest

import (
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

func testRegister(b *bench) {
	b.publish("a", "b")
	b.same("the standing of a new sink", b.register("audit"), webhook.Standing{})
	b.publish("a", "c")
	b.register("late")
	b.publish("d")
	b.same("how a known sink stands", b.register("audit"), webhook.Standing{})
	b.look("audit", "late")
	b.wantDue("audit", "a:3 c:4 d:5")
	b.wantDue("late", "d:5")
}

func testNoSink(b *bench) {
	e := b.started("audit", "a")[0]
	_, err := b.outbox.Advance(b.Context(), "nobody", webhook.Step{Look: 1, Wants: all})
	b.wantError(err, webhook.ErrNoSink)
	_, err = b.outbox.Due(b.Context(), "nobody", webhook.DueQuery{Now: time.Now(), Lines: 1, Letters: 1})
	b.wantError(err, webhook.ErrNoSink)
	b.same("the backlog of nobody", b.backlog("nobody"), webhook.Backlog{})
	_, err = b.outbox.Delivery(b.Context(), "nobody", e.ID)
	b.wantError(err, webhook.ErrNoDelivery)
	b.wantError(b.outbox.Requeue(b.Context(), "nobody", e.ID), webhook.ErrNoDelivery)
	found, err := b.outbox.Deliveries(b.Context(), webhook.DeliveryQuery{Sink: "nobody", Limit: 10})
	b.must(err)
	b.same("the deliveries of nobody", found, []webhook.Delivery(nil))
}

func testStanding(b *bench) {
	b.register("audit")
	b.register("other")
	want := webhook.Standing{
		Paused: true, Disabled: "410 Gone", FailingSince: noon, LastError: "answered 410 Gone", LastErrorAt: noon.Add(time.Hour),
		LastSuccess: noon.Add(-time.Hour),
	}
	b.step("audit", webhook.Step{Standing: &want})
	b.same("standing", b.register("audit"), want)
	b.publish("a")
	b.look("audit")
	b.same("standing after a step without", b.register("audit"), want)
	b.same("standing of the other", b.register("other"), webhook.Standing{})
	b.step("audit", webhook.Step{Standing: &webhook.Standing{LastSuccess: noon}})
	b.same("standing", b.register("audit"), webhook.Standing{LastSuccess: noon})
}

func testLook(b *bench) {
	b.register("audit")
	b.publish("a", "b", "c", "d", "e")
	b.same("looked", b.step("audit", webhook.Step{Wants: all}), 0)
	b.wantDue("audit", "")
	b.same("looked", b.step("audit", webhook.Step{Look: 2, Wants: all}), 2)
	b.wantDue("audit", "a:1 b:2")
	b.same("looked", b.step("audit", webhook.Step{Look: 3, Wants: all}), 3)
	b.same("looked", b.step("audit", webhook.Step{Look: 3, Wants: all}), 0)
	b.publish("f")
	b.same("looked", b.step("audit", webhook.Step{Look: 3, Wants: all}), 1)
	b.wantDue("audit", "a:1 b:2 c:3 d:4 e:5 f:6")
}

func testWants(b *bench) {
	b.register("audit")
	b.register("other")
	completed := event.New(event.JobCompleted, "c", 1, noon, event.Data{Function: "rotate"})
	completed.Callback = "http://127.0.0.1/"
	b.publish("a")
	b.publishAll(completed, event.New(event.WorkerBeforeRun, "w", 1, noon, event.Data{}))
	var heads []webhook.Head
	looked := b.step("audit", webhook.Step{Look: 10, Wants: func(h webhook.Head) bool {
		heads = append(heads, h)
		return h.Type != event.JobStarted
	}})
	b.same("looked", looked, 3)
	b.same("heads", heads, []webhook.Head{
		{Type: event.JobStarted, Function: "resize"},
		{Type: event.JobCompleted, Function: "rotate", Callback: true},
		{Type: event.WorkerBeforeRun},
	})
	b.wantDue("audit", "c:2 w:3")
	b.step("other", webhook.Step{Look: 10, Wants: func(h webhook.Head) bool { return h.Callback }})
	b.wantDue("other", "c:2")
}

func testSinks(b *bench) {
	b.register("fast")
	b.register("slow")
	b.publish("a", "a", "b")
	b.look("fast", "slow")
	b.end("fast", ended(1, "a", webhook.Delivered), ended(2, "a", webhook.Dead), ended(3, "b", webhook.Delivered))
	b.wantDue("fast", "")
	b.wantDue("slow", "a:1,2 b:3")
	b.end("slow", retry(1, "a", soon(time.Hour)))
	b.publish("a")
	b.look("fast")
	b.wantDue("fast", "a:4")
	b.wantDue("slow", "b:3")
}

// What ended may have been given up meanwhile, or have ended before.
func testEndOfNothing(b *bench) {
	e := b.started("audit", "a", "a")[0]
	b.end("audit", ended(99, "a", webhook.Delivered))
	b.wantDue("audit", "a:1,2")
	b.end("audit", ended(1, "a", webhook.Delivered))
	b.end("audit", ended(1, "a", webhook.Dead))
	b.end("audit", retry(1, "a", soon(-time.Hour)))
	b.wantDue("audit", "a:2")
	b.same("state", b.delivery("audit", e.ID).State, webhook.Delivered)
}

func testBacklog(b *bench) {
	b.publish("z")
	b.register("audit")
	b.same("of a new sink", b.backlog("audit"), webhook.Backlog{})
	b.publish("a", "b", "c", "d") // 2 to 5
	b.same("of a sink that has not looked", b.backlog("audit"), webhook.Backlog{Behind: 4, Oldest: noon.Add(time.Second)})
	b.step("audit", webhook.Step{Look: 3, Wants: all})
	b.same("of one that has looked", b.backlog("audit"), webhook.Backlog{Behind: 1, Pending: 3, Oldest: noon.Add(time.Second)})
	b.end("audit", ended(2, "a", webhook.Dead), ended(4, "c", webhook.Delivered))
	b.same("later", b.backlog("audit"), webhook.Backlog{Behind: 1, Pending: 1, Dead: 1, Oldest: noon.Add(2 * time.Second)})
	b.end("audit", ended(3, "b", webhook.Delivered))
	b.same("later", b.backlog("audit"), webhook.Backlog{Behind: 1, Dead: 1, Oldest: noon.Add(4 * time.Second)})
	b.step("audit", webhook.Step{Look: 3, Wants: func(webhook.Head) bool { return false }})
	b.same("at the end", b.backlog("audit"), webhook.Backlog{Dead: 1})
}

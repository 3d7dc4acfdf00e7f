package outboxtest

import (
	"bytes"
	"fmt"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

func testFirstOfSubject(b *bench) {
	b.started("audit", "a", "b", "a", "a")
	one := webhook.DueQuery{Letters: 1}
	b.wantLines("audit", one, "a:1 b:2")
	b.end("audit", ended(1, "a", webhook.Delivered))
	b.wantLines("audit", one, "a:3 b:2")
	b.end("audit", ended(3, "a", webhook.Dead))
	b.wantLines("audit", one, "a:4 b:2")
	b.end("audit", ended(4, "a", webhook.Delivered))
	r := b.wantLines("audit", one, "b:2")
	b.same("next", r.Next, time.Time{})
	b.publish("a")
	b.look("audit")
	b.wantLines("audit", one, "a:5 b:2")
}

func testSeveralEnds(b *bench) {
	b.started("audit", "a", "a", "a", "b", "a")
	later := soon(time.Hour)
	b.end("audit",
		ended(1, "a", webhook.Delivered), retry(2, "a", later), ended(2, "a", webhook.Dead), ended(3, "a", webhook.Delivered),
		retry(4, "b", later), retry(4, "b", soon(-time.Hour)))
	b.wantDue("audit", "a:5 b:4")
	b.end("audit", ended(5, "a", webhook.Delivered), retry(4, "b", later))
	r := b.wantLines("audit", webhook.DueQuery{}, "")
	b.same("next", r.Next, later)
	b.publish("a", "b")
	b.step("audit", webhook.Step{Ends: []webhook.Ended{ended(4, "b", webhook.Delivered)}, Look: 10, Wants: all})
	b.wantDue("audit", "a:6 b:7")
}

func testRetry(b *bench) {
	events := b.started("audit", "a", "a", "b")
	due := soon(time.Hour)
	b.end("audit", retry(1, "a", due))
	r := b.wantLines("audit", webhook.DueQuery{}, "b:3")
	b.same("next", r.Next, due)
	b.publish("a")
	b.look("audit")
	b.wantDue("audit", "b:3")
	b.same("due of the first", b.delivery("audit", events[0].ID).Due, due)
	b.same("due of the second", b.delivery("audit", events[1].ID).Due, time.Time{})
	b.wantLines("audit", webhook.DueQuery{Now: due.Add(-time.Second)}, "b:3")
	r = b.wantLines("audit", webhook.DueQuery{Now: due}, "a:1,2,4 b:3")
	b.same("next", r.Next, time.Time{})
	b.end("audit", ended(1, "a", webhook.Dead))
	b.wantDue("audit", "a:2,4 b:3")
	if second := b.delivery("audit", events[1].ID); second.Due.IsZero() || second.Due.After(time.Now()) || second.Attempts != 0 {
		b.Errorf("got due %v and %d attempts, want now and none", second.Due, second.Attempts)
	}
}

func testEarly(b *bench) {
	b.started("audit", "a", "b", "c")
	early, one := webhook.DueQuery{Early: true}, webhook.DueQuery{Early: true, Lines: 1}
	b.end("audit", retry(1, "a", soon(2*time.Hour)), retry(2, "b", soon(time.Hour)))
	b.wantLines("audit", early, "c:3")
	b.end("audit", ended(3, "c", webhook.Delivered))
	b.wantDue("audit", "")
	b.wantLines("audit", early, "a:1 b:2")
	r := b.wantLines("audit", one, "b:2")
	if !r.Next.After(time.Now().Add(time.Hour)) {
		b.Errorf("got next %v, want that of a", r.Next)
	}
	one.Skip = func(subject string) bool { return subject == "b" }
	b.wantLines("audit", one, "a:1")
}

func testLongestFirst(b *bench) {
	b.started("audit", "a", "b", "c", "d", "e")
	b.end("audit",
		retry(1, "a", soon(-1*time.Hour)), retry(2, "b", soon(-3*time.Hour)), retry(3, "c", soon(-2*time.Hour)),
		retry(4, "d", soon(time.Hour)), retry(5, "e", soon(2*time.Hour)))
	next := b.due("audit", webhook.DueQuery{}).Next
	if !next.After(time.Now()) || next.After(time.Now().Add(time.Hour)) {
		b.Errorf("got next %v, want that of d", next)
	}
	want := []string{"b:2", "c:3", "a:1", "d:4", "e:5"}
	for lines := 1; lines <= 5; lines++ {
		r := b.due("audit", webhook.DueQuery{Lines: lines})
		b.same("lines", show(r.Lines), want[:min(lines, 3)])
		if lines < 3 && (r.Next.IsZero() || r.Next.After(time.Now())) {
			b.Errorf("got next %v after %d lines, want a time that was", r.Next, lines)
		}
		b.same("all lines", show(b.due("audit", webhook.DueQuery{Now: soon(3 * time.Hour), Lines: lines}).Lines), want[:lines])
	}
}

func testSkip(b *bench) {
	b.started("audit", "a", "b", "c", "a")
	skip := func(subjects ...string) func(string) bool {
		return func(s string) bool {
			for _, skipped := range subjects {
				if s == skipped {
					return true
				}
			}
			return false
		}
	}
	b.wantLines("audit", webhook.DueQuery{Skip: skip("b")}, "a:1,4 c:3")
	b.wantLines("audit", webhook.DueQuery{Skip: skip("a", "c"), Lines: 1}, "b:2")
	b.wantLines("audit", webhook.DueQuery{Skip: skip("a", "b", "c")}, "")
	b.end("audit", retry(2, "b", soon(time.Hour)))
	b.wantLines("audit", webhook.DueQuery{Skip: skip("a", "c"), Early: true}, "b:2")
}

// Many lines in hand must not hide the others.
func testLetters(b *bench) {
	b.started("audit", "a", "b", "a", "a", "b", "a")
	for letters, want := range []string{1: "a:1 b:2", 2: "a:1,3 b:2,5", 3: "a:1,3,4 b:2,5", 4: "a:1,3,4,6 b:2,5"} {
		if letters > 0 {
			b.wantLines("audit", webhook.DueQuery{Letters: letters}, want)
		}
	}
	var subjects []string
	for i := range 300 {
		subjects = append(subjects, fmt.Sprint("many", i))
	}
	b.publish(subjects...)
	b.look("audit")
	skipped := map[string]bool{}
	for len(skipped) < 302 {
		r := b.due("audit", webhook.DueQuery{Lines: 7, Letters: 1, Skip: func(s string) bool { return skipped[s] }})
		if len(r.Lines) == 0 {
			b.Fatalf("got no line although %d of 302 are skipped", len(skipped))
		}
		for _, l := range r.Lines {
			skipped[l.Subject] = true
		}
	}
}

func testLetterFields(b *bench) {
	b.register("audit")
	e := event.New(event.JobCompleted, "a", 7, noon, event.Data{ID: "a", Function: "resize", Result: []byte(`{"w":1}`)})
	e.Callback, e.Traceparent, e.Promised = "http://127.0.0.1/?q=1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true
	b.publishAll(e)
	b.look("audit")
	for range 2 { // as often as it is asked for
		letter := b.due("audit", webhook.DueQuery{}).Lines[0].Letters[0]
		body := b.events(webhook.EventQuery{Limit: 1}).Bodies[0]
		if !bytes.Equal(letter.Body, body) || !bytes.Contains(body, []byte(`"result":{"w":1}`)) {
			b.Errorf("got body %s, and in the log %s", letter.Body, body)
		}
		letter.Body = nil
		b.same("letter", letter, webhook.Letter{
			N: 1, EventID: e.ID, Type: event.JobCompleted, Callback: e.Callback, Traceparent: e.Traceparent,
		})
	}
}

func testAttempts(b *bench) {
	e := b.started("audit", "a", "b")[0]
	for n := 1; n <= 20; n++ {
		// One that is due again at once, and does not count: the sink had asked for patience.
		b.end("audit", webhook.Ended{N: 1, Subject: "a", State: webhook.Pending, Due: soon(-time.Hour), Attempts: n / 2, Log: attempts(n)})
		letter := b.due("audit", webhook.DueQuery{Lines: 1}).Lines[0].Letters[0]
		b.same("log", letter.Log, attempts(n))
		b.same("attempts", letter.Attempts, n/2)
		d := b.delivery("audit", e.ID)
		b.same("log", d.Log, attempts(n))
		b.same("attempts", d.Attempts, n/2)
		again := b.due("audit", webhook.DueQuery{Lines: 1}).Lines[0].Letters[0]
		one, other := append(letter.Log, webhook.Attempt{Status: 1}), append(again.Log, webhook.Attempt{Status: 2})
		b.same("what callers appended", []int{one[n].Status, other[n].Status}, []int{1, 2})
	}
	b.end("audit", webhook.Ended{N: 1, Subject: "a", State: webhook.Dead, Attempts: 10, Log: attempts(20)})
	d := b.delivery("audit", e.ID)
	b.same("log", d.Log, attempts(20))
	b.same("due", d.Due, time.Time{})
}

package webhook

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gearman-gateway/internal/event"
)

func TestQueueHandsOutTheEarliestDueOfEachSubject(t *testing.T) {
	q := newQueue(10, 1<<20)
	start := time.Unix(1000, 0)
	push := func(id, subject string, after time.Duration) {
		q.push(&message{id: id, subject: subject}, start.Add(after))
	}
	push("a1", "a", 2*time.Second)
	push("a2", "a", 0)
	push("b1", "b", time.Second)
	if d, next := q.take(start, time.Time{}); d != nil || !next.Equal(start.Add(time.Second)) {
		t.Fatalf("got %v, %v, want nothing before b1 is due", d, next)
	}
	now := start.Add(time.Minute)
	if d, next := q.take(now, now.Add(time.Hour)); d != nil || !next.Equal(now.Add(time.Hour)) {
		t.Fatalf("got %v, %v, want nothing before notBefore", d, next)
	}
	b1, _ := q.take(now, time.Time{})
	a1, _ := q.take(now, time.Time{})
	if b1.id != "b1" || a1.id != "a1" {
		t.Fatalf("got %s, %s, want b1, a1", b1.id, a1.id)
	}
	if d, next := q.take(now, time.Time{}); d != nil || !next.IsZero() {
		t.Fatalf("got %v, %v, want nothing: a2 stands behind a1", d, next)
	}
	q.retry(a1, now.Add(time.Hour))
	if d, next := q.take(now, time.Time{}); d != nil || !next.Equal(now.Add(time.Hour)) {
		t.Fatalf("got %v, %v, want nothing: a2 stands behind a1's retry", d, next)
	}
	a1, _ = q.take(now.Add(time.Hour), time.Time{})
	q.done(a1)
	if a2, _ := q.take(now, time.Time{}); a2 == nil || a2.id != "a2" {
		t.Fatalf("got %v, want a2", a2)
	}
}

func TestQueueBytes(t *testing.T) {
	q := newQueue(100, 10)
	q.push(&message{id: "1", subject: "a", size: 4}, time.Time{})
	q.push(&message{id: "2", subject: "b", size: 4}, time.Time{})
	if dropped, full := q.push(&message{id: "3", subject: "c", size: 7}, time.Time{}); dropped != 2 || !full {
		t.Errorf("dropped %d, full %v, want the two older ones dropped", dropped, full)
	}
	if d, _ := q.take(time.Now(), time.Time{}); d.id != "3" {
		t.Errorf("left is %s, want 3", d.id)
	}
	if dropped, _ := q.push(&message{id: "4", subject: "c", size: 4}, time.Time{}); dropped != 1 || q.len() != 1 {
		t.Errorf("dropped %d, left %d, want the new one dropped, since the other is handed out", dropped, q.len())
	}
	q.close()
	if dropped, full := q.push(&message{id: "5", subject: "d"}, time.Time{}); dropped != 1 || full {
		t.Errorf("dropped %d, full %v, want a closed queue to drop what comes", dropped, full)
	}
}

// A model of the queue as one slice in order of arrival, against which random operations are checked.
func TestQueueAgainstAModel(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		q := newQueue(1+rnd.IntN(12), 1<<40)
		var model []string            // ids by arrival
		out := map[string]*delivery{} // by subject
		ids := 0
		for step := range 500 {
			switch now := time.Unix(int64(step), 0); rnd.IntN(5) {
			case 0, 1: // push
				ids++
				m := &message{id: fmt.Sprint(ids), subject: fmt.Sprint(rnd.IntN(4)), kind: event.JobData, size: 1}
				q.push(m, now.Add(time.Duration(rnd.IntN(10))*time.Second))
				model = append(model, m.subject+"/"+m.id)
				for len(model) > q.maxEvents {
					i := slices.IndexFunc(model, func(s string) bool { return out[s[:1]] == nil || s != s[:1]+"/"+out[s[:1]].id })
					if i < 0 {
						break
					}
					model = slices.Delete(model, i, i+1)
				}
			case 2: // take
				d, _ := q.take(now, time.Time{})
				if d == nil {
					break
				}
				first := slices.IndexFunc(model, func(s string) bool { return s[:1] == d.subject })
				if first < 0 || out[d.subject] != nil || model[first] != d.subject+"/"+d.id {
					t.Fatalf("seed %d: took %s/%s, which is not the first of its subject in %v", seed, d.subject, d.id, model)
				}
				out[d.subject] = d
			default: // give back
				for subject, d := range out {
					delete(out, subject)
					if rnd.IntN(2) == 0 {
						q.retry(d, now.Add(time.Duration(rnd.IntN(10))*time.Second))
						break
					}
					q.done(d)
					model = slices.DeleteFunc(model, func(s string) bool { return s == subject+"/"+d.id })
					break
				}
			}
			for i, l := range q.ready {
				if l.busy || l.index != i || l.first.due.Before(q.ready[(i-1)/2].first.due) {
					t.Fatalf("seed %d: line %s is in the wrong place", seed, l.subject)
				}
			}
			if q.len() != len(model) || q.bytes != int64(len(model)) {
				t.Fatalf("seed %d: %d events of %d bytes, want %d: %v", seed, q.len(), q.bytes, len(model), model)
			}
		}
		if dropped := q.clear(); dropped != len(model)-len(out) || len(q.ready) != 0 || len(q.lines) != len(out) {
			t.Errorf("seed %d: clear dropped %d and left %d lines, want %d and %d", seed, dropped, len(q.lines), len(model)-len(out), len(out))
		}
	}
}

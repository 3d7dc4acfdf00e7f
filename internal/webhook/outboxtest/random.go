package outboxtest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

// A dispatcher is a sink that does what sinks may do, at random, and knows what it has to expect.
type dispatcher struct {
	*bench
	*rand.Rand
	sink     string
	modulus  int                 // it wants the events whose subject is not a multiple of it
	inHand   map[string]bool     // subjects whose ends wait in ends
	ends     []webhook.Ended     //
	tries    map[int64]int       // attempts of a delivery in its log
	counts   map[int64]int       // those that count
	requeued map[int64]bool      //
	states   map[string]state    // of deliveries that have ended, by event ID
	first    map[string][]int64  // the numbers of a subject, in the order in which they ended first
	wanted   map[string][]string // IDs of the events of a subject that it wants, in order
}

type state struct {
	N     int64
	State webhook.DeliveryState
}

func newDispatcher(b *bench, random *rand.Rand, sink string, modulus int) *dispatcher {
	b.register(sink)
	return &dispatcher{
		bench: b, Rand: random, sink: sink, modulus: modulus, inHand: map[string]bool{}, tries: map[int64]int{}, counts: map[int64]int{},
		requeued: map[int64]bool{}, states: map[string]state{}, first: map[string][]int64{}, wanted: map[string][]string{},
	}
}

func testRandom(b *bench) {
	seed := rand.Uint64()
	b.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var sinks []*dispatcher
	for i, name := range []string{"all", "half", "third"} {
		sinks = append(sinks, newDispatcher(b, random, name, i+1))
	}
	for left := 300; left > 0; {
		batch := make([]event.Event, min(left, 1+random.IntN(20)))
		for i := range batch {
			number := random.IntN(10)
			batch[i] = event.New(event.JobStarted, fmt.Sprint(number), 1, noon, event.Data{Function: fmt.Sprint(number)})
			for _, d := range sinks {
				d.expect(batch[i], number)
			}
		}
		left -= len(batch)
		b.publishAll(batch...)
		for range random.IntN(4) {
			sinks[random.IntN(len(sinks))].work()
		}
	}
	for _, d := range sinks {
		for steps := 0; !d.finished(); steps++ {
			if steps > 20_000 {
				b.Fatalf("%s does not come to an end: %+v", d.sink, b.backlog(d.sink))
			}
			d.work()
		}
		d.check()
	}
}

func (d *dispatcher) wants(number int) bool { return d.modulus == 1 || number%d.modulus != 0 }

func (d *dispatcher) expect(e event.Event, number int) {
	if d.wants(number) {
		d.wanted[e.Subject] = append(d.wanted[e.Subject], e.ID)
	}
}

// work takes up lines, makes attempts of their letters in order until one fails, and brings what ended into the outbox now and then.
func (d *dispatcher) work() {
	d.Helper()
	q := webhook.DueQuery{
		Now: time.Now(), Lines: 1 + d.IntN(4), Letters: 1 + d.IntN(4), Early: d.IntN(10) == 0,
		Skip: func(s string) bool { return d.inHand[s] },
	}
	if d.IntN(20) == 0 {
		q.Now = q.Now.Add(time.Duration(d.IntN(7200)) * time.Second)
	}
	for _, l := range d.due(d.sink, q).Lines {
		if d.inHand[l.Subject] {
			d.Fatalf("%s got %q, which it skips", d.sink, l.Subject)
		}
		d.inHand[l.Subject] = true
		for i, letter := range l.Letters {
			if i > 0 && letter.N <= l.Letters[i-1].N {
				d.Fatalf("%s got %v, want them in order", d.sink, show([]webhook.Line{l}))
			}
			if !d.attempt(l.Subject, letter) {
				break
			}
		}
	}
	if d.IntN(3) == 0 {
		d.flush()
	}
	if d.IntN(15) == 0 {
		d.requeue()
	}
	if d.IntN(40) == 0 {
		d.must(d.outbox.Hasten(d.Context(), d.sink))
	}
}

// attempt reports whether the next of the line may follow.
func (d *dispatcher) attempt(subject string, l webhook.Letter) bool {
	d.Helper()
	if l.Attempts != d.counts[l.N] || len(l.Log) != min(d.tries[l.N], 20) {
		d.Fatalf("%s got %d with %d attempts and %d in its log, want %d and %d",
			d.sink, l.N, l.Attempts, len(l.Log), d.counts[l.N], d.tries[l.N])
	}
	d.tries[l.N]++
	log := append(l.Log, webhook.Attempt{At: noon, Status: 500 + d.tries[l.N]})
	end := webhook.Ended{N: l.N, Subject: subject, Attempts: l.Attempts, Log: log[max(0, len(log)-20):]}
	switch d.IntN(10) {
	case 0:
		end.State = webhook.Dead
	case 1, 2, 3:
		end.State, end.Due = webhook.Pending, soon(time.Duration(d.IntN(7200)-3600)*time.Second)
		end.Attempts++
	default:
		end.State = webhook.Delivered
	}
	d.counts[l.N] = end.Attempts
	d.ends = append(d.ends, end)
	if end.State == webhook.Pending {
		return false
	}
	if _, again := d.states[l.EventID]; !again {
		d.first[subject] = append(d.first[subject], l.N)
	} else if !d.requeued[l.N] {
		d.Fatalf("%s got %d once more after its end", d.sink, l.N)
	}
	delete(d.requeued, l.N)
	d.states[l.EventID] = state{l.N, end.State}
	return true
}

func (d *dispatcher) flush() {
	d.Helper()
	d.step(d.sink, webhook.Step{Ends: d.ends, Look: d.IntN(20), Wants: func(h webhook.Head) bool {
		var number int
		_, err := fmt.Sscan(h.Function, &number)
		return err == nil && d.wants(number)
	}})
	d.ends = nil
	clear(d.inHand)
}

// requeue requeues a delivery that has ended, while others of its subject may be in hand.
func (d *dispatcher) requeue() {
	d.Helper()
	all := slices.Sorted(maps.Keys(d.states))
	if len(all) == 0 {
		return
	}
	id := all[d.IntN(len(all))]
	n := d.states[id].N
	if d.requeued[n] || slices.ContainsFunc(d.ends, func(e webhook.Ended) bool { return e.N == n }) {
		d.wantError(d.outbox.Requeue(d.Context(), d.sink, id), webhook.ErrPending)
		return
	}
	d.must(d.outbox.Requeue(d.Context(), d.sink, id))
	d.requeued[n] = true
	d.counts[n] = 0
}

func (d *dispatcher) finished() bool {
	d.Helper()
	l := d.backlog(d.sink)
	return l.Behind == 0 && l.Pending == 0
}

// check compares the outbox with what the dispatcher knows: each event that it wants has ended, and in order.
func (d *dispatcher) check() {
	d.Helper()
	count, dead := 0, int64(0)
	for subject, ids := range d.wanted {
		var got []int64
		for _, id := range ids {
			one := d.delivery(d.sink, id)
			d.same("state of "+id, state{one.N, one.State}, d.states[id])
			d.same("attempts of "+id, len(one.Log), min(d.tries[one.N], 20))
			got = append(got, one.N)
			count++
			if one.State == webhook.Dead {
				dead++
			}
		}
		d.same("the order of "+subject, d.first[subject], got)
	}
	d.same("deliveries", len(d.states), count)
	d.same("backlog", d.backlog(d.sink), webhook.Backlog{Dead: dead})
	r := d.wantLines(d.sink, webhook.DueQuery{Early: true}, "")
	d.same("next", r.Next, time.Time{})
}

package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gearman-gateway/internal/webhook"
)

// Sinks do anything in any order, and are interrupted: each has all events in order, and nothing waits for ever, however much room there is.
func TestSinksAtRandom(t *testing.T) {
	for _, most := range []int64{0, fewBytes} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			sinksAtRandom(t, Options{Dir: t.TempDir(), MaxEventBytes: most, Sweep: time.Millisecond})
		})
	}
}

func sinksAtRandom(t *testing.T, o Options) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	d := open(t, o)
	sinks := []*fickle{newFickle("a", random), newFickle("b", random)}
	for _, s := range sinks {
		register(t, d, s.name)
	}
	var ids []string
	for range 400 {
		s := sinks[random.IntN(len(sinks))]
		switch n := random.IntN(60); {
		case n == 0:
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = open(t, o)
		case n < 5 && len(ids) > 0:
			err := d.Requeue(t.Context(), s.name, ids[random.IntN(len(ids))])
			if err != nil && !errors.Is(err, webhook.ErrPending) && !errors.Is(err, webhook.ErrNoDelivery) {
				t.Fatal(err)
			}
		case n < 20:
			for range random.IntN(10) {
				e := happened(fmt.Sprint("s", random.IntN(8)), len(ids))
				e.Promised = true
				ids = append(ids, e.ID)
				d.Publish(e)
			}
		default:
			s.step(t, d)
		}
		lined(t, d)
	}
	for _, s := range sinks {
		s.finish(t, d)
		b, err := d.Backlog(t.Context(), s.name)
		if err != nil || len(s.seen) != len(ids) || b != (webhook.Backlog{}) {
			t.Errorf("%s had %d events of %d, and has %+v left, %v", s.name, len(s.seen), len(ids), b, err)
		}
	}
	gapless(t, d)
}

// fickle is a sink that answers anything.
type fickle struct {
	name   string
	random *rand.Rand
	seen   map[int64]bool
	order  map[string][]int64 // by subject: the numbers as they came for the first time
}

func newFickle(name string, random *rand.Rand) *fickle {
	return &fickle{name: name, random: random, seen: map[int64]bool{}, order: map[string][]int64{}}
}

func (f *fickle) take(subject string, n int64) {
	if !f.seen[n] {
		f.seen[n] = true
		f.order[subject] = append(f.order[subject], n)
	}
}

// step takes some lines, of each up to what it answers that it is to come again.
func (f *fickle) step(t *testing.T, d *DB) {
	t.Helper()
	states := []webhook.DeliveryState{webhook.Pending, webhook.Delivered, webhook.Delivered, webhook.Dead}
	var ends []webhook.Ended
	for _, line := range due(t, d, f.name, webhook.DueQuery{Lines: 3, Letters: 3, Early: f.random.IntN(2) == 0}).Lines {
		for _, l := range line.Letters {
			f.take(line.Subject, l.N)
			e := webhook.Ended{N: l.N, Subject: line.Subject, State: states[f.random.IntN(len(states))]}
			if e.State == webhook.Pending {
				e.Due = time.Now().Add(time.Minute)
			}
			if ends = append(ends, e); e.State == webhook.Pending {
				break
			}
		}
	}
	advance(t, d, f.name, webhook.Step{Ends: ends, Look: f.random.IntN(20)})
}

// finish takes all that is left, and fails the test unless the events of each subject came in order.
func (f *fickle) finish(t *testing.T, d *DB) {
	t.Helper()
	if _, err := d.Replay(t.Context(), f.name, time.Time{}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := d.Hasten(t.Context(), f.name); err != nil {
		t.Fatal(err)
	}
	for subject, ns := range deliver(t, d, f.name) {
		for _, n := range ns {
			f.take(subject, n)
		}
	}
	for subject, ns := range f.order {
		if !slices.IsSorted(ns) {
			t.Errorf("%s had those of %s in the order %v", f.name, subject, ns)
		}
	}
}

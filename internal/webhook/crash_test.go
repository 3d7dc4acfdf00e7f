package webhook

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A faulty Outbox breaks what a sender asks of another, and counts it.
type faulty struct {
	Outbox
	mu    sync.Mutex
	calls int
	fault func(method string) (delay time.Duration, before, after bool) // it fails before it is done, or though it is done
}

// do does f with its faults.
func (o *faulty) do(method string, f func() error) error {
	o.mu.Lock()
	o.calls++
	delay, before, after := o.fault(method)
	o.mu.Unlock()
	<-time.After(delay)
	if before {
		return errBroken
	}
	if err := f(); err != nil || !after {
		return err
	}
	return errBroken
}

func (o *faulty) called() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.calls
}

func (o *faulty) Advance(ctx context.Context, sink string, s Step) (a Advanced, err error) {
	err = o.do("Advance", func() error { a, err = o.Outbox.Advance(ctx, sink, s); return err })
	return a, err
}

func (o *faulty) Due(ctx context.Context, sink string, q DueQuery) (r Ready, err error) {
	err = o.do("Due", func() error { r, err = o.Outbox.Due(ctx, sink, q); return err })
	return r, err
}

func (o *faulty) Hasten(ctx context.Context, sink string) error {
	return o.do("Hasten", func() error { return o.Outbox.Hasten(ctx, sink) })
}

// A ledger is what a sink has taken, by subject, each event once, in the order of their first times.
type ledger struct {
	mu    sync.Mutex
	taken map[string][]string
}

func (l *ledger) take(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	subject, _, _ := strings.Cut(id, "-")
	if !slices.Contains(l.taken[subject], id) {
		l.taken[subject] = append(l.taken[subject], id)
	}
}

// want fails unless it has these many events of these many subjects in order.
func (l *ledger) want(t *testing.T, subjects, events int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range subjects {
		var want []string
		for seq := range events {
			want = append(want, fmt.Sprintf("s%d-%d", i, seq))
		}
		if got := l.taken[fmt.Sprint("s", i)]; !slices.Equal(got, want) {
			t.Errorf("subject %d: got %v, want %v", i, got, want)
		}
	}
}

// TestEveryEventArrivesInOrderHoweverOftenTheSenderDies has a sink that fails a third of its answers and stalls, an outbox that fails as
// often, and is slow, and Senders that are stopped at random moments, of which half can store nothing of what they did at last.
func TestEveryEventArrivesInOrderHoweverOftenTheSenderDies(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			const subjects, lives, burst = 12, 10, 5
			random := rand.New(rand.NewPCG(seed, 0))
			var mu sync.Mutex
			chance := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return random.IntN(n)
			}
			sink := ledger{taken: map[string][]string{}}
			w := &wire{answer: func(r *http.Request, c call) (int, error) {
				select {
				case <-time.After(time.Duration(chance(50)) * time.Millisecond):
				case <-r.Context().Done():
				}
				switch chance(9) {
				case 0, 1:
					return []int{500, 503, 404}[chance(3)], nil
				case 2:
					if chance(2) == 0 {
						sink.take(c.id) // it is not known that it was
					}
					return hang(r, c)
				}
				sink.take(c.id)
				return 200, nil
			}}
			memory := NewMemory(MemoryOptions{})
			_, _ = memory.Register(t.Context(), "sink")
			schedule := slices.Repeat([]time.Duration{time.Second}, 1000) // no dead letters: they let the next one pass
			schedule[0] = 0
			life := func(healthy bool) (*Sender, *faulty) {
				broken := &faulty{Outbox: memory, fault: func(string) (time.Duration, bool, bool) {
					if healthy {
						return 0, false, false
					}
					return time.Duration(chance(30)) * time.Millisecond, chance(6) == 0, chance(12) == 0
				}}
				s, err := New(t.Context(), Options{
					Outbox: broken, Transport: w, Schedule: schedule, DisableAfter: 1e6 * time.Hour,
					Sinks: []SinkOptions{{Name: "sink", URL: "http://sink.test", Timeout: 2 * time.Second, Concurrency: 4}},
				})
				if err != nil {
					t.Fatal(err)
				}
				return s, broken
			}
			for n := range lives {
				s, broken := life(false)
				for seq := range burst { // while it delivers
					for i := range subjects {
						memory.Publish(ev(fmt.Sprintf("s%d-", i), uint64(n*burst+seq)))
					}
					<-time.After(time.Duration(chance(1500)) * time.Millisecond)
				}
				if chance(2) == 0 { // killed: nothing more is stored
					broken.mu.Lock()
					broken.fault = func(string) (time.Duration, bool, bool) { return 0, true, false }
					broken.mu.Unlock()
				}
				stop(s, time.Duration(chance(2))*time.Duration(chance(3000))*time.Millisecond)
			}
			s, _ := life(true)
			defer stop(s, 0)
			<-time.After(24 * time.Hour)
			sink.want(t, subjects, lives*burst)
			if b, err := memory.Backlog(t.Context(), "sink"); err != nil || b.Pending+b.Behind+b.Dead != 0 {
				t.Errorf("seed %d: the backlog is %+v, %v, want none", seed, b, err)
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestOutboxThatFailsForAWhileLosesAndReordersNothing(t *testing.T) {
	for _, method := range []string{"Advance", "Due", "Hasten"} {
		for _, stored := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				sink := ledger{taken: map[string][]string{}}
				began := time.Now()
				down := func() bool { return time.Since(began) < 3*time.Minute } // the sink, for a Hasten
				w := &wire{answer: func(_ *http.Request, c call) (int, error) {
					if down() {
						return 500, nil
					}
					sink.take(c.id)
					return 200, nil
				}}
				o := &faulty{Outbox: NewMemory(MemoryOptions{})}
				o.fault = func(m string) (time.Duration, bool, bool) {
					bad := m == method && time.Since(began) < 10*time.Minute && time.Since(began) > time.Second
					return 0, bad && !stored, bad && stored
				}
				s, err := New(t.Context(), Options{Outbox: o, Transport: w, Sinks: []SinkOptions{{Name: "sink", URL: "http://sink.test"}}})
				if err != nil {
					t.Fatal(err)
				}
				defer stop(s, 0)
				for seq := range 5 {
					for i := range 20 {
						o.Publish(ev(fmt.Sprintf("s%d-", i), uint64(seq)))
					}
				}
				advance(10 * time.Minute)
				if n := o.called(); n > 3*600+500 {
					t.Errorf("%s: %d calls of an outbox that fails for ten minutes", method, n)
				}
				advance(3 * time.Minute)
				sink.want(t, 20, 5)
			})
		}
	}
}

func TestNothingSpinsWhileNothingHappens(t *testing.T) {
	for name, row := range map[string]struct {
		answer func(*http.Request, call) (int, error)
		before func(*testing.T, *Sender)
		fault  string
		most   int // calls of the outbox in an hour
	}{
		"idle":           {ok, nil, "", 0},
		"paused":         {ok, func(t *testing.T, s *Sender) { _ = s.Pause(t.Context(), "sink") }, "", 0},
		"disabled":       {status(410), nil, "", 0},
		"failing":        {status(500), nil, "", 300},
		"hanging":        {hang, nil, "", 300},
		"broken Advance": {status(500), nil, "Advance", 3700},
		"broken Due":     {status(500), nil, "Due", 2 * 3700},
		"paused, broken": {ok, func(t *testing.T, s *Sender) { _ = s.Pause(t.Context(), "sink") }, "Advance", 3700},
	} {
		synctest.Test(t, func(t *testing.T) {
			fault := ""
			o := &faulty{Outbox: NewMemory(MemoryOptions{})}
			o.fault = func(m string) (time.Duration, bool, bool) {
				if o.calls > 100_000 {
					panic(name + " spins")
				}
				return 0, m == fault, false
			}
			s, err := New(t.Context(), Options{
				Outbox: o, Transport: &wire{answer: row.answer}, DisableAfter: 1000 * time.Hour, Sinks: []SinkOptions{{Name: "sink", URL: "http://sink.test"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer stop(s, 0)
			synctest.Wait()
			o.mu.Lock()
			fault = row.fault
			o.mu.Unlock()
			if row.before != nil {
				row.before(t, s)
			}
			for i := range 500 {
				o.Publish(ev(fmt.Sprintf("s%d-", i), 1))
			}
			advance(time.Hour)
			began := o.called()
			advance(time.Hour)
			if got := o.called() - began; got > row.most {
				t.Errorf("%s: %d calls of the outbox in an hour, want at most %d", name, got, row.most)
			}
		})
	}
}

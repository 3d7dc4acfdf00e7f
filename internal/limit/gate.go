package limit

import (
	"container/list"
	"context"
	"errors"
	"runtime/metrics"
	"sync"
	"time"
)

// ErrOverloaded: more comes in than can be worked off.
var ErrOverloaded = errors.New("overloaded")

// A Gate bounds how many requests are worked on at a time, so that those let in are done soon however many come. Those that find it
// full wait, and are let in in their order. When more of them wait than are worked on, and the first has waited for longer than Patience,
// there is overload: then the one that came last is let in first, because it would not help anybody if all waited alike, and each was let
// in when its caller has left. A burst is worked off like that. If overload lasts for a second those that come have less time to be let
// in, and the others are refused, but not faster than at a pace: a refusal costs a tenth of a request and more, so that ten times the load
// would leave no time for anything else. A client's connection is held back meanwhile, and so is what it would send next.
//
// Overload ends when no more wait than are worked on. That the first has not waited for long is no sign of it, as the others are refused
// soon: those that come then would wait for longer than the others, and be let in when, late, nobody else is left.
//
// A request that begins to wait for the end of a job, or for events, leaves. One that takes long while there are processors to spare waits
// for something, too, such as its body or a job server, and loses its place. A Gate is safe for concurrent use.
type Gate struct {
	o GateOptions

	mu      sync.Mutex
	free    int
	inside  Place      // the list of those that are worked on, in the order in which they were let in
	queue   *list.List // of *entrant, in the order in which they came
	looks   bool       // look is to come
	over    time.Time  // when overload began; zero: there is none
	refusal time.Time  // when the latest that was refused is told
}

// GateOptions are the bounds of a Gate. All of them but Pace and Busy are needed.
type GateOptions struct {
	Places   int           // requests that are worked on at a time
	MaxQueue int           // requests that wait to be let in; beyond, the one that has waited longest is refused
	Patience time.Duration // of the one that has waited longest, beyond which there is overload, if more wait than Places
	Wait     time.Duration // for being let in, while overload has not lasted for a second
	Short    time.Duration // the same, when it has
	Pace     time.Duration // at least, between two refusals; but none is held back for more than a second
	Idle     time.Duration // how often it is looked whether a request waits for something else
	Busy     int           // goroutines that wait for a processor, beyond which none is to spare; 0: any number
}

// NewGate returns a Gate with nobody in it.
func NewGate(o GateOptions) *Gate {
	g := &Gate{o: o, free: o.Places, queue: list.New()}
	g.inside.prev, g.inside.next = &g.inside, &g.inside
	return g
}

// An entrant waits to be let in.
type entrant struct {
	came  time.Time
	place *Place
	done  chan struct{} // closed when it is decided
	in    bool          // it is let in; guarded by Gate.mu until done is closed
}

// Enter waits for a place, which is to be left. The error is ErrOverloaded, or ctx's. The nil Gate lets everybody in.
func (g *Gate) Enter(ctx context.Context, p *Place) error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.admit(p)
		g.mu.Unlock()
		return nil
	}
	if g.queue.Len() >= g.o.MaxQueue {
		g.decide(g.queue.Front(), false)
	}
	e := &entrant{came: time.Now(), place: p, done: make(chan struct{})}
	at := g.queue.PushBack(e)
	wait := g.o.Wait
	if !g.over.IsZero() && e.came.Sub(g.over) > lasting {
		wait = g.o.Short
	}
	if !g.looks {
		g.looks = true
		time.AfterFunc(g.o.Idle, g.look)
	}
	g.mu.Unlock()

	lapse := time.NewTimer(wait)
	defer lapse.Stop()
	select {
	case <-e.done:
	case <-lapse.C:
		g.giveUp(e, at)
	case <-ctx.Done():
		if g.giveUp(e, at); !e.in {
			return context.Cause(ctx)
		}
	}
	if !e.in {
		g.hold(ctx)
		return ErrOverloaded
	}
	return nil
}

// lasting is how long overload is taken for a burst.
const lasting = time.Second

// decide lets an entrant in or refuses it. g.mu is held.
func (g *Gate) decide(at *list.Element, in bool) {
	e := g.queue.Remove(at).(*entrant)
	if e.in = in; in {
		g.admit(e.place)
	}
	close(e.done)
}

// giveUp refuses an entrant that was not decided on meanwhile.
func (g *Gate) giveUp(e *entrant, at *list.Element) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-e.done:
	default:
		g.decide(at, false)
	}
}

// maxHold is how long a refusal is held back at most.
const maxHold = time.Second

// hold holds a refusal back until it is its turn.
func (g *Gate) hold(ctx context.Context) {
	g.mu.Lock()
	now := time.Now()
	if g.refusal = g.refusal.Add(g.o.Pace); g.refusal.Before(now) {
		g.refusal = now
	} else if last := now.Add(maxHold); g.refusal.After(last) {
		g.refusal = last
	}
	after := g.refusal.Sub(now)
	g.mu.Unlock()
	if after <= 0 {
		return
	}
	t := time.NewTimer(after)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// A Place is a request's in a Gate: one that is entered, left, and not used again. Whoever has not entered has left.
type Place struct {
	gate       *Gate
	since      time.Time
	prev, next *Place // in Gate.inside
}

// Leave gives the place away, if that is not done.
func (p *Place) Leave() {
	if p.gate == nil {
		return
	}
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	p.gate.leave(p)
}

// admit gives a free place to a request. g.mu is held.
func (g *Gate) admit(p *Place) {
	p.gate, p.since = g, time.Now()
	p.prev, p.next = g.inside.prev, &g.inside
	p.prev.next, p.next.prev = p, p
}

// leave takes a place, if it was not taken already, and gives it to the next who waits. g.mu is held.
func (g *Gate) leave(p *Place) {
	if p.next == nil {
		return
	}
	p.prev.next, p.next.prev = p.next, p.prev
	p.prev, p.next = nil, nil
	next := g.queue.Front()
	switch waiting := g.queue.Len(); {
	case waiting <= g.o.Places:
		g.over = time.Time{}
	case g.over.IsZero():
		if now := time.Now(); now.Sub(next.Value.(*entrant).came) > g.o.Patience {
			g.over = now
		}
	}
	if !g.over.IsZero() {
		next = g.queue.Back()
	}
	if next == nil {
		g.free++
		return
	}
	g.decide(next, true)
}

// look takes the places of those that, most likely, do not wait for a processor. It is done as long as somebody waits to be let in. What is
// left to do after a wait is little, and must be done.
func (g *Gate) look() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.busy() {
		for oldest := g.inside.next; oldest != &g.inside && time.Since(oldest.since) >= g.o.Idle; oldest = g.inside.next {
			g.leave(oldest)
		}
	}
	if g.looks = g.queue.Len() > 0; g.looks {
		time.AfterFunc(g.o.Idle, g.look)
	}
}

// busy reports whether the process has more to do than it has processors for.
func (g *Gate) busy() bool {
	if g.o.Busy == 0 {
		return false
	}
	s := []metrics.Sample{{Name: "/sched/goroutines/runnable:goroutines"}}
	metrics.Read(s)
	return s[0].Value.Kind() == metrics.KindUint64 && s[0].Value.Uint64() > uint64(g.o.Busy)
}

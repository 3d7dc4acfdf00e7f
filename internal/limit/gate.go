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
// full wait, and are let in in their order. When the first of them has waited for longer than Patience there is overload: then the one that
// came last is let in first, because it would not help anybody if all waited alike, and each was let in when its caller has left. A burst
// is worked off like that. If overload lasts for a second those that come have less time to be let in, and the others are refused, but
// not faster than at a pace: a refusal costs a tenth of a request and more, so that ten times the load would leave no time for anything
// else. A client's connection is held back meanwhile, and so is what it would send next.
//
// A request that begins to wait for the end of a job, or for events, leaves. One that takes long while there are processors to spare waits
// for something, too, such as its body or a job server, and loses its place. A Gate is safe for concurrent use.
type Gate struct {
	o GateOptions

	mu      sync.Mutex
	free    int
	queue   *list.List // of *entrant, in the order in which they came
	over    time.Time  // when overload began; zero: there is none
	refusal time.Time  // when the latest that was refused is told
}

// GateOptions are the bounds of a Gate. All of them but Pace and Busy are needed.
type GateOptions struct {
	Places   int           // requests that are worked on at a time
	MaxQueue int           // requests that wait to be let in; beyond, the one that has waited longest is refused
	Patience time.Duration // of the one that has waited longest, beyond which there is overload
	Wait     time.Duration // for being let in, while overload has not lasted for a second
	Short    time.Duration // the same, when it has
	Pace     time.Duration // at least, between two refusals; but none is held back for more than a second
	Idle     time.Duration // how often it is looked whether a request waits for something else
	Busy     int           // goroutines that wait for a processor, beyond which none is to spare; 0: any number
}

// NewGate returns a Gate with nobody in it.
func NewGate(o GateOptions) *Gate {
	return &Gate{o: o, free: o.Places, queue: list.New()}
}

// An entrant waits to be let in.
type entrant struct {
	came time.Time
	done chan struct{} // closed when it is decided
	in   bool          // it is let in; guarded by Gate.mu until done is closed
}

// Enter waits for a place, which is to be left. The error is ErrOverloaded, or ctx's. The nil Gate lets everybody in.
func (g *Gate) Enter(ctx context.Context) (*Place, error) {
	if g == nil {
		return nil, nil
	}
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return g.place(), nil
	}
	if g.queue.Len() >= g.o.MaxQueue {
		g.decide(g.queue.Front(), false)
	}
	e := &entrant{came: time.Now(), done: make(chan struct{})}
	at := g.queue.PushBack(e)
	wait := g.o.Wait
	if !g.over.IsZero() && e.came.Sub(g.over) > lasting {
		wait = g.o.Short
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
			return nil, context.Cause(ctx)
		}
	}
	if !e.in {
		g.hold(ctx)
		return nil, ErrOverloaded
	}
	return g.place(), nil
}

// lasting is how long overload is taken for a burst.
const lasting = time.Second

// decide lets an entrant in or refuses it. g.mu is held.
func (g *Gate) decide(at *list.Element, in bool) {
	e := g.queue.Remove(at).(*entrant)
	e.in = in
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

func (g *Gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := g.queue.Front()
	if next == nil {
		g.free++
		g.over = time.Time{}
		return
	}
	now := time.Now()
	switch late := now.Sub(next.Value.(*entrant).came) > g.o.Patience; {
	case !late:
		g.over = time.Time{}
	case g.over.IsZero():
		g.over = now
		fallthrough
	default:
		next = g.queue.Back()
	}
	g.decide(next, true)
}

// A Place is a request's in a Gate. The nil Place is of a request that needs none.
type Place struct {
	gate *Gate

	mu    sync.Mutex
	left  bool
	timer *time.Timer // looks whether the request waits for something else
}

func (g *Gate) place() *Place {
	p := &Place{gate: g}
	p.mu.Lock() // until the timer knows itself
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(g.o.Idle, p.look)
	return p
}

// Leave gives the place away, if that is not done.
func (p *Place) Leave() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.left {
		p.left = true
		p.timer.Stop()
		p.gate.leave()
	}
}

// look gives the place away unless the request, most likely, waits for a processor. It is given away for good: what is left to do after a
// wait is little, and must be done.
func (p *Place) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.left:
	case p.gate.busy():
		p.timer.Reset(p.gate.o.Idle)
	default:
		p.left = true
		p.gate.leave()
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

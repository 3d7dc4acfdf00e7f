package limit

import (
	"container/list"
	"context"
	"errors"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"
)

// ErrOverloaded: more comes in than can be worked off.
var ErrOverloaded = errors.New("overloaded")

// A Gate bounds how many requests are worked on at a time, so that those let in are done soon however many come. Those that find it
// full wait for a moment, and the one that came last is let in first: under overload it would not help anybody if all waited
// alike, and each was let in when its time is nearly over. The others are refused, but not faster than at a pace: a refusal costs a tenth
// of a request and more, so that ten times the load would leave no time for anything else. A client's connection is held back meanwhile,
// and so is what it would send next.
//
// A request that waits for something else, such as the end of a job, gives its place away after a while. It is safe for concurrent use.
type Gate struct {
	o GateOptions

	mu      sync.Mutex
	free    int
	queue   *list.List // of *entrant; who came last is last
	refusal time.Time  // when the latest that was refused is told
}

// GateOptions are the bounds of a Gate. All of them but Pace and Busy are needed.
type GateOptions struct {
	Places   int           // requests that are worked on at a time
	MaxQueue int           // requests that wait to be let in; beyond, the one that has waited longest is refused
	Wait     time.Duration // for being let in
	Pace     time.Duration // at least, between two refusals; but none is held back for more than a second
	Idle     time.Duration // after which a request that waits for something else gives its place away
	Busy     int           // goroutines that wait for a processor, beyond which it does not; 0: there may be any number
}

// NewGate returns a Gate with nobody in it.
func NewGate(o GateOptions) *Gate {
	return &Gate{o: o, free: o.Places, queue: list.New()}
}

// An entrant waits to be let in.
type entrant struct {
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
		return &Place{gate: g}, nil
	}
	if g.queue.Len() >= g.o.MaxQueue {
		g.decide(g.queue.Front(), false)
	}
	e := &entrant{done: make(chan struct{})}
	at := g.queue.PushBack(e)
	g.mu.Unlock()

	lapse := time.NewTimer(g.o.Wait)
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
	return &Place{gate: g}, nil
}

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
	if last := g.queue.Back(); last != nil {
		g.decide(last, true)
		return
	}
	g.free++
}

// A Place is a request's in a Gate. The nil Place is of a request that needs none.
type Place struct {
	gate *Gate
	once sync.Once
}

// Leave gives the place away, if that is not done.
func (p *Place) Leave() {
	if p != nil {
		p.once.Do(p.gate.leave)
	}
}

// Waits says that the request waits for something else, until resume is called. If that takes long the place is given away for good:
// what is left to do after a long wait is little, and must be done.
func (p *Place) Waits() (resume func()) {
	if p == nil {
		return nothing
	}
	var over atomic.Bool
	var t *time.Timer
	t = time.AfterFunc(time.Hour, func() { // by when it is reset, so that it knows itself
		switch {
		case over.Load():
		case p.gate.busy():
			t.Reset(p.gate.o.Idle)
		default:
			p.Leave()
		}
	})
	t.Reset(p.gate.o.Idle)
	return func() { over.Store(true); t.Stop() }
}

// busy reports whether the process has more to do than it has processors for. Then a request that waits most likely waits for that, as
// a sync job does that our own workers would have done long ago.
func (g *Gate) busy() bool {
	if g.o.Busy == 0 {
		return false
	}
	s := []metrics.Sample{{Name: "/sched/goroutines/runnable:goroutines"}}
	metrics.Read(s)
	return s[0].Value.Kind() == metrics.KindUint64 && s[0].Value.Uint64() > uint64(g.o.Busy)
}

package webhook

import "time"

const (
	patience   = 10          // failures in a row before a sink counts as failing
	slow       = time.Second // without a beginning attempt, of a callback's host that has as many under way as it may
	firstProbe = 5 * time.Second
	lastProbe  = time.Minute // what the pause between probes grows to, doubling
)

// A gate is a circuit breaker: it keeps a sink that fails from costing much, and from being trampled when it comes back. After ten
// failures in a row deliveries go one at a time, each a probe, with growing pauses; the first success opens it again. It belongs to
// one goroutine.
type gate struct {
	until    time.Time // nothing is sent before
	failures int       // in a row
	since    time.Time // the first of these
	pause    time.Duration
	inFlight int
	began    time.Time // the last attempt
}

// failed is a gate's that goes on failing where another has left off.
func failingGate() gate { return gate{failures: patience, pause: firstProbe / 2} }

func (g *gate) failing() bool { return g.failures >= patience }

// room reports whether one more delivery may be under way, of at most most.
func (g *gate) room(most int) bool {
	if g.failing() {
		most = 1
	}
	return g.inFlight < most
}

// stuck returns from when on a gate without room counts as one that will not have any soon.
func (g *gate) stuck() time.Time {
	if g.failing() {
		return g.began
	}
	return g.began.Add(slow)
}

// succeeded does not shorten until, which the sink itself may have asked for.
func (g *gate) succeeded() { g.failures = 0 }

// failed notes a failure, a probe's or another's, and that the sink asked for a pause of after. It reports whether the sink
// counts as failing because of it.
func (g *gate) failed(now time.Time, probe bool, after time.Duration) bool {
	if g.failures == 0 {
		g.since = now
	}
	g.failures++
	began := g.failures == patience
	switch {
	case began:
		g.pause = firstProbe
		after = max(after, g.pause)
	case probe:
		g.pause = min(2*g.pause, lastProbe)
		after = max(after, g.pause)
	}
	if until := now.Add(after); until.After(g.until) {
		g.until = until
	}
	return began
}

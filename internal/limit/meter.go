package limit

import (
	"container/list"
	"strconv"
	"time"

	"golang.org/x/time/rate"
)

// A meter is what one identity or function has used of its limits.
type meter struct {
	name  string
	rate  *rate.Limiter // nil: there is no limit
	under int           // requests under way
	idle  *list.Element // in meters.idle while nothing is under way
}

// maxIdle bounds the meters of identities with nothing under way, and of functions. Names come from outside: the subjects of tokens, and
// whatever is called. The meter that was idle longest is forgotten; its owner gains no more than a burst by that. Those that are not idle
// are bounded by the requests under way.
const maxIdle = 100_000

// meters are the meters of all identities, or of all functions. Limiter.mu guards them.
type meters struct {
	byName map[string]*meter
	idle   *list.List // the one that was used least recently first
}

func newMeters() meters { return meters{byName: map[string]*meter{}, idle: list.New()} }

// get returns a name's meter, with the limits of r.
func (m *meters) get(name string, r Rule) *meter {
	x := m.byName[name]
	switch {
	case x == nil:
		if m.idle.Len() >= maxIdle {
			oldest := m.idle.Remove(m.idle.Front()).(*meter)
			delete(m.byName, oldest.name)
		}
		x = &meter{name: name}
		m.byName[name] = x
		x.idle = m.idle.PushBack(x)
	case x.idle != nil:
		m.idle.MoveToBack(x.idle)
	}
	x.set(r)
	return x
}

// rate returns a name's meter for its rate. Without one none is kept: whoever makes up names would have those forgotten that have one.
func (m *meters) rate(name string, r Rule) *meter {
	if r.Rate == 0 {
		return &meter{}
	}
	return m.get(name, r)
}

// set gives a meter the rate of r, which may have changed. What was used stays used.
func (x *meter) set(r Rule) {
	switch {
	case r.Rate == 0:
		x.rate = nil
	case x.rate == nil:
		x.rate = rate.NewLimiter(rate.Limit(r.Rate), r.burst())
	case x.rate.Limit() != rate.Limit(r.Rate) || x.rate.Burst() != r.burst():
		x.rate.SetLimit(rate.Limit(r.Rate))
		x.rate.SetBurst(r.burst())
	}
}

// rated reports that there is no job left for now, and when there will be one.
func (x *meter) rated(r Rule, of string, now time.Time) error {
	if x.rate == nil {
		return nil
	}
	missing := 1 - x.rate.TokensAt(now)
	if after := time.Duration(missing / r.Rate * float64(time.Second)); after > 0 {
		return &Exceeded{Limit: "rate", Of: of, Max: strconv.FormatFloat(r.Rate, 'g', -1, 64) + " jobs a second", After: after}
	}
	return nil
}

// take takes the job that rated has found.
func (x *meter) take(now time.Time) {
	if x.rate != nil {
		x.rate.AllowN(now, 1)
	}
}

func (m *meters) begin(name string) {
	x := m.byName[name]
	if x.under++; x.idle != nil {
		m.idle.Remove(x.idle)
		x.idle = nil
	}
}

func (m *meters) end(name string) {
	x := m.byName[name]
	if x.under--; x.under == 0 {
		x.idle = m.idle.PushBack(x)
	}
}

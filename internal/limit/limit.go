// Package limit says how much each identity, each function and all of them together may have of the gateway.
package limit

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"gearman-gateway/internal/auth"
)

// Rule is what one identity, or one function for all identities together, may have. A zero field is no limit.
type Rule struct {
	Rate        float64       // jobs submitted a second
	Burst       int           // of them at once; 0: as many as Rate allows in a second, and at least one
	Concurrency int           // requests under way; of a function: submissions
	MaxJobs     int           // jobs that have not ended and that the gateway holds
	MaxBytes    int64         // of their workloads
	MaxWorkload int64         // of one job, in bytes
	MaxWait     time.Duration // of one request for the end of a job, or for events
}

func (r Rule) burst() int {
	if r.Burst > 0 {
		return r.Burst
	}
	return max(1, int(math.Ceil(r.Rate)))
}

// Rules are the rules of everybody and everything.
type Rules struct {
	Default    Rule            // of each identity that has none of its own; without access control, of everybody together
	Identities map[string]Rule // by name
	Functions  map[string]Rule // by name, or by a glob as auth.Identity has it: then of each function that matches
}

// identity returns the rule of an identity.
func (r *Rules) identity(name string) Rule {
	if own, ok := r.Identities[name]; ok {
		return own
	}
	return r.Default
}

// function returns the rule of a function: that of its name, else that of the longest glob.
func (r *Rules) function(name string) (rule Rule) {
	if own, ok := r.Functions[name]; ok {
		return own
	}
	longest := ""
	for glob, of := range r.Functions {
		// Of two globs of one length the lesser: which one counts must not change from call to call.
		better := len(glob) > len(longest) || len(glob) == len(longest) && glob < longest
		if better && (&auth.Identity{Functions: []string{glob}}).MayCall(name) {
			longest, rule = glob, of
		}
	}
	return rule
}

// Held is what the gateway holds of jobs that have not ended.
type Held struct {
	Jobs  int
	Bytes int64 // of their workloads
}

// Exceeded is why something is refused. Nothing was taken.
type Exceeded struct {
	Limit string        // as the configuration calls it, such as rate
	Of    string        // identity or function
	Max   string        // the limit itself
	After time.Duration // when it may be tried again; 0: nobody can tell
}

func (e *Exceeded) Error() string { return fmt.Sprintf("%s of the %s: %s", e.Limit, e.Of, e.Max) }

// Limiter applies rules. It is safe for concurrent use, and does not block. The nil Limiter limits nothing.
type Limiter struct {
	rules atomic.Pointer[Rules]

	mu         sync.Mutex
	identities meters
	functions  meters
}

// New returns a Limiter of rules, which are not changed any more.
func New(r Rules) *Limiter {
	l := &Limiter{identities: newMeters(), functions: newMeters()}
	l.Reload(r)
	return l
}

// Reload replaces the rules. What was used of a limit stays used.
func (l *Limiter) Reload(r Rules) { l.rules.Store(&r) }

// Identity and Function return the rules as they are now.
func (l *Limiter) Identity(name string) Rule { return l.load().identity(name) }
func (l *Limiter) Function(name string) Rule { return l.load().function(name) }

func (l *Limiter) load() *Rules {
	if l == nil {
		return &Rules{}
	}
	return l.rules.Load()
}

// Enter begins a request of an identity, which ends with leave. One that is to submit is refused already here when no job could be
// submitted now: before it has cost anything.
func (l *Limiter) Enter(identity string, submits bool) (leave func(), err error) {
	if l == nil {
		return nothing, nil
	}
	r := l.Identity(identity)
	if submits && r.Rate > 0 {
		l.mu.Lock()
		err := l.identities.get(identity, r).rated(r, "identity", time.Now())
		l.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	return l.begin(&l.identities, identity, r, "identity")
}

// Submit takes a job from the rates of an identity and of a function, and begins its submission, which ends with leave.
func (l *Limiter) Submit(identity, function string) (leave func(), err error) {
	if l == nil {
		return nothing, nil
	}
	rules := l.load()
	i, f := rules.identity(identity), rules.function(function)
	leave, err = l.begin(&l.functions, function, f, "function")
	if err == nil && (i.Rate > 0 || f.Rate > 0) {
		if err = l.take(identity, i, function, f); err != nil {
			leave()
		}
	}
	return leave, err
}

// Repeat takes one from the rate of an identity, for something that is sent once more for it and is no job.
func (l *Limiter) Repeat(identity string) error {
	r := l.Identity(identity)
	if r.Rate == 0 {
		return nil
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	who := l.identities.get(identity, r)
	err := who.rated(r, "identity", now)
	if err == nil {
		who.take(now)
	}
	return err
}

// take takes one from both rates, or from none.
func (l *Limiter) take(identity string, i Rule, function string, f Rule) error {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	who, what := l.identities.rate(identity, i), l.functions.rate(function, f)
	if err := who.rated(i, "identity", now); err != nil {
		return err
	}
	if err := what.rated(f, "function", now); err != nil {
		return err
	}
	who.take(now)
	what.take(now)
	return nil
}

func nothing() {}

// begin counts what is under way.
func (l *Limiter) begin(m *meters, name string, r Rule, of string) (leave func(), err error) {
	if r.Concurrency == 0 {
		return nothing, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := m.get(name, r); x.under >= r.Concurrency {
		return nil, &Exceeded{Limit: "concurrency", Of: of, Max: fmt.Sprint(r.Concurrency), After: time.Second}
	}
	m.begin(name)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		m.end(name)
	}, nil
}

// Room reports why a job of an identity and a function, with a workload of size bytes, must not be held, with what is held already of
// either.
func (l *Limiter) Room(identity, function string, size int64, owned, called Held) error {
	rules := l.load()
	if err := rules.identity(identity).room("identity", size, owned); err != nil {
		return err
	}
	return rules.function(function).room("function", size, called)
}

func (r Rule) room(of string, size int64, held Held) error {
	switch {
	case r.MaxJobs > 0 && held.Jobs >= r.MaxJobs:
		return &Exceeded{Limit: "max_jobs", Of: of, Max: fmt.Sprint(r.MaxJobs)}
	case r.MaxBytes > 0 && held.Bytes+size > r.MaxBytes:
		return &Exceeded{Limit: "max_bytes", Of: of, Max: fmt.Sprint(r.MaxBytes)}
	}
	return nil
}

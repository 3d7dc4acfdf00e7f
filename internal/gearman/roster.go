package gearman

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Roster is what Workers can do, and how much of it: several of them may share one, and then share its limits. It is safe for
// concurrent use, and no method blocks.
//
// A place for a job of a function is taken before a job is asked for, as a slot is: each request takes one of every function that
// has any left, and its reply gives back all but that of the job. A connection asks only when it has a place for all that is registered
// on it. What it has none for it takes back with CANT_DO, which the job server then gives to other workers, and registers it again
// with CAN_DO when a place is free. So no worker ever holds a job that it cannot run at once.
//
// But at CANT_DO gearmand queues the jobs of that function anew which run on the connection, and they run twice. A connection that
// would have to take back such a function is left to its jobs instead, and a new one takes its place. That is for functions that
// are gone or paused; a function with limits of its own should have a Roster of its own, whose connections just do not ask while it is full.
type Roster struct {
	mu        sync.Mutex
	functions map[string]*duty
	changed   chan struct{} // closed, and made anew, when a connection may have to register something or take it back
}

// Ability is how jobs of one function are run. It is not changed once it is in a Roster, and is in one only, once.
type Ability struct {
	// Run runs a job on a goroutine of its own, and ends it with Complete, Fail or Exception before it returns. The place and the
	// slot are free again when it has returned.
	Run         func(*Assignment)
	Concurrency int     // jobs at a time; 0: as many as there are slots
	Rate        float64 // jobs begun a second; as many as may begin in a second, at least one, may begin at once. 0: any number
	// Paused: no jobs are asked for. Job servers see no difference to a function that the Roster does not have, but the limits go on
	// counting, and the ability is in use.
	Paused bool
	// Unused is called once, when the Roster does not have the ability any more and its last job has ended: it will get no job after
	// that. It must not block; may be nil.
	Unused func()

	needed int // by requests and jobs
	off    bool
}

// duty is one function in a Roster.
type duty struct {
	now    *Ability // nil: taken off, but jobs of it are left
	asked  int      // places that requests have
	taken  int      // places that jobs have, those of earlier abilities too
	pace   *rate.Limiter
	waking bool // changed is to be told when the pace allows another job
}

// offered says whether jobs of the function are wanted, when there are places.
func (d *duty) offered() bool { return d.now != nil && !d.now.Paused }

// NewRoster returns a roster with the abilities, by function.
func NewRoster(abilities map[string]*Ability) *Roster {
	r := &Roster{functions: map[string]*duty{}, changed: make(chan struct{})}
	r.Set(abilities)
	return r
}

// Set replaces all abilities. Jobs that run go on, and count against the limits of the new ability for their function. A request that
// is on its way may still bring a job of an old one, which runs it.
func (r *Roster) Set(abilities map[string]*Ability) {
	var unused []*Ability
	r.mu.Lock()
	for name, d := range r.functions {
		unused = d.replace(abilities[name], unused)
		r.clear(name, d)
	}
	for name, a := range abilities {
		if r.functions[name] == nil {
			d := &duty{}
			d.replace(a, nil)
			r.functions[name] = d
		}
	}
	r.tell()
	r.mu.Unlock()
	tellUnused(unused)
}

func (d *duty) replace(a *Ability, unused []*Ability) []*Ability {
	old := d.now
	d.now = a
	if old != nil {
		old.off = true
		if old.needed == 0 {
			unused = append(unused, old)
		}
	}
	switch {
	case a == nil || a.Rate <= 0:
		d.pace = nil
	case d.pace == nil:
		d.pace = rate.NewLimiter(rate.Limit(a.Rate), burst(a.Rate))
	case d.pace.Limit() != rate.Limit(a.Rate):
		d.pace.SetLimit(rate.Limit(a.Rate))
		d.pace.SetBurst(burst(a.Rate))
	}
	return unused
}

func burst(perSecond float64) int { return max(1, int(perSecond)) }

func tellUnused(abilities []*Ability) {
	for _, a := range abilities {
		if a.Unused != nil {
			a.Unused()
		}
	}
}

// clear forgets a function that nothing is left of. r.mu is held, here and below.
func (r *Roster) clear(name string, d *duty) {
	if d.now == nil && d.asked+d.taken == 0 {
		delete(r.functions, name)
	}
}

func (r *Roster) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// full says that no place will be free before a job ends, or time passes.
func (r *Roster) full(d *duty) bool { return r.within(d, d.taken, 0) }

// busy says that no place is free now; a request that is on its way may give one back.
func (r *Roster) busy(d *duty) bool { return r.within(d, d.taken+d.asked, d.asked) }

func (r *Roster) within(d *duty, taken, asked int) bool {
	if d.now.Concurrency > 0 && taken >= d.now.Concurrency {
		return true
	}
	if d.pace == nil {
		return false
	}
	tokens := d.pace.Tokens()
	if tokens < 1 {
		r.wakeIn(d, time.Duration((1-tokens)/float64(d.pace.Limit())*float64(time.Second)))
	}
	return tokens-float64(asked) < 1
}

func (r *Roster) wakeIn(d *duty, pause time.Duration) {
	if d.waking {
		return
	}
	d.waking = true
	time.AfterFunc(max(pause, time.Millisecond), func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		d.waking = false
		r.tell()
	})
}

// places are what one request for a job has, by function.
type places map[string]*Ability

// reserve takes a place of each function that has one free. changed is closed when that may be a different lot.
func (r *Roster) reserve() (p places, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p = make(places, len(r.functions))
	for name, d := range r.functions {
		if d.offered() && !r.busy(d) {
			d.asked++
			d.now.needed++
			p[name] = d.now
		}
	}
	return p, r.changed
}

// settle gives back what a request has, but the place of the job that it brought: function is that job's, "" if there was none. The
// ability is to run it; nil if there is none.
func (r *Roster) settle(p places, function string) *Ability {
	var unused []*Ability
	tell := false
	r.mu.Lock()
	for name, a := range p {
		d := r.functions[name]
		was := d.now != nil && r.busy(d)
		d.asked--
		if name == function {
			d.taken++
			if d.pace != nil {
				d.pace.Allow()
			}
			tell = tell || d.now != nil && r.full(d) // connections that sleep are to take it back
			continue
		}
		tell = tell || was && !r.busy(d)
		unused = a.letGo(unused)
		r.clear(name, d)
	}
	if tell {
		r.tell()
	}
	r.mu.Unlock()
	tellUnused(unused)
	return p[function]
}

// ended gives back the place of a job.
func (r *Roster) ended(function string, a *Ability) {
	r.mu.Lock()
	d := r.functions[function]
	was := d.now != nil && r.busy(d)
	d.taken--
	if was && !r.busy(d) {
		r.tell()
	}
	unused := a.letGo(nil)
	r.clear(function, d)
	r.mu.Unlock()
	tellUnused(unused)
}

func (a *Ability) letGo(unused []*Ability) []*Ability {
	if a.needed--; a.off && a.needed == 0 {
		return append(unused, a)
	}
	return unused
}

// has says whether there is such a function, and it is not paused.
func (r *Roster) has(function string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.functions[function]
	return d != nil && d.offered()
}

// open returns the functions that are to be registered on a new connection.
func (r *Roster) open() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name, d := range r.functions {
		if d.offered() && !r.full(d) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// review says what a connection that has registered some functions is to take back while it sleeps, and whether there is more that
// it should ask for. changed is closed when that may be different.
func (r *Roster) review(registered map[string]bool) (back []string, more bool, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range registered {
		if d := r.functions[name]; d == nil || !d.offered() || r.full(d) {
			back = append(back, name)
		}
	}
	for name, d := range r.functions {
		more = more || !registered[name] && d.offered() && !r.busy(d)
	}
	return back, more, r.changed
}

package workerpool

import "maps"

// Pause has the pool take no more jobs of a function: they wait with the job servers, where other workers can have them. Jobs that run
// go on, and so does one that a job server was just assigning. It lasts until Resume, over reloads and over workers that leave at a
// limit, but not longer than the pool. It reports whether the function is one of the pool's; one that is paused stays so.
//
// Pause does not block, and is safe for concurrent use.
func (p *Pool) Pause(function string) (own bool) { return p.pause(function, true) }

// Resume has the pool take jobs of a function again, as Pause is undone. What it reports is the same.
func (p *Pool) Resume(function string) (own bool) { return p.pause(function, false) }

// Paused reports whether a function is paused, and whether it is one of the pool's at all.
func (p *Pool) Paused(function string) (paused, own bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, own = p.functions[function]
	return p.paused[function], own
}

// pause goes the way of a Reload, which already knows how to take a function back whose jobs run: its connection is left to them.
func (p *Pool) pause(function string, on bool) (own bool) {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	was, own := p.Paused(function)
	if !own || was == on {
		return own
	}
	p.mu.Lock()
	if on {
		p.paused[function] = true
	} else {
		delete(p.paused, function)
	}
	functions := maps.Clone(p.functions)
	p.mu.Unlock()
	p.apply(functions)
	return true
}

package workerpool

import (
	"maps"
	"slices"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// Reload replaces the functions and the limits, of which there may be none. New functions are registered with the job servers
// and old ones taken back; jobs that run go on with the handlers that they have, and so may a job that was just assigned. A handler
// that no function has any more, and that has a method Close, is closed when its last run has ended: see Options.Functions. Limits
// count from when the worker began. A function that is paused stays so, unless it is among the old ones.
//
// After an error nothing has changed, and the handlers are still the caller's. It is ErrStopped once Stop was called. Reload does not
// block, and is safe for concurrent use.
func (p *Pool) Reload(functions map[string]Function, limits Limits) error {
	if err := check(functions); err != nil {
		return err
	}
	if err := limits.check(); err != nil {
		return err
	}
	p.reloading.Lock()
	defer p.reloading.Unlock()
	if p.soft.Err() != nil {
		return ErrStopped
	}
	p.mu.Lock()
	p.limits = limits
	l := p.life
	p.mu.Unlock()
	d := event.Data{Rest: &event.Rest{Functions: slices.Sorted(maps.Keys(functions))}}
	for _, server := range p.o.Servers {
		d.Servers = append(d.Servers, server.Addr)
	}
	told := l != nil && l.ctx.Err() == nil
	if told {
		l.publish(event.WorkerOnBeforeRegisterFunctions, d)
	}
	p.apply(functions)
	if told {
		l.publish(event.WorkerOnAfterRegisterFunctions, d)
		l.reconsider()
	}
	return nil
}

// apply puts functions in the place of those that are there. p.reloading is held, but by New.
func (p *Pool) apply(functions map[string]Function) {
	abilities, alone := map[string]*gearman.Ability{}, map[string]*gearman.Ability{}
	for name, f := range functions {
		p.hold(f.Handler)
		a := &gearman.Ability{
			Run: func(a *gearman.Assignment) { p.run(&f, a) }, Concurrency: f.Concurrency, Rate: f.Rate,
			Paused: p.paused[name], Unused: func() { p.letGo(f.Handler) },
		}
		if f.limited(p.o.Concurrency) {
			alone[name] = a
		} else {
			abilities[name] = a
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.functions = maps.Clone(functions)
	maps.DeleteFunc(p.paused, func(name string, _ bool) bool { _, there := functions[name]; return !there })
	p.main.Set(abilities)
	for name, roster := range p.apart {
		if alone[name] == nil {
			roster.Set(nil)
			delete(p.apart, name)
			if p.life != nil {
				p.life.part(name)
			}
		}
	}
	for name, a := range alone {
		one := map[string]*gearman.Ability{name: a}
		if roster := p.apart[name]; roster != nil {
			roster.Set(one)
			continue
		}
		p.apart[name] = gearman.NewRoster(one)
		if p.life != nil {
			p.life.join(name, p.apart[name])
		}
	}
}

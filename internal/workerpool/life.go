package workerpool

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// life is one worker, as job servers and events know it: an ID, and connections to each job server. One speaks for all functions
// without limits, and its events are the worker's; each function with limits has its own beside it.
type life struct {
	p     *Pool
	id    string
	began time.Time
	jobs  atomic.Int64 // that have ended
	ctx   context.Context
	quit  context.CancelFunc // called with p.mu held: nothing joins workers after that
	up    []chan struct{}    // closed, by server, when the first connection has registered its functions
	done  sync.WaitGroup     // the workers' goroutines

	// guarded by p.mu
	workers map[*gearman.Worker]struct{}  // that run
	leaving map[string]context.CancelFunc // ends the connections of a function with limits
	reason  string                        // why it leaves, if that is a limit
	exit    bool                          // and nobody follows
	busy    int
	idle    *time.Timer // runs while there is nothing to do

	events sync.Mutex // makes the order of events that of their seq
	seq    uint64
	told   [1]event.Event // what is published: large, and so not on the stack
}

// begin starts the next worker; nil when the pool stops.
func (p *Pool) begin() *life {
	p.mu.Lock()
	if p.soft.Err() != nil {
		p.mu.Unlock()
		return nil
	}
	p.lives++
	l := &life{p: p, id: p.o.ID, began: time.Now(), workers: map[*gearman.Worker]struct{}{}, leaving: map[string]context.CancelFunc{}}
	for range p.o.Servers {
		l.up = append(l.up, make(chan struct{}))
	}
	if p.lives > 1 {
		l.id += "-" + strconv.Itoa(p.lives)
	}
	l.ctx, l.quit = context.WithCancel(p.soft)
	p.mu.Unlock()

	l.publish(event.WorkerBeforeRun, event.Data{Rest: &event.Rest{Functions: p.names()}})
	l.checkMemory()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.life = l
	l.join("", p.main)
	for name, roster := range p.apart {
		l.join(name, roster)
	}
	return l
}

// join connects to each job server for a roster: that of the functions without limits, whose name is "", or of the one with the
// name. p.mu is held.
func (l *life) join(name string, roster *gearman.Roster) {
	if l.ctx.Err() != nil {
		return
	}
	ctx, leave := context.WithCancel(l.ctx)
	l.leaving[name] = leave
	for i, server := range l.p.o.Servers {
		up := sync.OnceFunc(func() { close(l.up[i]) })
		w := gearman.NewWorker(gearman.WorkerOptions{
			Options: server, ID: l.id, Roster: roster, Slots: l.p.slots,
			Notify: func(e gearman.WorkerEvent, cause error) {
				if name == "" || e == gearman.WorkerNoJobs || e == gearman.WorkerIOWait {
					l.notify(server.Addr, e, cause)
				}
				if name == "" && e == gearman.WorkerRegistered {
					up()
				}
			},
		})
		l.workers[w] = struct{}{}
		l.done.Go(func() {
			if name != "" { // so that what it tells comes after the first connection's
				select {
				case <-l.up[i]:
				case <-ctx.Done():
				}
			}
			w.Run(ctx)
			l.p.mu.Lock()
			delete(l.workers, w)
			l.p.mu.Unlock()
		})
	}
}

// part ends the connections of a function with limits when their jobs have ended. p.mu is held.
func (l *life) part(name string) {
	if leave := l.leaving[name]; leave != nil {
		leave()
		delete(l.leaving, name)
	}
}

// leave makes the worker leave because of a limit.
func (l *life) leave(reason string, exit bool) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.ctx.Err() != nil {
		l.exit = l.exit || exit && l.reason != ""
		return
	}
	l.reason, l.exit = reason, exit || l.p.limits.OnLimit == Exit
	l.quit()
}

// end waits until the worker has left, and tells so.
func (l *life) end() (reason string, exit bool) {
	l.done.Wait()
	l.p.mu.Lock()
	l.wake()
	l.quit() // the functions' own contexts, if nobody has
	reason, exit = l.reason, l.exit
	l.p.mu.Unlock()
	l.publish(event.WorkerOnBeforeDestroy, event.Data{Reason: reason})
	return reason, exit
}

// follow has one worker follow the other until the pool stops, or a limit says that it is enough.
func (p *Pool) follow(l *life) {
	for l != nil {
		reason, exit := l.end()
		if reason != "" {
			p.o.Log.Info().Str("worker", l.id).Str("reason", reason).Bool("exit", exit).Msg("worker has left at a limit")
		}
		if exit {
			if p.soft.Err() == nil {
				p.o.Exit(reason)
			}
			return
		}
		l = p.begin()
	}
}

// notify turns what a connection does into the events that dmank/gearman has for it.
func (l *life) notify(server string, e gearman.WorkerEvent, cause error) {
	d := event.Data{Rest: &event.Rest{Servers: []string{server}}}
	switch e {
	case gearman.WorkerConnecting:
		l.publish(event.WorkerServerOnConnect, d)
	case gearman.WorkerConnected:
		l.publish(event.WorkerServerOnConnected, d)
	case gearman.WorkerRegistering:
		d.Functions = l.p.names()
		l.publish(event.WorkerOnBeforeRegisterFunctions, d)
	case gearman.WorkerRegistered:
		d.Functions = l.p.names()
		l.publish(event.WorkerOnAfterRegisterFunctions, d)
	case gearman.WorkerNoJobs:
		l.publish(event.WorkerOnNoJobs, d)
		l.publish(event.WorkerOnWork, d)
		l.noJobs()
	case gearman.WorkerIOWait:
		l.publish(event.WorkerOnIOWait, d)
	case gearman.WorkerLost:
		d.Reason = cause.Error()
		l.publish(event.WorkerOnFailure, d)
	}
}

// names returns the functions that the pool has, sorted.
func (p *Pool) names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.functions))
}

func (l *life) publish(t event.Type, d event.Data) {
	if l.p.o.Events == nil {
		return
	}
	d.Worker = l.id
	l.events.Lock()
	defer l.events.Unlock()
	l.seq++
	l.told[0] = event.New(t, l.id, l.seq, time.Now(), d)
	l.p.o.Events.Publish(l.told[:]...)
	l.told[0] = event.Event{}
}

package workerpool

import (
	"time"

	"gearman-gateway/internal/event"
)

// A Meter counts what the pool has run. It is called from many goroutines, and must not block.
type Meter interface {
	// RunEnded is told of each run, with its outcome: RunCompleted, RunHandedBack, or the kind of its failure, of which there are few.
	RunEnded(function, outcome string, took time.Duration)
}

// Outcomes of runs besides the kinds of failures.
const (
	RunCompleted  = "completed"
	RunHandedBack = "handed_back" // the pool stopped, and the job server gives the job to another worker
)

func (r *run) meter(took time.Duration) {
	if r.p.o.Meter == nil {
		return
	}
	outcome := RunCompleted
	switch {
	case r.d.Reason == event.HandedBack:
		outcome = RunHandedBack
	case r.d.Error != nil:
		outcome = r.d.Error.Kind
	}
	r.p.o.Meter.RunEnded(r.a.Function, outcome, took)
}

// Stats are what a pool is and does.
type Stats struct {
	Slots     int // jobs that may run at a time
	Busy      int // jobs that run
	Functions int // that it has handlers for
	Lives     int // workers that have begun, one after the other
}

// Stats returns what the pool does now. It does not block.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{Slots: p.o.Concurrency, Busy: int(p.running.Load()), Functions: len(p.functions), Lives: p.lives}
}

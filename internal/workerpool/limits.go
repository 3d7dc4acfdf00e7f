package workerpool

import (
	"errors"
	"fmt"
	"time"
)

// Limits say when a worker has done enough, as the subscribers of dmank/gearman do; 0 means never. It then takes no more jobs, finishes
// those that run, tells event.WorkerOnBeforeDestroy with the reason, and is gone; what comes next is up to OnLimit.
type Limits struct {
	// MaxRuntime is looked at after each job: a worker that has none stays.
	MaxRuntime time.Duration
	// MemoryLimit is in bytes of the process's resident set, where the system tells it, else of what the Go runtime has from the system. A
	// worker leaves when it has MemoryLimit/1.2, at its start or after a job. That always is OnLimit Exit: what comes next in the same process
	// would be as large.
	MemoryLimit int64
	// IdleTimeout is how long a worker has nothing to do: since its last job ended, or a job server first said that there is none.
	IdleTimeout time.Duration
	// MaxJobs is how many jobs a worker runs; with others that run when it has ended that many, it may be more.
	MaxJobs int
	// OnLimit is what follows; "": Restart.
	OnLimit OnLimit
}

// OnLimit is what follows the end of a worker that has reached a limit.
type OnLimit string

// The choices.
const (
	Restart OnLimit = "restart" // another worker begins, with an ID and connections of its own
	Exit    OnLimit = "exit"    // Options.Exit is called, and the pool runs no more jobs
)

func (o *Limits) check() error {
	switch {
	case o.MaxRuntime < 0, o.MemoryLimit < 0, o.IdleTimeout < 0, o.MaxJobs < 0:
		return errors.New("a limit of the worker is negative")
	case o.OnLimit != "" && o.OnLimit != Restart && o.OnLimit != Exit:
		return fmt.Errorf("%q does not say what is to follow a limit: it is %q or %q", o.OnLimit, Restart, Exit)
	}
	return nil
}

// checkMemory makes the worker leave that is too large.
func (l *life) checkMemory() {
	limit := l.p.currentLimits().MemoryLimit
	if limit <= 0 {
		return
	}
	if used := l.p.o.Memory(); float64(used) >= float64(limit)/1.2 {
		l.leave(fmt.Sprintf("memory limit: %d bytes are in use, of %d", used, limit), true)
	}
}

// afterJob counts a job and looks at the limits.
func (l *life) afterJob() {
	o := l.p.currentLimits()
	n := l.jobs.Add(1)
	if o.MaxJobs > 0 && n >= int64(o.MaxJobs) {
		l.leave(fmt.Sprintf("job limit: %d jobs were run", n), false)
	}
	if ran := time.Since(l.began); o.MaxRuntime > 0 && ran >= o.MaxRuntime {
		l.leave(fmt.Sprintf("runtime limit: it ran for %v", ran.Round(time.Millisecond)), false)
	}
	l.checkMemory()
}

// noJobs is what a worker does whose job server has none.
func (l *life) noJobs() {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.rest()
}

// rest starts the time of a worker that has nothing to do, if it has not been started; wake ends it. p.mu is held, as for wake.
func (l *life) rest() {
	o := l.p.limits
	if l.idle != nil || l.busy > 0 || o.IdleTimeout <= 0 || l.ctx.Err() != nil {
		return
	}
	var idle *time.Timer
	idle = time.AfterFunc(o.IdleTimeout, func() {
		l.p.mu.Lock()
		over := l.idle == idle
		l.p.mu.Unlock()
		if over {
			l.leave(fmt.Sprintf("idle limit: no job for %v", o.IdleTimeout), false)
		}
	})
	l.idle = idle
}

// reconsider begins the time of a worker that has nothing to do anew.
func (l *life) reconsider() {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.wake()
	l.rest()
}

// work counts the jobs that run.
func (l *life) work(n int) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.busy += n
	l.wake()
	l.rest()
}

// wake ends the time of a worker that has nothing to do.
func (l *life) wake() {
	if l.idle != nil {
		l.idle.Stop()
		l.idle = nil
	}
}

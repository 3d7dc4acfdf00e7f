package ledger

import (
	"container/heap"
	"context"
	"time"
)

// clock does things to jobs at their times: due jobs are submitted, deadlines enforced, doubtful jobs asked for. The gateway keeps
// its own clock, because gearmand 1.1.20 does not wake workers for a job whose SUBMIT_JOB_EPOCH has come.
type clock struct {
	alarms alarms
	rung   chan struct{} // has an element when the first alarm has changed
}

// alarm is one thing to do. It finds out itself whether it still makes sense.
type alarm struct {
	at    time.Time
	do    func(ctx context.Context)
	index int // in alarms; -1 when it is not there any more
}

// atOnce bounds how many submits and questions to job servers are under way that no caller waits for.
const atOnce = 256

func newClock() clock {
	return clock{rung: make(chan struct{}, 1)}
}

// set puts an alarm. The ledger's lock is held.
func (c *clock) set(at time.Time, do func(ctx context.Context)) *alarm {
	a := &alarm{at: at, do: do}
	heap.Push(&c.alarms, a)
	if a.index == 0 {
		select {
		case c.rung <- struct{}{}:
		default:
		}
	}
	return a
}

// unset takes an alarm away, which may be nil or gone. The ledger's lock is held.
func (c *clock) unset(a *alarm) {
	if a != nil && a.index >= 0 {
		heap.Remove(&c.alarms, a.index)
	}
}

// run hands what is due to begin, one at a time, until ctx ends.
func (l *Ledger) run(ctx context.Context, c *clock, begin func(do func(context.Context))) {
	t := time.NewTimer(0)
	defer t.Stop()
	for ctx.Err() == nil {
		do, wait := l.due(c)
		if do != nil {
			begin(do)
			continue
		}
		t.Reset(wait)
		select {
		case <-t.C:
		case <-c.rung:
		case <-ctx.Done():
		}
	}
}

// apart does something on a goroutine of its own, as soon as there is a slot for it.
func (l *Ledger) apart(ctx context.Context, do func(context.Context)) {
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	l.running.Go(func() {
		defer func() { <-l.slots }()
		do(ctx)
	})
}

// due takes the first alarm whose time has come, or says how long it is until then.
func (l *Ledger) due(c *clock) (do func(context.Context), wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(c.alarms) == 0 {
		return nil, time.Hour
	}
	if wait = time.Until(c.alarms[0].at); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&c.alarms).(*alarm).do, 0
}

// alarms is a heap by time.
type alarms []*alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].at.Before(a[j].at) }

func (a alarms) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].index, a[j].index = i, j
}

func (a *alarms) Push(x any) {
	x.(*alarm).index = len(*a)
	*a = append(*a, x.(*alarm))
}

func (a *alarms) Pop() any {
	last := len(*a) - 1
	x := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	x.index = -1
	return x
}

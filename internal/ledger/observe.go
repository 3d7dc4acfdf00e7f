package ledger

import (
	"cmp"
	"context"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// Observe enters what our own pool does with a job. The pool calls it before it tells the job server, so that nobody who hears
// of the job from there finds less in the ledger. For each run it is called with event.FunctionBeforeExecute first, then with
// JobProgress, JobData and JobWarning, and last with FunctionAfterExecute or FunctionOnFailure. The events of a job that a
// foreign client submitted are told as well; no record is kept of it.
func (l *Ledger) Observe(a *gearman.Assignment, t event.Type, d *event.Data) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t == event.FunctionBeforeExecute {
		l.begin(a)
	}
	j := l.runs[a]
	if j == nil { // its handler left somebody behind who speaks on
		return
	}
	result, verdict := d.Result, d.Verdict
	d.Result, d.Verdict = nil, nil                                 // what an event of the function does not say: the result is told by the job's
	live := j.live() && j.ID != "" && (j.run == a || j.run == nil) // a foreign client's job has no record
	switch t {
	case event.FunctionBeforeExecute:
		if live {
			l.started(j)
		}
		l.apply(j, t, d)
	case event.JobProgress:
		if live {
			l.progress(j, *d.Progress)
		}
	case event.JobData:
		if live {
			l.data(j, d.Chunk)
		}
	case event.JobWarning:
		if live {
			l.warning(j, d.Chunk)
		}
	case event.FunctionAfterExecute:
		l.leave(a, j)
		l.apply(j, t, d)
		switch {
		case live:
			l.complete(j, result)
		case j.ID == "":
			l.logEnd(j, Completed, "", millis(d.DurationMS))
		}
	case event.FunctionOnFailure:
		l.leave(a, j)
		l.apply(j, t, d)
		switch {
		case live && d.Reason == event.HandedBack:
			l.handedBack(j)
		case live:
			l.fail(j, *d.Error, cmp.Or(verdict, &event.Verdict{}))
		case j.ID == "" && d.Reason != event.HandedBack:
			l.logEnd(j, Failed, d.Error.Kind, millis(d.DurationMS))
		}
	}
}

func millis(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// Begin returns what is known of the job of a run of our own pool that Observe has heard the beginning of; zero for a foreign
// client's job, for which it reads the store.
func (l *Ledger) Begin(a *gearman.Assignment) event.Facts {
	facts, known := l.runOf(a)
	if !known && l.stored && a.Unique != "" { // ours always have one
		return l.lateBefore(a)
	}
	return facts
}

func (l *Ledger) runOf(a *gearman.Assignment) (facts event.Facts, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	j := l.runs[a]
	switch {
	case j == nil:
		return event.Facts{}, true
	case j.ID != "":
		return j.facts(), true
	}
	// It may be one of ours that has ended because it was late, and that the job server did not take from its queue.
	if old := l.byHandle[a.Handle]; old != nil && old.wire == a.Unique && old.Function == a.Function && old.late(time.Now()) {
		return old.facts(), true
	}
	return event.Facts{}, false
}

// lateBefore returns what is stored of a job that has ended because it was late in an earlier life, and that is still queued: it is not to
// run now.
func (l *Ledger) lateBefore(a *gearman.Assignment) event.Facts {
	ctx, cancel := context.WithTimeout(context.Background(), l.o.StatusTimeout)
	defer cancel()
	r, err := l.o.Store.Get(ctx, a.Handle)
	if err != nil { // most often there is none
		return event.Facts{}
	}
	old := &job{Record: r}
	if r.Function == a.Function && r.State.Ended() && l.wireUnique(&r) == a.Unique && old.late(time.Now()) {
		return old.facts()
	}
	return event.Facts{}
}

func (j *job) facts() event.Facts {
	return event.Facts{ID: j.ID, Attempt: j.Attempt + 1, Deadline: j.Deadline, Traceparent: j.Traceparent}
}

func (l *Ledger) leave(a *gearman.Assignment, j *job) {
	delete(l.runs, a)
	j.ours--
	if j.run == a {
		j.run = nil
	}
}

// handedBack leaves a job to what the job server says of it, or has said meanwhile.
func (l *Ledger) handedBack(j *job) {
	switch {
	case j.ours > 0:
	case j.late(time.Now()):
		l.endLate(j)
	case j.unheard != nil:
		l.hear(j, *j.unheard)
	case j.pending: // its submit was due while it ran
		l.submitAt(j, time.Now())
	}
}

// begin finds the record of the job that a run belongs to, or makes do with what the assignment says.
func (l *Ledger) begin(a *gearman.Assignment) {
	j := l.assigned(a)
	if j == nil {
		j = &job{Record: Record{Handle: a.Handle, Server: a.Server, Function: a.Function, Unique: a.Unique, State: Running}}
	} else {
		if j.Handle == "" { // its JOB_CREATED is still to come
			l.place(j, gearman.Job{Server: a.Server, Handle: a.Handle, Generation: j.generation})
		}
	}
	l.drop(j) // what an earlier run has sent
	j.ours++
	j.run = a
	l.runs[a] = j
}

// assigned finds the live record of a job by its unique. Where several have that, it is the one with the handle, else one whose handle
// is still to come, else one whose handle is of an earlier life of the job server.
func (l *Ledger) assigned(a *gearman.Assignment) *job {
	if a.Unique == "" { // the job server did not tell
		if j := l.byHandle[a.Handle]; j != nil && j.Server == a.Server && j.Function == a.Function && !j.State.Ended() {
			return j
		}
		return nil
	}
	var best *job
	rank := 0
	for _, j := range l.wired(a.Function, a.Unique) {
		r := 1
		switch {
		case j.State == Scheduled: // it is not submitted yet
			continue
		case j.Handle == a.Handle && j.Server == a.Server:
			r = 3
		case j.Handle == "":
			r = 2
		}
		if r >= rank {
			best, rank = j, r
		}
	}
	return best
}

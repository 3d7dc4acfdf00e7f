package ledger

import (
	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// Observe enters what our own pool does with a job. The pool calls it before it tells the job server, so that nobody who hears
// of the job from there finds less in the ledger. For each run it is called with event.FunctionBeforeExecute first, then with
// JobProgress, JobData and JobWarning, and last with FunctionAfterExecute or FunctionOnFailure. The events of a job that a
// foreign client submitted are told as well; no record is kept of it.
func (l *Ledger) Observe(a *gearman.Assignment, t event.Type, d event.Data) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t == event.FunctionBeforeExecute {
		l.begin(a)
	}
	j := l.runs[a]
	if j.ID == "" { // a foreign client's
		l.observeForeign(a, j, t, d)
		return
	}
	live := j.live()
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
		delete(l.runs, a)
		l.apply(j, t, event.Data{DurationMS: d.DurationMS})
		if live {
			l.complete(j, d.Result)
		}
	case event.FunctionOnFailure:
		delete(l.runs, a)
		l.apply(j, t, event.Data{DurationMS: d.DurationMS, Error: d.Error, Reason: d.Reason})
		switch {
		case live && d.Reason == event.HandedBack:
			j.ours = false
		case live:
			l.fail(j, *d.Error)
		}
	}
}

// begin finds the record of the job that a run belongs to, or makes do with what the assignment says.
func (l *Ledger) begin(a *gearman.Assignment) {
	j := l.assigned(a)
	if j == nil {
		j = &job{Record: Record{Handle: a.Handle, Server: a.Server, Function: a.Function, Unique: a.Unique, State: Running}}
	} else {
		j.ours = true
		if j.Handle == "" { // its JOB_CREATED is still to come
			l.place(j, gearman.Job{Server: a.Server, Handle: a.Handle, Generation: j.generation})
		}
	}
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
	for _, j := range l.byWire[key{a.Function, a.Unique}] {
		r := 1
		switch {
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

func (l *Ledger) observeForeign(a *gearman.Assignment, j *job, t event.Type, d event.Data) {
	switch t {
	case event.FunctionAfterExecute, event.FunctionOnFailure:
		delete(l.runs, a)
		d.Result = nil
		l.apply(j, t, d)
	case event.FunctionBeforeExecute:
		l.apply(j, t, d)
	}
}

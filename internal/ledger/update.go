package ledger

import (
	"bytes"
	"errors"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// update enters what a job server said of a job. It runs on the goroutine that reads the connection.
func (l *Ledger) update(j *job, u gearman.Update) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enterUpdate(j, u)
}

func (l *Ledger) enterUpdate(j *job, u gearman.Update) {
	if u.Kind == gearman.Lost && j.generation == 0 { // our pool has told the handle, and JOB_CREATED will not come any more
		j.generation = u.Job.Generation
	}
	switch {
	case j.gone:
	case u.Kind == gearman.Created:
		l.created(j, u.Job)
	case j.State.Ended(): // a second end after a cancel, or our pool was faster
	case j.ours > 0: // our pool has told it already, or will, even if this connection is lost
		if u.Kind.Ends() {
			heard := u // which is not to be on the heap for every update
			j.unheard = &heard
		}
	default:
		l.hear(j, u)
	}
}

// created notes where a job is. A handle that a live job has on the same connection means that the job server coalesced the two;
// a handle of its own means that a job with the same unique is over.
func (l *Ledger) created(j *job, where gearman.Job) {
	if j.own() || j.Handle == "" || j.Server == where.Server { // our pool may have told it already, without the generation
		if j.Mode == Background && !j.durable && !j.State.Ended() { // a durable one's id was given out long ago
			if other := l.byHandle[where.Handle]; other != nil && other != j && other.coalesced(j, where) {
				l.merge(j, other)
				return
			}
		}
		if j.Handle != "" && (j.Handle != where.Handle || j.Server != where.Server) {
			l.drop(j) // what another run has sent
		}
		l.place(j, where)
		l.supersede(j)
	}
	l.submitted(j)
	l.handOver(j)
	j.there, j.pause = true, 0
	if j.Mode == Tracked && j.doubt {
		l.doubted(j, j.epoch)
	}
}

// supersede ends the records of background jobs that must be over, since the job server did not coalesce the new one with them:
// else those of a unique that is used again and again would be live for ever.
func (l *Ledger) supersede(j *job) {
	if j.Mode != Background || j.wire == j.ID { // nobody else has that
		return
	}
	for _, old := range l.wired(j.Function, j.wire) {
		if old.Handle != "" && old.Handle != j.Handle && old.Server == j.Server && old.generation == j.generation && old.ours == 0 {
			l.end(old, Unknown, "", nil)
		}
	}
}

func (j *job) coalesced(with *job, where gearman.Job) bool {
	return j.Mode == Background && j.Server == where.Server && j.Function == with.Function && j.wire == with.wire && j.Owner == with.Owner &&
		(j.generation == where.Generation || j.generation == 0) // 0: our pool has told the handle, and it is not known otherwise
}

// merge gives a job up for the one that the job server has made of both.
func (l *Ledger) merge(j, other *job) {
	l.forget(j)
	j.merged = other
	j.wake()
}

// submitted tells once that a job server has the job.
func (l *Ledger) submitted(j *job) {
	if !j.submitted {
		j.submitted = true
		if j.Attempt == 0 {
			l.o.Meter.JobSubmitted(&j.Record)
		}
		l.apply(j, event.JobSubmitted, &event.Data{})
	}
}

const lostMessage = "the connection to the job server was lost while the job was there; it may have run or not"

// lose ends a job whose submit or connection failed. A background job lives on without either, if a job server has it.
func (l *Ledger) lose(j *job, u gearman.Update) {
	refused := errors.Is(u.Err, gearman.ErrNotSent) || errors.As(u.Err, new(*gearman.ServerError))
	if j.Mode == Background && !refused {
		if j.Handle == "" {
			j.Server, j.generation = u.Job.Server, u.Job.Generation
		}
		l.handOver(j)
		j.there = true // or it is over, or never was: its unique tells whether
		l.store(j)
		return
	}
	if j.Mode == Tracked {
		l.recover(j, refused)
		return
	}
	if j.own() && refused { // scheduled, in the background
		l.submitLater(j)
		return
	}
	message := lostMessage
	if refused {
		message = "no job server took the job"
	}
	l.end(j, Lost, event.JobLost, &event.Error{Kind: "lost", Message: message})
}

// hear enters what a job server says of a job that our pool does not run.
func (l *Ledger) hear(j *job, u gearman.Update) {
	switch u.Kind {
	case gearman.Lost:
		l.lose(j, u)
	case gearman.Data:
		l.data(j, u.Payload)
	case gearman.Warning:
		l.warning(j, u.Payload)
	case gearman.Status:
		l.progress(j, event.Progress{Numerator: u.Numerator, Denominator: u.Denominator})
	case gearman.Completed:
		l.complete(j, u.Payload)
	case gearman.Failed:
		l.fail(j, event.Error{Kind: "failed", Message: "the worker reported a failure"}, &event.Verdict{})
	case gearman.Exception:
		l.fail(j, event.Error{Kind: "exception", Message: string(bytes.ToValidUTF8(u.Payload, []byte("\uFFFD")))}, &event.Verdict{})
	}
}

// learn enters the answer to a status request about a job's submit and returns the record.
func (l *Ledger) learn(j *job, epoch int, status gearman.JobStatus) (*Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j.live() && j.epoch == epoch && (j.there || !j.own()) {
		if status.Running {
			l.started(j)
		}
		if p := progress(status); p != nil && j.ours == 0 {
			j.Progress = p
		}
		switch {
		case status.Known || j.ours > 0:
		case j.Mode == Background:
			l.end(j, Unknown, "", nil)
		case j.Mode == Tracked:
			l.forgotten(j)
		}
	}
	r := j.shown()
	if !r.State.Ended() {
		r.Gearman = &status
	}
	return r, j.refused
}

// started notes that a job runs now.
func (l *Ledger) started(j *job) {
	if l.begun(j) {
		l.meterStart(j)
	}
}

// begun notes that a job has run, which may be over: then nobody knows since when. It reports whether that is new.
func (l *Ledger) begun(j *job) bool {
	if j.State != Queued {
		return false
	}
	if j.since.IsZero() {
		j.since = j.dueAt()
	}
	j.StartedAt, j.timed = time.Now(), false
	l.submitted(j)
	l.move(j, Running)
	l.apply(j, event.JobStarted, &event.Data{})
	return true
}

func (l *Ledger) progress(j *job, p event.Progress) {
	l.started(j)
	j.Progress = &p
	l.log(j, Entry{Progress: &p})
	l.apply(j, event.JobProgress, &event.Data{Progress: &p})
}

// data keeps a part of a result: what a worker sends by and by is the beginning of what it completes with.
func (l *Ledger) data(j *job, b []byte) {
	l.started(j)
	if l.keep(j, len(b)) {
		j.Result = append(j.Result, b...) // earlier snapshots see their own length of it
	}
	l.log(j, Entry{Payload: b})
	l.apply(j, event.JobData, &event.Data{Chunk: b})
}

// maxWarnings bounds the warnings kept of one job; later ones are told as events only.
const maxWarnings = 100

func (l *Ledger) warning(j *job, b []byte) {
	l.started(j)
	if len(j.Warnings) < maxWarnings && l.keep(j, len(b)) {
		j.Warnings = append(j.Warnings, b)
	}
	l.log(j, Entry{Warning: true, Payload: b})
	l.apply(j, event.JobWarning, &event.Data{Chunk: b})
}

func (l *Ledger) complete(j *job, rest []byte) {
	l.begun(j)
	if l.keep(j, len(rest)) {
		j.Kept = true
		switch {
		case len(j.Result) > 0:
			j.Result = append(j.Result, rest...)
		case rest != nil:
			j.Result = rest
		default:
			j.Result = []byte{}
		}
	}
	l.end(j, Completed, event.JobCompleted, nil)
}

// keep makes room for n more bytes of a job's result. Where there is none the result is spilled, and none of it is kept.
func (l *Ledger) keep(j *job, n int) bool {
	if j.spilled {
		return false
	}
	if fits := j.bytes+int64(n) <= l.o.MaxBytes; fits && l.bytes+int64(n) > l.o.MaxBytes {
		l.shed(l.o.MaxBytes-int64(n), time.Time{}, l.stored)
	}
	if l.bytes+int64(n) > l.o.MaxBytes {
		l.drop(j)
		j.spilled = true
		l.o.Log.Warn().Str("job", j.ID).Int64("max_bytes", l.o.MaxBytes).Msg("no room to keep a job's result")
		return false
	}
	l.bytes += int64(n)
	j.bytes += int64(n)
	return true
}

// drop gives up what there is of a result.
func (l *Ledger) drop(j *job) {
	j.spilled = false
	l.bytes -= int64(len(j.Result))
	j.bytes -= int64(len(j.Result))
	j.Result = nil
}

// keepWorkload keeps the workload of a job that may be run again, where no store does. It counts as a result does.
func (l *Ledger) keepWorkload(j *job) {
	if j.State == Completed {
		j.workload = nil
	}
	l.bytes += int64(len(j.workload))
	j.bytes += int64(len(j.workload))
}

// end moves a job to its last state and wakes who waits for it. t may be "" for an end that nobody reported.
func (l *Ledger) end(j *job, s State, t event.Type, e *event.Error) {
	l.settle(j)
	l.clock.unset(j.due)
	l.deadlines.unset(j.deadline)
	j.Error, j.EndedAt, j.pending = e, time.Now(), false
	before := j.State
	l.move(j, s)
	l.meterEnd(j, before)
	if !j.Kept {
		l.drop(j)
	}
	l.keepWorkload(j)
	if j.replied = s == Completed && j.needless(); j.replied {
		l.replied.push(j)
	} else {
		l.past.push(j)
	}
	if j.bytes > 0 {
		l.results.push(j)
	}
	if j.logBytes > 0 {
		l.logs.push(j)
	}
	kind := ""
	if e != nil {
		kind = e.Kind
	}
	l.logEnd(j, s, kind, 0)
	if t == "" {
		l.store(j)
	} else {
		l.apply(j, t, &event.Data{Error: e, Result: j.Result})
	}
	j.wake()
	l.shed(l.o.MaxBytes, j.EndedAt.Add(-l.o.ResultTTL), l.stored)
	for l.replied.n > l.o.MaxReplied {
		l.forget(l.replied.first)
	}
}

// needless reports whether nobody but those who wait is likely to ask for the job: it is a sync one that no idempotency key leads to, and
// nobody was told to come back, nor will be by a callback, which links to a result that it has no room for.
func (j *job) needless() bool {
	return j.Mode == Sync && !j.durable && !j.keyed && !j.early && j.Callback == nil && j.waiters > 0
}

// apply gives a change and the event it causes to the store, with what every event of a job says.
func (l *Ledger) apply(j *job, t event.Type, d *event.Data) {
	l.event(&l.told.events[0], j, t, d) // first: the change tells its seq
	l.store(j, l.told.events[:]...)
	l.told.events[0] = event.Event{}
}

// store gives a change to the store.
func (l *Ledger) store(j *job, events ...event.Event) {
	j.change(&l.told.change)
	l.o.Store.Apply(&l.told.change, events...)
	l.told.change = Change{}
}

// change makes c what the store is to know of a job: its log, too, when it has ended.
func (j *job) change(c *Change) {
	c.Record = j.Record
	if !j.State.Ended() {
		c.Record.Log = nil
	}
}

// event makes e the next one of a job, of which d says what only this one does.
func (l *Ledger) event(e *event.Event, j *job, t event.Type, d *event.Data) {
	j.EventSeq++
	e.ID, e.Type, e.Subject, e.Seq, e.Time, e.Data = event.NewID(), t, j.Handle, j.EventSeq, time.Now(), *d
	to := &e.Data
	to.ID, to.Owner, to.Handle, to.Server, to.Function, to.Unique = j.ID, j.Owner, j.Handle, j.Server, j.Function, j.Unique
	to.State = string(j.State)
	if j.ID != "" { // not a foreign client's
		e.Subject, to.Mode, to.Priority = j.ID, string(j.Mode), j.Priority.String()
	}
	e.Traceparent, e.Promised = j.Traceparent, j.ID != "" && j.own()
	if j.Callback != nil && j.Callback.Events.Match(t) {
		e.Callback = j.Callback.URL
	}
}

package ledger

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// A tracked job, and any job with a time to run, is the ledger's own to submit: whenever it is due, by this file, and until a job
// server has it. A tracked job goes out in the foreground, which alone makes a job server report its result, and is submitted again
// when it is lost:
//
//	entered ──due──▶ submit ──JOB_CREATED──▶ wait ──WORK_COMPLETE, …──▶ ended
//	                   ▲                       │
//	                   ├──not sent─────────────┤
//	                   └──connection lost, or the job server does not know it any more
//
// After a lost connection the job may still be there: submitted again with the same unique it is joined where it runs. But a job
// that was queued is doomed by the end of its client's connection (GEARMAN: it stays known, and is dropped when a worker comes for
// it), and a submit that joins it never runs. So the job server is asked, until the job ends or it knows it no more; then the
// job is submitted afresh.

// Pauses between attempts to submit a job that no job server takes.
const (
	pauseLeast = 100 * time.Millisecond
	pauseMost  = 2 * time.Second
)

// dispatch submits a job that is due.
func (l *Ledger) dispatch(ctx context.Context, j *job) {
	task, epoch, ok := l.prepare(j)
	if !ok {
		return
	}
	if err := l.load(ctx, j, &task); errors.Is(err, ErrNotFound) {
		l.giveUp(j, "the job's workload is not in the store any more")
		return
	} else if err != nil {
		l.o.Log.Error().Err(err).Str("job", j.ID).Msg("the workload of a job cannot be read, trying again")
		l.again(j, epoch)
		return
	}
	if err := l.markSent(ctx, j); err != nil {
		l.o.Log.Error().Err(err).Str("job", j.ID).Msg("a job that must not run twice cannot be stored before it is submitted, trying again")
		l.again(j, epoch)
		return
	}
	if !l.stillDue(j, epoch) { // it has ended meanwhile
		return
	}
	span := l.traceAgain(j)
	where, err := l.o.Servers.Submit(ctx, task, func(u gearman.Update) { l.updateSubmit(j, epoch, task.Unique, u) })
	span.Server(where.Server)
	failed(span, err)
	span.End()
	switch {
	case err == nil:
	case errors.Is(err, gearman.ErrOutcomeUnknown): // what became of it is told to the watch
		l.sent(j, where)
	case errors.As(err, new(*gearman.NameError)): // no job server will ever take it
		l.giveUp(j, err.Error())
	default:
		l.o.Log.Debug().Err(err).Str("job", j.ID).Msg("no job server took a job, trying again")
		l.again(j, epoch)
	}
}

// giveUp ends a job that can never be submitted.
func (l *Ledger) giveUp(j *job, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j.live() {
		l.o.Log.Error().Str("job", j.ID).Str("why", why).Msg("a job cannot be submitted")
		l.end(j, Failed, event.JobFailed, &event.Error{Kind: "failed", Message: why})
	}
}

// prepare takes a job that is to be submitted into its next epoch, so that what is still said of an earlier submit can be told from
// what is said of this one.
func (l *Ledger) prepare(j *job) (t gearman.Task, epoch int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !j.live() || j.ours > 0 || !j.pending {
		return t, 0, false
	}
	if j.late(time.Now()) {
		l.endLate(j)
		return t, 0, false
	}
	j.pending, j.there = false, false
	j.epoch++
	if j.State == Scheduled {
		l.move(j, Queued)
	}
	return gearman.Task{
		Function: j.Function, Unique: j.wire, Workload: j.workload, Priority: j.Priority, Background: j.Mode == Background,
		Timeout: l.o.SubmitTimeout,
	}, j.epoch, true
}

// load reads a workload that is kept in the store alone.
func (l *Ledger) load(ctx context.Context, j *job, t *gearman.Task) (err error) {
	if l.stored {
		t.Workload, err = l.o.Store.Workload(ctx, j.ID)
	}
	return err
}

// markSent makes it durable that a job which must not run twice is about to be submitted: should the gateway end now, nobody
// would know whether it was.
func (l *Ledger) markSent(ctx context.Context, j *job) error {
	if j.OnLost != Fail {
		return nil
	}
	l.mu.Lock()
	j.Sent = true
	var c Change
	j.change(&c)
	l.mu.Unlock()
	return l.commit(ctx, j, &c)
}

func (l *Ledger) stillDue(j *job, epoch int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return j.live() && j.epoch == epoch
}

// again submits a job later that no job server took.
func (l *Ledger) again(j *job, epoch int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !j.live() || j.epoch != epoch {
		return
	}
	if j.Sent {
		j.Sent = false
		l.store(j)
	}
	l.submitLater(j)
}

// submitLater submits a job again after a pause, which grows.
func (l *Ledger) submitLater(j *job) {
	j.pause = min(max(j.pause*2, pauseLeast), pauseMost)
	l.submitAt(j, time.Now().Add(j.pause/2+rand.N(j.pause)))
}

// submitAt sets the time for the next submit of a job.
func (l *Ledger) submitAt(j *job, at time.Time) {
	l.clock.unset(j.due)
	j.pending, j.there = true, false
	j.due = l.clock.set(at, func(ctx context.Context) { l.dispatch(ctx, j) })
}

// updateSubmit is update for one submit of the ledger's own. What is said of an earlier attempt, which had another unique, is of no
// interest; of an earlier submit of this attempt only how the job ended.
func (l *Ledger) updateSubmit(j *job, epoch int, unique string, u gearman.Update) {
	l.mu.Lock()
	defer l.mu.Unlock()
	stale := j.wire != unique || j.epoch != epoch && (u.Kind == gearman.Lost || u.Kind == gearman.Created)
	if !stale {
		l.enterUpdate(j, u)
	}
}

// recover is lose for a tracked job.
func (l *Ledger) recover(j *job, refused bool) {
	if !refused && j.OnLost == Fail {
		l.end(j, Lost, event.JobLost, &event.Error{Kind: "lost", Message: lostMessage})
		return
	}
	j.doubt = j.doubt || !refused
	l.submitAt(j, time.Now().Add(pauseLeast/2+rand.N(pauseLeast)))
}

// A job server is asked once a second for a job that may be doomed there; but it is asked for a thousand jobs a second at most, of
// however many there are.
const (
	doubtInterval = time.Second
	doubtPerJob   = time.Millisecond
)

// doubted asks for a job until it has ended or its job server knows it no more.
func (l *Ledger) doubted(j *job, epoch int) {
	l.doubtful++
	after := max(doubtInterval, time.Duration(l.doubtful)*doubtPerJob)
	l.clock.set(time.Now().Add(after), func(ctx context.Context) {
		l.mu.Lock()
		l.doubtful--
		where := gearman.Job{Server: j.Server, Handle: j.Handle, Generation: j.generation}
		unique := j.wire
		still := j.live() && j.epoch == epoch && j.there
		l.mu.Unlock()
		if !still {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, l.o.StatusTimeout)
		defer cancel()
		if status, err := l.o.Servers.Status(ctx, where, unique); err == nil {
			_, _ = l.learn(j, epoch, status) // its error is for who waits for a submit
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if j.live() && j.epoch == epoch && j.there {
			l.doubted(j, epoch)
		}
	})
}

// forgotten submits a tracked job again that its job server does not know any more, though it never said how it ended. The
// replies of one connection come in order, so an end would have been heard before.
func (l *Ledger) forgotten(j *job) {
	if j.OnLost == Fail {
		l.end(j, Lost, event.JobLost, &event.Error{Kind: "lost", Message: lostMessage})
		return
	}
	if !j.doubt { // no lost connection explains it
		if j.Deaths++; j.Deaths >= l.o.MaxAttempts {
			l.end(j, Failed, event.JobFailed, &event.Error{Kind: "lost", Message: "the job server lost the job too often"})
			return
		}
		l.store(j)
	}
	j.doubt = false
	l.drop(j) // what a run that did not end has sent
	l.submitAt(j, time.Now())
}

package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// JobServers is what the ledger asks of a gearman.Cluster.
type JobServers interface {
	Submit(ctx context.Context, t gearman.Task, w gearman.Watch) (gearman.Job, error)
	Status(ctx context.Context, j gearman.Job, unique string) (gearman.JobStatus, error)
	Find(ctx context.Context, handle string) (gearman.Job, gearman.JobStatus, bool, error)
}

// Store takes each change of a record together with the events it causes. Apply is called in order and must neither block nor
// call the ledger.
type Store interface {
	Apply(c Change, events ...event.Event)
}

// Change is a record as it is after a change; Record.ID is "" where events belong to no record of ours.
type Change struct {
	Record Record
}

// Options bound the ledger. The zero value of each bound means the default that its comment gives.
type Options struct {
	Servers JobServers
	Store   Store
	Log     zerolog.Logger

	MaxRecords    int           // 100,000 records; beyond, the oldest ended job is forgotten, then the oldest live background job
	MaxLive       int           // 50,000 sync jobs that have not ended; beyond, Submit answers ErrFull
	MaxBytes      int64         // 256 MiB of results and warnings; beyond, the oldest results are dropped
	ResultTTL     time.Duration // 24 h: a result is dropped this long after its job's end
	SubmitTimeout time.Duration // 10 s for the job server to give a handle; beyond, the outcome is unknown
	StatusTimeout time.Duration // 2 s for a job server to say how a job is
}

// Ledger knows each job that was submitted through it. It is safe for concurrent use and needs no closing.
type Ledger struct {
	o Options
	index
}

// New returns an empty ledger. Servers and Store must be set.
func New(o Options) *Ledger {
	o.MaxRecords = cmp.Or(o.MaxRecords, 100_000)
	o.MaxLive = cmp.Or(o.MaxLive, 50_000)
	o.MaxBytes = cmp.Or(o.MaxBytes, 256<<20)
	o.ResultTTL = cmp.Or(o.ResultTTL, 24*time.Hour)
	o.SubmitTimeout = cmp.Or(o.SubmitTimeout, 10*time.Second)
	o.StatusTimeout = cmp.Or(o.StatusTimeout, 2*time.Second)
	return &Ledger{o: o, index: newIndex()}
}

// Submit enters a record, sends the task, and returns a snapshot: of a background job when the job server has given it a handle,
// of a sync job when it has ended or t.Wait has lapsed. A sync task whose unique is that of a live sync job joins that job, and
// its own workload is not sent; the uniques of background jobs are the job server's to coalesce.
//
// When ctx ends first Submit returns its error, and the job goes on. The error is ErrFull, or one of gearman.Client.Submit; with
// gearman.ErrOutcomeUnknown the Record has its ID, and can be asked for later.
func (l *Ledger) Submit(ctx context.Context, t Task) (Record, error) {
	t.Mode = cmp.Or(t.Mode, Background)
	j, joined, err := l.enter(t)
	if err != nil {
		return Record{}, err
	}
	defer l.release(j)
	if !joined {
		if err := l.send(ctx, j, t); err != nil {
			return Record{ID: j.ID, Function: j.Function, Mode: j.Mode}, err
		}
	}
	if t.Mode == Sync {
		lapse := time.NewTimer(t.Wait)
		defer lapse.Stop()
		select {
		case <-j.done:
		case <-lapse.C:
		case <-ctx.Done():
			return Record{}, context.Cause(ctx)
		}
	}
	return l.snapshot(j)
}

var errNoAnswer = errors.New("the job server did not answer in time")

// send gives the task to a job server. The record is there before: our own pool may finish a job before its handle is read.
func (l *Ledger) send(ctx context.Context, j *job, t Task) error {
	submit, cancel := context.WithTimeoutCause(ctx, l.o.SubmitTimeout, errNoAnswer)
	defer cancel()
	where, err := l.o.Servers.Submit(submit, gearman.Task{
		Function: t.Function, Unique: j.wire, Workload: t.Workload, Priority: t.Priority, Background: t.Mode == Background,
	}, func(u gearman.Update) { l.update(j, u) })
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, gearman.ErrOutcomeUnknown):
		l.withdraw(j, err)
	case ctx.Err() != nil:
		l.sent(j, where)
		return context.Cause(ctx)
	default:
		l.sent(j, where)
	}
	return err
}

// enter makes a record for a task, or finds the live one that it joins. Either is held.
func (l *Ledger) enter(t Task) (j *job, joined bool, err error) {
	id := uuid.Must(uuid.NewV7()).String()
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.Mode == Sync {
		if j := l.byUnique[key{t.Function, t.Unique}]; j != nil && t.Unique != "" {
			j.waiters++
			return j, true, nil
		}
		if l.sync >= l.o.MaxLive {
			return nil, false, ErrFull
		}
	}
	j = &job{
		Record: Record{
			ID: id, Function: t.Function, Unique: t.Unique, Mode: t.Mode, Priority: t.Priority,
			State: Queued, SubmittedAt: time.Now(),
		},
		wire:    id,
		waiters: 1,
		done:    make(chan struct{}),
	}
	if t.Mode == Background && t.Unique != "" {
		j.wire = t.Unique
	}
	l.insert(j)
	for len(l.byID) > l.o.MaxRecords && l.forgetOldest() {
	}
	return j, false, nil
}

// sent notes to which server a task went whose handle is not known.
func (l *Ledger) sent(j *job, where gearman.Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j.Handle == "" {
		j.Server, j.generation = where.Server, where.Generation
	}
}

// withdraw takes back the record of a task that no job server took. Whoever joined it gets the same error.
func (l *Ledger) withdraw(j *job, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j.live() {
		j.refused = err
		l.forget(j)
		close(j.done)
	}
}

// snapshot returns the record, or why it was withdrawn.
func (l *Ledger) snapshot(j *job) (Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j.merged != nil {
		j = j.merged
	}
	return j.Record, j.refused
}

// release lets go of a job that find or enter has held: its result may be dropped.
func (l *Ledger) release(j *job) {
	if j == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	j.waiters--
}

// follow returns the job that a held job was merged with, held in its place; the job itself if there is none.
func (l *Ledger) follow(j *job) *job {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j.merged != nil {
		j.waiters--
		j = j.merged
		j.waiters++
	}
	return j
}

// How often a job server is asked again for a job whose end it will not tell.
const askInterval = time.Second

// Job returns the job that ref names, an id or a handle, waiting up to wait for its end. Of a live job the job server is asked,
// and one that no server knows any more becomes Unknown. A handle that is not in the ledger but that a job server knows is
// a stranger's job: its Record has no ID. The error is ErrNotFound, or why a job server could not be asked for a stranger's job.
func (l *Ledger) Job(ctx context.Context, ref string, wait time.Duration) (Record, error) {
	lapse := time.NewTimer(wait)
	defer lapse.Stop()
	again := time.NewTicker(askInterval)
	defer again.Stop()
	j := l.find(ref)
	defer func() { l.release(j) }()
	var r Record
	for {
		before := r
		var err error
		if j != nil {
			j = l.follow(j)
			r, err = l.look(ctx, j)
		} else {
			r, err = l.stranger(ctx, ref)
		}
		if errors.Is(err, ErrNotFound) && before.State != "" { // it was there a moment ago
			before.State, before.Gearman = Unknown, &gearman.JobStatus{}
			return before, nil
		}
		if err != nil || r.State.Ended() || wait <= 0 {
			return r, err
		}
		select {
		case <-j.ended():
		case <-again.C:
		case <-lapse.C:
			wait = 0
		case <-ctx.Done():
			return r, context.Cause(ctx)
		}
	}
}

// look returns a record, and asks for it first where the job server may know more.
func (l *Ledger) look(ctx context.Context, j *job) (Record, error) {
	r, err := l.snapshot(j)
	if err != nil || r.State.Ended() || r.Server == "" {
		return l.expire(r), err
	}
	l.mu.Lock()
	where := gearman.Job{Server: j.Server, Handle: j.Handle, Generation: j.generation}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, l.o.StatusTimeout)
	defer cancel()
	status, err := l.o.Servers.Status(ctx, where, j.wire)
	if err != nil {
		l.o.Log.Debug().Err(err).Str("job", j.ID).Msg("job server could not be asked for a job")
		return r, nil
	}
	return l.learn(j, status)
}

// expire leaves out a result that is older than it may get.
func (l *Ledger) expire(r Record) Record {
	if r.Kept && time.Since(r.EndedAt) > l.o.ResultTTL {
		r.Kept, r.Result = false, nil
	}
	return r
}

// stranger asks the job servers for a handle that is not in the ledger.
func (l *Ledger) stranger(ctx context.Context, handle string) (Record, error) {
	if uuid.Validate(handle) == nil || gearman.CheckHandle(handle) != nil || !strings.Contains(handle, ":") {
		return Record{}, ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.StatusTimeout)
	defer cancel()
	where, status, found, err := l.o.Servers.Find(ctx, handle)
	switch {
	case err != nil:
		return Record{}, fmt.Errorf("asking for handle %s: %w: %w", handle, gearman.ErrUnavailable, err)
	case !found:
		return Record{}, ErrNotFound
	}
	r := Record{Handle: handle, Server: where.Server, State: Queued, Gearman: &status, Progress: progress(status)}
	if status.Running {
		r.State = Running
	}
	return r, nil
}

func progress(s gearman.JobStatus) *event.Progress {
	if s.Denominator == 0 {
		return nil
	}
	return &event.Progress{Numerator: s.Numerator, Denominator: s.Denominator}
}

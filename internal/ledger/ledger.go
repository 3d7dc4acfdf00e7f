package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/tracing"
)

// JobServers is what the ledger asks of a gearman.Cluster.
type JobServers interface {
	Submit(ctx context.Context, t gearman.Task, w gearman.Watch) (gearman.Job, error)
	Status(ctx context.Context, j gearman.Job, unique string) (gearman.JobStatus, error)
	Find(ctx context.Context, handle string) (gearman.Job, gearman.JobStatus, bool, error)
	CancelJob(ctx context.Context, j gearman.Job) error
}

// Options bound the ledger. Servers is needed, and Store or Events. The zero value of each bound means the default that its
// comment gives.
type Options struct {
	Servers JobServers
	Store   Store      // nil: records live in memory alone, tracked and scheduled jobs too
	Events  event.Sink // gets the events where there is no Store
	// CancelRun ends the context of a run of our own pool. It is called without any lock and does not block; nil if there is no pool.
	CancelRun func(*gearman.Assignment)
	// SharedUniques has callers' uniques of background jobs go to the job servers as they are, so that jobs of different owners, and those of
	// other clients, are coalesced.
	SharedUniques bool
	// EventsFull reports whether a tracked or scheduled job must be refused because there is no room for its events: ErrEventsFull. It
	// does not block; nil: there always is room.
	EventsFull func() bool
	// Room reports why a job of an owner and a function must not be held by the gateway, in addition to what is held of either. It is
	// called under the ledger's lock, and does not block; nil: there always is room.
	Room   func(owner, function string, size int64, owned, called Held) error
	Meter  Meter // nil: nobody counts
	Log    zerolog.Logger
	Tracer *tracing.Tracer // nil: there are no traces

	MaxRecords    int           // 100,000 records in memory; beyond, the oldest ended job is forgotten, then the oldest background job
	MaxReplied    int           // 10,000 of them of sync jobs that completed while their callers waited; beyond, the oldest is forgotten
	MaxLive       int           // 50,000 sync jobs that have not ended; beyond, the oldest that nobody waits for is forgotten, else ErrFull
	MaxTracked    int           // 1,000,000 tracked and scheduled jobs that have not ended; beyond, Submit answers ErrFull
	MaxWorkloads  int64         // 4 GiB of their workloads, 256 MiB without a Store; beyond, Submit answers ErrFull
	MaxAttempts   int           // 10 runs of a tracked job that died where we could see it; then it fails
	MaxBytes      int64         // 256 MiB of results, warnings and kept workloads in memory; beyond, the oldest are given up
	ResultTTL     time.Duration // 24 h: a result is given up this long after its job's end
	SubmitTimeout time.Duration // 10 s for the job server to give a handle; beyond, the outcome is unknown
	StatusTimeout time.Duration // 2 s for a job server to say how a job is
}

// Ledger knows each job that was submitted through it. It is safe for concurrent use. Start it before its first use, and Stop it.
type Ledger struct {
	o      Options
	stored bool // Store keeps what the ledger forgets
	index
	told      telling       // guarded by index.mu
	clock     clock         // submits and questions, which may have to wait for a job server
	deadlines clock         // which wait for nobody
	slots     chan struct{} // bounds what clock has under way
	stop      context.CancelFunc
	running   sync.WaitGroup // what clock began, and its own goroutine
}

// telling is what a Store is told. It is here, and not on the stack, because it is large; the Store keeps none of it.
type telling struct {
	change Change
	events [1]event.Event
}

// New returns an empty ledger.
func New(o Options) *Ledger {
	stored := o.Store != nil
	if o.Meter == nil {
		o.Meter = noMeter{}
	}
	o.MaxRecords = cmp.Or(o.MaxRecords, 100_000)
	o.MaxReplied = cmp.Or(o.MaxReplied, 10_000)
	o.MaxLive = cmp.Or(o.MaxLive, 50_000)
	o.MaxTracked = cmp.Or(o.MaxTracked, 1_000_000)
	o.MaxAttempts = cmp.Or(o.MaxAttempts, 10)
	o.MaxBytes = cmp.Or(o.MaxBytes, 256<<20)
	o.ResultTTL = cmp.Or(o.ResultTTL, 24*time.Hour)
	o.SubmitTimeout = cmp.Or(o.SubmitTimeout, 10*time.Second)
	o.StatusTimeout = cmp.Or(o.StatusTimeout, 2*time.Second)
	if stored {
		o.MaxWorkloads = cmp.Or(o.MaxWorkloads, 4<<30)
	} else {
		o.MaxWorkloads = cmp.Or(o.MaxWorkloads, 256<<20)
		o.Store = newMemory(o.Events)
	}
	return &Ledger{o: o, stored: stored, index: newIndex(), clock: newClock(), deadlines: newClock(), slots: make(chan struct{}, atOnce)}
}

// Submit enters a record, sends the task, and returns a snapshot: of a background job when the job server has given it a handle,
// of a sync job when it has ended or t.Wait has lapsed, and of a tracked or scheduled job when it is stored. A sync or tracked task
// whose unique is that of a live job of the same function and mode joins that job, and its own workload is not sent; the uniques of
// background jobs are the job server's to coalesce.
//
// When ctx ends first Submit returns its error, and the job goes on. The error is ErrFull, ErrStoreFailed, one of the idempotency
// key's (see Task.Key), or one of gearman.Client.Submit; with gearman.ErrOutcomeUnknown the Record has its ID, and can be asked for
// later. With an error after which there is nothing to ask for it is nil. It is a part of t, which Submit changes and does not keep; it
// keeps the Workload.
func (l *Ledger) Submit(ctx context.Context, t *Task) (*Record, error) {
	t.Mode = cmp.Or(t.Mode, Background)
	if t.Key != nil {
		t.Key = &Key{Key: keyOf(t.Owner, t.Key.Key), Fingerprint: t.Key.Fingerprint}
	}
	span := l.trace(t)
	defer span.End()
	j, how, err := l.enter(ctx, t)
	if err != nil {
		failed(span, err)
		return nil, err
	}
	if j == nil { // the key's job is in the store alone
		return l.replayed(ctx, t)
	}
	err = l.attend(ctx, j, t, how, span)
	r, refused := l.answer(j, t, how)
	switch {
	case err != nil:
		return j.stub(t, err), err
	case refused != nil: // there is no record to ask for any more
		return nil, refused
	}
	r.Replayed = how == replayed
	return r, nil
}

// attend is with a job from its entry until Submit has an answer.
func (l *Ledger) attend(ctx context.Context, j *job, t *Task, how entry, span tracing.Span) error {
	if how != entered {
		if err := j.untilStored(ctx); err != nil {
			return err
		}
	}
	if how == entered {
		span.Job(j.ID, "")
	} else {
		span.Job(j.ID, j.Traceparent)
	}
	if how == entered && !j.own() && l.toSend(j) {
		if err := l.send(ctx, j, t, span); err != nil {
			failed(span, err)
			return err
		}
	}
	span.End() // a wait for the job's end is none of it
	if t.Mode != Sync {
		return nil
	}
	lapse := time.NewTimer(t.Wait)
	defer lapse.Stop()
	select {
	case <-l.untilOver(j):
	case <-lapse.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// answer lets go of a job, and returns the record that Submit answers with, or why it was withdrawn. The lock is held once for all that,
// because every job waits for it.
func (l *Ledger) answer(j *job, t *Task, how entry) (r *Record, refused error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	j.waiters--
	if how == entered {
		j.entering = false
	}
	if j.merged != nil {
		j = j.merged
	}
	j.early = j.early || !j.over
	j.show(&t.Record)
	return &t.Record, j.refused
}

// stub is what a caller gets with an error: enough to ask for the job later, unless there is none because nothing was submitted.
func (j *job) stub(t *Task, err error) *Record {
	if errors.Is(err, gearman.ErrNotSent) || errors.As(err, new(*gearman.ServerError)) || errors.As(err, new(*gearman.NameError)) {
		return nil
	}
	t.Record = Record{ID: j.ID, Owner: j.Owner, Function: j.Function, Mode: j.Mode}
	return &t.Record
}

// toSend reports whether a job is still to be sent: its deadline may have passed while it was stored.
func (l *Ledger) toSend(j *job) bool {
	if j.ready == nil { // it was not
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return j.live()
}

// send gives the task to a job server. The record is there before: our own pool may finish a job before its handle is read.
func (l *Ledger) send(ctx context.Context, j *job, t *Task, span tracing.Span) error {
	where, err := l.o.Servers.Submit(ctx, gearman.Task{
		Function: t.Function, Unique: j.wire, Workload: t.Workload, Priority: t.Priority, Background: t.Mode == Background,
		Timeout: l.o.SubmitTimeout,
	}, func(u gearman.Update) { l.update(j, u) })
	span.Server(where.Server)
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

// sent notes to which server a task went whose handle is not known. Whoever waits for that is told so, with the id.
func (l *Ledger) sent(j *job, where gearman.Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	j.early = true
	if j.Handle == "" {
		j.Server, j.generation = where.Server, where.Generation
	}
}

// withdraw takes back the record of a task that no job server took. Whoever joined it gets the same error.
func (l *Ledger) withdraw(j *job, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !j.live() {
		return
	}
	j.refused = err
	keys := l.keys[j]
	if j.durable {
		keys = append(keys, j.key)
	}
	l.forget(j)
	j.wake()
	for _, k := range keys {
		l.unstore(j, k)
	}
}

// unstore takes back what is stored of a job, and a key that leads to it.
func (l *Ledger) unstore(j *job, k *Key) {
	l.o.Store.Apply(&Change{Record: j.Record, Key: k, Forget: true})
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

// follow returns the job that a held job was merged with, held in its place; the job itself if there is none. One that was forgotten before
// its end it lets go of, and returns nil: the store may have it.
func (l *Ledger) follow(j *job) *job {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j.merged != nil {
		j.waiters--
		j = j.merged
		j.waiters++
	}
	if j.gone && !j.State.Ended() && j.refused == nil {
		j.waiters--
		return nil
	}
	return j
}

// How often a job server is asked again for a job whose end it will not tell.
const askInterval = time.Second

// Job returns the job that ref names, an id or a handle, waiting up to wait for its end. Of a live job the job server is asked,
// and a background job that no server knows any more becomes Unknown. A handle that is not in the ledger but that a job server
// knows is a stranger's job: its Record has no ID. The error is ErrNotFound, or why a job server could not be asked for a stranger's
// job.
func (l *Ledger) Job(ctx context.Context, who Caller, ref string, wait time.Duration) (*Record, error) {
	lapse := time.NewTimer(wait)
	defer lapse.Stop()
	again := time.NewTicker(askInterval)
	defer again.Stop()
	j := l.find(who, ref)
	defer func() { l.release(j) }()
	var r *Record
	for {
		before := r
		var err error
		if j != nil {
			j = l.follow(j)
		}
		if j != nil {
			r, err = l.look(ctx, j)
		} else {
			j, r, err = l.elsewhere(ctx, who, ref)
		}
		if errors.Is(err, ErrNotFound) && before != nil && before.ID == "" { // it was there a moment ago
			before.State, before.Gearman = Unknown, &gearman.JobStatus{}
			return before, nil
		}
		if err != nil || r.State.Ended() || wait <= 0 {
			return r, err
		}
		select {
		case <-l.untilOver(j):
		case <-again.C:
		case <-lapse.C:
			wait = 0
		case <-ctx.Done():
			return r, context.Cause(ctx)
		}
	}
}

// look returns a record, and asks for it first where the job server may know more.
func (l *Ledger) look(ctx context.Context, j *job) (*Record, error) {
	l.mu.Lock()
	r, err, epoch, unique := j.shown(), j.refused, j.epoch, j.wire
	where := gearman.Job{Server: j.Server, Handle: j.Handle, Generation: j.generation}
	there := j.live() && j.Server != "" && (j.there || !j.own())
	l.mu.Unlock()
	if err != nil || !there {
		return l.expire(r), err
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.StatusTimeout)
	defer cancel()
	status, err := l.o.Servers.Status(ctx, where, unique)
	if err != nil {
		l.o.Log.Debug().Err(err).Str("job", j.ID).Msg("job server could not be asked for a job")
		return r, nil
	}
	return l.learn(j, epoch, status)
}

// expire leaves out a result that is older than it may get.
func (l *Ledger) expire(r *Record) *Record {
	if r.Kept && time.Since(r.EndedAt) > l.o.ResultTTL {
		r.Kept, r.Result = false, nil
	}
	return r
}

// elsewhere looks for what is not in memory: in the store, then with the job servers. A job that is taken up again it returns, held.
func (l *Ledger) elsewhere(ctx context.Context, who Caller, ref string) (*job, *Record, error) {
	j, r, err := l.inStore(ctx, who, ref)
	switch {
	case errors.Is(err, ErrNotFound):
		_, r, err = l.stranger(ctx, who, ref)
		return nil, &r, err
	case err != nil:
		return nil, nil, err
	case j != nil:
		r, err := l.look(ctx, j)
		return j, r, err
	}
	return nil, l.expire(&r), nil
}

// lookUp looks for a job in memory, and then in the store. It returns the job, held, or the record of one that is in the store alone.
func (l *Ledger) lookUp(ctx context.Context, who Caller, ref string) (*job, Record, error) {
	if j := l.find(who, ref); j != nil {
		return j, Record{}, nil
	}
	return l.inStore(ctx, who, ref)
}

// inStore looks for what is not in memory in the store. A background job that was forgotten before its end is taken up again, and
// returned, held; but not while its end may be on its way to the disk.
func (l *Ledger) inStore(ctx context.Context, who Caller, ref string) (*job, Record, error) {
	r, err := l.o.Store.Get(ctx, ref)
	switch {
	case err != nil:
		return nil, r, err
	case !who.sees(r.Owner):
		return nil, Record{}, ErrNotFound
	case r.handedOver() && !r.State.Ended() && !r.Stale:
		return l.takeUp(r), r, nil
	}
	return nil, r, nil
}

// stranger asks the job servers for a handle that is not in the ledger.
func (l *Ledger) stranger(ctx context.Context, who Caller, handle string) (gearman.Job, Record, error) {
	if !who.All || uuid.Validate(handle) == nil || gearman.CheckHandle(handle) != nil || !strings.Contains(handle, ":") {
		return gearman.Job{}, Record{}, ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.StatusTimeout)
	defer cancel()
	where, status, found, err := l.o.Servers.Find(ctx, handle)
	switch {
	case err != nil:
		return gearman.Job{}, Record{}, fmt.Errorf("asking for handle %s: %w: %w", handle, gearman.ErrUnavailable, err)
	case !found:
		return gearman.Job{}, Record{}, ErrNotFound
	}
	r := Record{Handle: handle, Server: where.Server, State: Queued, Gearman: &status, Progress: progress(status)}
	if status.Running {
		r.State = Running
	}
	return where, r, nil
}

func progress(s gearman.JobStatus) *event.Progress {
	if s.Denominator == 0 {
		return nil
	}
	return &event.Progress{Numerator: s.Numerator, Denominator: s.Denominator}
}

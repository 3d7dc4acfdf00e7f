package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// Why a task with an idempotency key is not taken.
var (
	ErrKeyReused  = errors.New("the idempotency key was used with another task")
	ErrKeyPending = errors.New("the first task with this idempotency key is still being submitted")
)

// own reports whether the ledger itself submits the job, when it is due.
func (j *job) own() bool { return j.Mode == Tracked || !j.RunAt.IsZero() }

// enter makes a record for a task, or finds the one that it joins. Either is held. j is nil where that is in the store alone.
func (l *Ledger) enter(ctx context.Context, t *Task) (j *job, how entry, err error) {
	if t.Key != nil {
		if j, found, err := l.byKey(ctx, t.Key); found || err != nil {
			return j, replayed, err
		}
	}
	j = l.newJob(t)
	if other, err := l.room(j); other != nil || err != nil {
		return other, joined, errors.Join(err, l.addKey(ctx, other, t.Key))
	}
	if !j.durable {
		return j, entered, nil
	}
	// What outlives the gateway is stored before anybody is told of it. The caller's end does not end that.
	defer close(j.ready)
	change, events := l.first(j, t)
	err = l.commit(ctx, j, change, events...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if errors.Is(err, ErrKeyTaken) {
			err = ErrKeyPending // the other one has been here a moment ago
		}
		j.refused = err
		if j.live() { // nobody has cancelled it meanwhile
			j.wake()
		}
		l.forget(j)
		j.waiters--
		return nil, entered, err
	}
	if l.stored {
		j.workload = nil
	}
	switch {
	case !j.live(): // cancelled meanwhile
	case j.late(time.Now()): // it took that long to store it
		l.endLate(j)
	case j.own():
		l.submitAt(j, j.RunAt)
		fallthrough
	default:
		l.expireAt(j)
	}
	return j, entered, nil
}

// commit makes a change of a job durable; the caller's end does not end that. The job may have ended meanwhile, and its end been
// stored first: then it is stored once more.
func (l *Ledger) commit(ctx context.Context, j *job, c *Change, events ...event.Event) error {
	err := l.o.Store.Commit(context.WithoutCancel(ctx), c, events...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && j.State.Ended() && !c.Record.State.Ended() {
		l.store(j)
	}
	return err
}

// entry is how a task came by its record.
type entry uint8

const (
	entered  entry = iota
	joined         // it has the unique of a live job
	replayed       // it has the idempotency key of a job
)

// addKey notes the idempotency key of a task that has joined a job, and lets go of the job where it cannot: a repeat of the task is to find
// that job, also when it has ended, but never one that was withdrawn.
func (l *Ledger) addKey(ctx context.Context, j *job, k *Key) error {
	if j == nil || k == nil {
		return nil
	}
	err := l.storeKey(ctx, j, &Key{Key: k.Key, Fingerprint: k.Fingerprint, ID: j.ID, At: time.Now()})
	if err != nil {
		l.release(j)
	}
	if errors.Is(err, ErrKeyTaken) {
		return ErrKeyPending
	}
	return err
}

func (l *Ledger) storeKey(ctx context.Context, j *job, k *Key) error {
	if err := j.untilStored(ctx); err != nil { // the job first: it may have the same key, and may not be stored at all
		return err
	}
	l.mu.Lock()
	c, refused := Change{Key: k}, j.refused
	j.change(&c)
	l.mu.Unlock()
	if refused != nil {
		return refused
	}
	if err := l.commit(ctx, j, &c); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if j.refused != nil { // it was withdrawn meanwhile
		l.unstore(j, k)
		return j.refused
	}
	if j.live() && !j.own() { // it may be withdrawn yet
		l.keys[j] = append(l.keys[j], k)
	}
	return nil
}

func (l *Ledger) newJob(t *Task) *job {
	j := &job{
		Record: Record{
			ID: uuid.Must(uuid.NewV7()).String(), Owner: t.Owner, Function: t.Function, Unique: t.Unique, Mode: t.Mode, Priority: t.Priority,
			RunAt: t.RunAt, Deadline: t.Deadline, OnLost: t.OnLost, Retry: t.Retry, RetryOf: t.RetryOf,
			Callback: t.Callback, Traceparent: t.Traceparent,
			State: Queued, SubmittedAt: time.Now(),
		},
		requestID: t.RequestID,
		durable:   t.Mode == Tracked || !t.RunAt.IsZero() || t.Key != nil,
		size:      int64(len(t.Workload)),
		entering:  true,
		waiters:   1,
	}
	if j.durable {
		j.ready = make(chan struct{})
	}
	if !t.RunAt.IsZero() {
		j.State = Scheduled
	}
	if j.own() {
		j.workload = append([]byte{}, t.Workload...) // nil means that it is not kept
	}
	if t.Key != nil {
		j.key = &Key{Key: t.Key.Key, Fingerprint: t.Key.Fingerprint, ID: j.ID, At: j.SubmittedAt}
	}
	j.wire = l.wireUnique(&j.Record)
	return j
}

// room puts a job into the index, if there is room, or finds the live one that it joins.
func (l *Ledger) room(j *job) (other *job, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j.Unique != "" {
		if other := l.byUnique[j.shared()]; other != nil {
			other.waiters++
			other.keyed = other.keyed || j.key != nil
			return other, nil
		}
	}
	switch {
	case j.durable && (l.tracked >= l.o.MaxTracked || l.workloads+j.size > l.o.MaxWorkloads):
		return nil, ErrFull
	case j.own() && l.o.EventsFull != nil && l.o.EventsFull():
		return nil, ErrEventsFull
	case !j.durable && j.Mode == Sync && l.sync >= l.o.MaxLive && !l.abandonSync():
		return nil, ErrFull
	}
	if err := l.roomFor(j); err != nil {
		return nil, err
	}
	l.insert(j)
	l.log(j, Entry{State: j.State})
	if !j.durable { // else when it is stored
		l.expireAt(j)
	}
	for len(l.byID) > l.o.MaxRecords && l.forgetOldest() {
	}
	return nil, nil
}

// first returns the change that enters a job, and what it causes.
func (l *Ledger) first(j *job, t *Task) (c *Change, events []event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j.State == Scheduled {
		events = make([]event.Event, 1)
		l.event(&events[0], j, event.JobScheduled, &event.Data{})
	}
	workload := t.Workload
	if workload == nil {
		workload = []byte{} // nil would say that there is none to keep
	}
	c = &Change{Workload: workload, Key: j.key}
	j.change(c)
	return c, events
}

// byKey finds the job that was submitted with an idempotency key, held. It is nil, and found, where that is in the store alone.
func (l *Ledger) byKey(ctx context.Context, k *Key) (j *job, found bool, err error) {
	known, err := l.o.Store.Key(ctx, k.Key)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	case !bytes.Equal(known.Fingerprint, k.Fingerprint):
		return nil, false, ErrKeyReused
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	j = l.byID[known.ID]
	if j == nil {
		return nil, true, nil
	}
	if j.entering && !j.own() && j.Mode != Sync { // a sync caller waits with the first one
		return nil, false, ErrKeyPending
	}
	j.waiters++
	return j, true, nil
}

// replayed answers for a key whose job is in the store alone.
func (l *Ledger) replayed(ctx context.Context, t *Task) (*Record, error) {
	known, err := l.o.Store.Key(ctx, t.Key.Key)
	if err != nil {
		return nil, fmt.Errorf("idempotency key: %w", err)
	}
	r, err := l.o.Store.Get(ctx, known.ID)
	if err != nil {
		return nil, err
	}
	r.Replayed = true
	return l.expire(&r), nil
}

// late reports whether a job's deadline is over at a time.
func (j *job) late(at time.Time) bool { return !j.Deadline.IsZero() && !at.Before(j.Deadline) }

// endLate ends a job whose deadline has passed.
func (l *Ledger) endLate(j *job) {
	l.end(j, Failed, event.JobFailed, &event.Error{Kind: "timeout", Message: "the deadline passed before the job had ended"})
}

// expireAt sets the time for a job's deadline. A run of our own pool sees the deadline in its context; what still waits in a job
// server's queue is taken from there, as far as the job server lets it.
func (l *Ledger) expireAt(j *job) {
	if !j.Deadline.IsZero() {
		j.deadline = l.deadlines.set(j.Deadline, func(context.Context) { l.expired(j) })
	}
}

func (l *Ledger) expired(j *job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !j.live() || j.ours > 0 {
		return
	}
	where := gearman.Job{Server: j.Server, Handle: j.Handle, Generation: j.generation}
	l.endLate(j)
	if where.Handle == "" {
		return
	}
	l.clock.set(time.Now(), func(ctx context.Context) {
		if err := l.o.Servers.CancelJob(ctx, where); err != nil {
			l.o.Log.Debug().Err(err).Str("job", j.ID).Msg("a job whose deadline has passed is left with the job server")
		}
	})
}

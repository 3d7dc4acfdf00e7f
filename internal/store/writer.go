package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/webhook"
)

// How long the writer waits before it tries again what it could not store: this long at first, then twice as long each time.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 2 * time.Second
)

// Apply implements ledger.Store. Its events are in the log as soon as the change is durable. While nothing can be stored up to
// 1,000,000 events that are Promised wait for it, and 100,000 of the others; those beyond are dropped, counted and logged. A key that
// is another record's makes the change void, so a key should come with Commit, which can say so.
func (d *DB) Apply(c *ledger.Change, events ...event.Event) {
	o := &op{Change: *c, events: d.entries(events)}
	if o.idle() {
		return
	}
	dropped, err := d.queue.push(o)
	if err != nil {
		d.o.Log.Error().Err(err).Str("job", c.Record.ID).Int("events", len(o.events)).Msg("a change of a job is lost")
		return
	}
	d.losses.promised.add(dropped.promised)
	d.losses.waiting.add(dropped.others)
}

// Commit implements ledger.Store. It waits for its turn and the disk. While nothing can be stored that is until the next
// attempt fails, two seconds at most; when 10,000 others or 256 MiB wait it fails at once. When ctx ends first it returns the
// cause of that, and the change may be stored or not. There is one exception to an error's promise that nothing will be stored: a
// disk that fails to sync may yet have written the change, and show it if the machine dies before the next is stored.
func (d *DB) Commit(ctx context.Context, c *ledger.Change, events ...event.Event) error {
	o := &op{Change: *c, events: d.entries(events)}
	if o.idle() {
		return nil
	}
	return d.wait(ctx, o)
}

// do runs f, which holds so many bytes, in its turn in a transaction of the writer. f runs again when the transaction has to be begun
// anew, and may run when do has returned, since ctx ended.
func (d *DB) do(ctx context.Context, bytes int64, f func(*tx) error) error {
	return d.wait(ctx, &op{run: f, load: bytes})
}

func (d *DB) wait(ctx context.Context, o *op) error {
	o.done = make(chan error, 1)
	if _, err := d.queue.push(o); err != nil {
		return o.failure(err)
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// failure returns what the error of the database is for who waits for o.
func (o *op) failure(err error) error {
	if o.run != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return fmt.Errorf("%w: %w", ledger.ErrStoreFailed, err)
}

// run stores what is pushed, and deletes what has expired, until the DB is closed and nothing is left or can be stored.
func (d *DB) run() error {
	defer d.disconnect()
	defer d.losses.report(true)
	sweep := time.NewTicker(d.o.Sweep)
	defer sweep.Stop()
	expired := false // something may have
	for {
		closing := isClosed(d.stop)
		batch := d.queue.take()
		if len(batch) == 0 && closing {
			return nil
		}
		err := d.store(batch)
		if err == nil && (expired || d.overdue) && !closing {
			expired, err = d.expire()
		}
		d.losses.report(false)
		switch {
		case err != nil && closing:
			return fmt.Errorf("%d changes are lost: %w", d.queue.len(), err)
		case err != nil:
			d.failed(err)
		case len(batch) > 0 || expired || d.overdue:
			select {
			case <-sweep.C:
				expired = true
			default:
			}
		default:
			select {
			case <-d.queue.wake:
			case <-sweep.C:
				expired = true
			case <-d.stop:
			}
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// failed waits before the next attempt.
func (d *DB) failed(err error) {
	if !d.failing.Swap(true) {
		d.o.Log.Error().Err(err).Msg("jobs cannot be stored: trying again until they can")
	}
	d.retry = min(max(2*d.retry, firstRetry), lastRetry)
	select {
	case <-time.After(d.retry):
	case <-d.stop:
	}
}

// recovered notes that all is well.
func (d *DB) recovered() {
	d.retry = 0
	if d.failing.Swap(false) {
		d.o.Log.Info().Msg("jobs are stored again")
		d.losses.report(true)
	}
}

// store makes a batch durable, and then answers those who wait for it, who may find its events in the log. After an error, which is of
// the database as a whole, Commits have failed, those that wait too, and Applys are back in the queue.
func (d *DB) store(batch []*op) error {
	if err := d.commit(batch); err != nil {
		commits := d.queue.putBack(batch)
		d.queue.settled(commits)
		for _, o := range commits {
			o.done <- o.failure(err)
		}
		return err
	}
	d.queue.settled(batch)
	for _, o := range batch {
		if o.done != nil {
			o.done <- o.err
		} else if o.err != nil {
			d.o.Log.Error().Err(o.err).Str("job", o.Record.ID).Msg("a change of a job is lost")
		}
	}
	return nil
}

// commit writes a batch in one transaction. A change that can never be stored is left out, with its err set, and the others begin
// anew: SQLite takes back a statement that failed, but a change is several.
func (d *DB) commit(batch []*op) error {
	batch = slices.DeleteFunc(slices.Clone(batch), (*op).idle)
	for len(batch) > 0 {
		var culprit *op
		begin := time.Now()
		err := d.transaction(func(t *tx) error {
			for _, o := range batch {
				if o.refused {
					continue
				}
				o.err = t.do(o)
				if o.err != nil && !isAnswer(o.err) {
					culprit = o
					return o.err
				}
			}
			return nil
		})
		if culprit == nil || !hopeless(err) { // else it is tried again without the culprit
			d.meter(len(batch), begin, err)
		}
		if err == nil {
			d.transactions.Add(1)
			d.recovered()
			return nil
		}
		if culprit == nil || !hopeless(err) {
			return err
		}
		culprit.refused, culprit.err = true, culprit.failure(err)
	}
	return nil
}

// isAnswer reports whether the error is what somebody is to know, and not one of the database: nothing was written then.
func isAnswer(err error) bool {
	return slices.ContainsFunc([]error{ledger.ErrKeyTaken, webhook.ErrNoSink, webhook.ErrNoDelivery, webhook.ErrPending},
		func(answer error) bool { return errors.Is(err, answer) })
}

// hopeless reports whether the error is of the change, which will not be stored another time either.
func hopeless(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff { // without the details
	case lib.SQLITE_TOOBIG, lib.SQLITE_CONSTRAINT, lib.SQLITE_MISMATCH:
		return true
	}
	return false
}

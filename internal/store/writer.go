package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/store/query"
)

// How long the writer waits before it tries again what it could not store: this long at first, then twice as long each time.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 2 * time.Second
)

// Apply implements ledger.Store. The events of a change are published when it is durable, those of no record at once. Up to
// 100,000 events wait for their changes; those of a change beyond are dropped, counted and logged. A key that is another
// record's makes the change void, so a key should come with Commit, which can say so.
func (d *DB) Apply(c ledger.Change, events ...event.Event) {
	if c.Record.ID == "" {
		d.o.Events.Publish(events...)
		return
	}
	dropped, err := d.queue.push(&op{Change: c, events: events})
	if err != nil {
		d.o.Log.Error().Err(err).Str("job", c.Record.ID).Msg("a change of a job is lost")
		return
	}
	if dropped > 0 && d.lostEvents.Add(uint64(dropped)) == uint64(dropped) {
		d.o.Log.Error().Int("most", maxEvents).Msg("too many events wait for their jobs to be stored: more are dropped")
	}
}

// Commit implements ledger.Store. It waits for its turn and the disk. While nothing can be stored that is until the next
// attempt fails, two seconds at most; when 10,000 others or 256 MiB wait it fails at once. When ctx ends first it returns the
// cause of that, and the change may be stored or not. There is one exception to an error's promise that nothing will be stored: a
// disk that fails to sync may yet have written the change, and show it if the machine dies before the next is stored.
func (d *DB) Commit(ctx context.Context, c ledger.Change, events ...event.Event) error {
	if c.Record.ID == "" {
		d.o.Events.Publish(events...)
		return nil
	}
	return d.wait(ctx, &op{Change: c, events: events, done: make(chan error, 1)})
}

func (d *DB) wait(ctx context.Context, o *op) error {
	if _, err := d.queue.push(o); err != nil {
		return fmt.Errorf("%w: %w", ledger.ErrStoreFailed, err)
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// writer is what the writer's goroutine alone uses.
type writer struct {
	conn  *sql.Conn // nil: to be opened
	q     *query.Queries
	retry time.Duration // before the next attempt; 0 while all is well
}

// run stores what is pushed, and deletes what has expired, until the DB is closed and nothing is left or can be stored.
func (d *DB) run() error {
	defer d.disconnect()
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
		if err == nil && expired && !closing {
			expired, err = d.expire()
		}
		switch {
		case err != nil && closing:
			return fmt.Errorf("%d changes are lost: %w", d.queue.len(), err)
		case err != nil:
			d.failed(err)
		case len(batch) > 0 || expired:
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
	}
	if n := d.lostEvents.Swap(0); n > 0 {
		d.o.Log.Error().Uint64("events", n).Msg("events were dropped while their jobs could not be stored")
	}
}

// store makes a batch durable, and then tells of it: its events first, so that they are under way when a Commit returns. After an
// error, which is of the database as a whole, Commits have failed, those that wait too, and Applys are back in the queue.
func (d *DB) store(batch []*op) error {
	if err := d.commit(batch); err != nil {
		commits := d.queue.putBack(batch)
		d.queue.settled(commits)
		for _, o := range commits {
			o.done <- fmt.Errorf("%w: %w", ledger.ErrStoreFailed, err)
		}
		return err
	}
	d.queue.settled(batch)
	for _, o := range batch {
		if o.err == nil {
			d.o.Events.Publish(o.events...)
		}
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
	batch = slices.DeleteFunc(slices.Clone(batch), func(o *op) bool { return o.Record.ID == "" })
	for len(batch) > 0 {
		var culprit *op
		err := d.transaction(func(q *query.Queries) error {
			for _, o := range batch {
				if o.refused {
					continue
				}
				o.err = d.put(q, o)
				if o.err != nil && !errors.Is(o.err, ledger.ErrKeyTaken) {
					culprit = o
					return o.err
				}
			}
			return nil
		})
		if err == nil {
			d.transactions.Add(1)
			d.recovered()
			return nil
		}
		if culprit == nil || !hopeless(err) {
			return err
		}
		culprit.refused, culprit.err = true, fmt.Errorf("%w: %w", ledger.ErrStoreFailed, err)
	}
	return nil
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

// put writes one change. Its events will be rows of the same transaction once deliveries are durable: this is the place.
func (d *DB) put(q *query.Queries, o *op) error {
	ctx := context.Background()
	r := o.Record
	if o.wipe || o.Forget {
		if err := errors.Join(q.DeleteJob(ctx, r.ID), q.DeleteKeysOf(ctx, r.ID)); err != nil || o.Forget {
			return err
		}
	}
	if k := o.Key; k != nil {
		if err := q.DropKey(ctx, query.DropKeyParams{Key: k.Key, At: d.o.Now().Add(-d.o.KeyTTL).UnixMicro()}); err != nil {
			return err
		}
		n, err := q.PutKey(ctx, query.PutKeyParams{Key: k.Key, Fingerprint: notNull(k.Fingerprint), Job: k.ID, At: k.At.UnixMicro()})
		if err != nil {
			return err
		}
		if n == 0 {
			return ledger.ErrKeyTaken
		}
	}
	if err := q.PutJob(ctx, query.PutJobParams(rowOf(r))); err != nil {
		return err
	}
	if o.Workload != nil {
		if err := q.PutWorkload(ctx, query.PutWorkloadParams{ID: r.ID, Workload: o.Workload}); err != nil {
			return err
		}
	}
	if p, some := payloadsOf(r); some {
		return q.PutPayload(ctx, p)
	}
	return nil
}

func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// transaction runs f in a transaction of the writer's connection, and stores what it did. After an error nothing of it is, and
// the connection is given up: SQLite ends some transactions by itself, on a full disk for one, and leaves others open.
func (d *DB) transaction(f func(*query.Queries) error) (err error) {
	ctx := context.Background()
	defer func() {
		if err != nil {
			d.disconnect()
		}
	}()
	if d.conn == nil {
		if d.conn, err = d.write.Conn(ctx); err != nil {
			return err
		}
		if d.q, err = query.Prepare(ctx, d.conn); err != nil {
			return err
		}
	}
	if _, err := d.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if err := f(d.q); err != nil {
		return err
	}
	_, err = d.conn.ExecContext(ctx, "COMMIT")
	return err
}

// disconnect closes the writer's connection for good, with the transaction that may be open on it.
func (d *DB) disconnect() {
	if d.q != nil {
		_ = d.q.Close()
	}
	if d.conn != nil {
		_ = d.conn.Raw(func(any) error { return driver.ErrBadConn }) // how one tells database/sql not to use it again
		_ = d.conn.Close()
	}
	d.q, d.conn = nil, nil
}

package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"

	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/store/query"
)

// writer is what the writer's goroutine alone uses.
type writer struct {
	conn       *sql.Conn // nil: to be opened
	q          *query.Queries
	retry      time.Duration   // before the next attempt; 0 while all is well
	log        eventLog        // as it is stored
	overdue    bool            // the log is over its bound, and what may be given up was not yet, all of it
	registered map[string]bool // sinks of this life
}

// tx is one transaction of the writer.
type tx struct {
	*query.Queries
	d       *DB
	log     eventLog // as it will be
	kept    int      // events
	dropped int      // events, for want of room
	given   int64    // events that were passed to make room
	stuck   bool     // the log is over its bound, and nothing of it may be given up
}

// background is the context of every statement of the writer: whoever waits for a change may leave, and others have theirs in the same
// transaction.
var background = context.Background()

func (t *tx) now() time.Time { return t.d.o.Now() }

// transaction runs f in a transaction of the writer's connection, and stores what it did. After an error nothing of it is, and
// the connection is given up: SQLite ends some transactions by itself, on a full disk for one, and leaves others open.
func (d *DB) transaction(f func(*tx) error) (err error) {
	defer func() {
		if err != nil {
			d.disconnect()
		}
	}()
	if err := d.reconnect(); err != nil {
		return err
	}
	if _, err := d.conn.ExecContext(background, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	t := &tx{Queries: d.q, d: d, log: d.log}
	if err := f(t); err != nil {
		return err
	}
	if err := t.finish(); err != nil {
		return err
	}
	if _, err := d.conn.ExecContext(background, "COMMIT"); err != nil {
		return err
	}
	d.accept(t)
	return nil
}

// reconnect sees to it that there is a connection. What a transaction that failed has left may be read from it alone: one may have
// been written all the same.
func (d *DB) reconnect() (err error) {
	if d.conn != nil {
		return nil
	}
	if d.conn, err = d.write.Conn(background); err != nil {
		return err
	}
	if d.q, err = query.Prepare(background, d.conn); err != nil {
		return err
	}
	d.log, err = d.q.GetEventLog(background)
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

// do writes a change and its events: either they are stored, or the change is not.
func (t *tx) do(o *op) error {
	if o.Record.ID != "" {
		if err := t.put(o); err != nil {
			return err
		}
	}
	if err := t.keep(o.events); err != nil {
		return err
	}
	if o.run == nil {
		return nil
	}
	t.stuck = false // a step of a sink may let go of events
	return o.run(t)
}

// put writes what a change brings of its record.
func (t *tx) put(o *op) error {
	r := o.Record
	if o.wipe || o.Forget {
		if err := errors.Join(t.DeleteJob(background, r.ID), t.DeleteKeysOf(background, r.ID)); err != nil || o.Forget {
			return err
		}
	}
	if k := o.Key; k != nil {
		if err := t.DropKey(background, query.DropKeyParams{Key: k.Key, At: t.now().Add(-t.d.o.KeyTTL).UnixMicro()}); err != nil {
			return err
		}
		n, err := t.PutKey(background, query.PutKeyParams{Key: k.Key, Fingerprint: notNull(k.Fingerprint), Job: k.ID, At: k.At.UnixMicro()})
		if err != nil {
			return err
		}
		if n == 0 {
			return ledger.ErrKeyTaken
		}
	}
	if err := t.PutJob(background, query.PutJobParams(rowOf(r))); err != nil {
		return err
	}
	if o.Workload != nil {
		if err := t.PutWorkload(background, query.PutWorkloadParams{ID: r.ID, Workload: o.Workload}); err != nil {
			return err
		}
	}
	if p, some := payloadsOf(r); some {
		return t.PutPayload(background, p)
	}
	return nil
}

func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

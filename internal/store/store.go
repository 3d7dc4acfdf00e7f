// Package store keeps the ledger's records and the webhooks' events in a SQLite database. One goroutine writes, many changes to a
// transaction and a sync of the disk; readers have connections of their own and never wait for it but to see what was given before.
package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/store/query"
	"gearman-gateway/internal/webhook"
)

// Options of a DB. Dir must be set; the zero value of the others means what their comment says.
type Options struct {
	Dir   string // it is made, for its owner alone, if it is not there
	Log   zerolog.Logger
	Meter Meter // nil: nobody counts

	Source        string                  // "/gateway": what the bodies of events name as where they come from
	Wanted        func(webhook.Head) bool // which events are kept at all; nil: all are. It is called by many at a time and must not block
	MaxEventBytes int64                   // 4 GiB: bound of the log of events, each of which counts as its body and 1 KiB for all the rest

	KeyTTL    time.Duration // 24 h: an idempotency key is forgotten this long after its At
	ResultTTL time.Duration // 24 h: the result and the workload of a completed job go this long after its end
	Retention time.Duration // 7 days: an ended job goes, whole, this long after its end; and an event that no sink is still to get
	Sweep     time.Duration // 5 s: how often the writer looks for what has expired

	Now func() time.Time // time.Now
}

// DB is a ledger.Store and a webhook.Outbox in a directory that is its own while it is open. It is safe for concurrent use.
type DB struct {
	o       Options
	opened  time.Time
	lock    *os.File
	write   *sql.DB // one connection, for the writer
	read    *sql.DB
	queries *query.Queries // on read

	queue        *queue
	failing      atomic.Bool   // the last transaction could not be stored
	transactions atomic.Uint64 // that were stored
	full         atomic.Bool   // see Full
	grown        signal
	losses       *losses

	stop   chan struct{} // closed by Close
	done   chan error    // the writer's last word
	closed sync.Once
	writer
}

var (
	_ ledger.Store   = (*DB)(nil)
	_ webhook.Outbox = (*DB)(nil)
)

// readers is how many reads run at a time. More wait.
const readers = 4

// Open opens the database in the directory, brings its schema up to date and starts the writer. It fails if another process
// has the directory open, and if the database is of a newer version than this program knows. Close must be called.
func Open(ctx context.Context, o Options) (*DB, error) {
	o.Source = cmp.Or(o.Source, webhook.DefaultSource)
	o.MaxEventBytes = cmp.Or(o.MaxEventBytes, 4<<30)
	o.KeyTTL = cmp.Or(o.KeyTTL, 24*time.Hour)
	o.ResultTTL = cmp.Or(o.ResultTTL, 24*time.Hour)
	o.Retention = cmp.Or(o.Retention, 7*24*time.Hour)
	o.Sweep = cmp.Or(o.Sweep, 5*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wanted == nil {
		o.Wanted = func(webhook.Head) bool { return true }
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	o.Dir = dir
	d := newDB(o)
	if err := d.open(ctx); err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dir, errors.Join(err, d.release()))
	}
	go func() { d.done <- d.run() }()
	return d, nil
}

func newDB(o Options) *DB {
	d := &DB{o: o, queue: newQueue(), losses: newLosses(o.Log), stop: make(chan struct{}), done: make(chan error, 1)}
	d.registered = map[string]bool{}
	return d
}

func (d *DB) open(ctx context.Context) (err error) {
	if err := os.MkdirAll(d.o.Dir, 0o700); err != nil {
		return err
	}
	if d.lock, err = lock(filepath.Join(d.o.Dir, "lock")); err != nil {
		return err
	}
	file := filepath.Join(d.o.Dir, "gateway.db")
	if err := touch(file); err != nil {
		return err
	}
	if d.write, err = connect(file, 1, writing); err != nil {
		return err
	}
	if err := migrate(ctx, d.write); err != nil {
		return err
	}
	if d.read, err = connect(file, readers, reading); err != nil {
		return err
	}
	if d.queries, err = query.Prepare(ctx, d.read); err != nil {
		return err
	}
	if err := d.reconnect(); err != nil {
		return err
	}
	d.opened = d.o.Now() // a migration may have taken long
	d.overdue = d.log.Bytes >= d.o.MaxEventBytes
	d.full.Store(d.overdue) // until the writer has looked what may be given up, which it does first
	return nil
}

// touch makes the file for its owner alone, whatever the directory's mode is. SQLite gives the files beside it the same mode.
func touch(file string) error {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// Close stores what waits and closes the database. Its error says how many changes could not be stored. Whoever calls the DB
// afterwards gets an error, and an Apply is lost.
func (d *DB) Close() error {
	var err error
	d.closed.Do(func() {
		d.queue.close()
		close(d.stop)
		err = errors.Join(<-d.done, d.release())
	})
	return err
}

// release closes what is open: the readers first, so that the writer is the last and folds the log into the database.
func (d *DB) release() error {
	d.disconnect()
	var errs []error
	if d.queries != nil {
		errs = append(errs, d.queries.Close())
	}
	for _, pool := range []*sql.DB{d.read, d.write} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close()) // which unlocks it
	}
	return errors.Join(errs...)
}

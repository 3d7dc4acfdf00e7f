package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/store/query"
)

// flushWait is how long a read waits to see what was given before it: a disk that is busy with others can take seconds for a sync.
const flushWait = 10 * time.Second

// flush waits until what was given to Apply and Commit before is stored: a read sees that. While nothing can be stored it does not
// wait, and after flushWait no longer; a read then sees what is stored. It reports whether a read sees all.
func (d *DB) flush(ctx context.Context) bool {
	if d.failing.Load() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, flushWait)
	defer cancel()
	return d.wait(ctx, &op{}) == nil // whatever came of it, what is stored is the best answer
}

// Get implements ledger.Store. It sees what was given before it, unless that could not be stored yet.
func (d *DB) Get(ctx context.Context, ref string) (ledger.Record, error) {
	all := d.flush(ctx)
	r, err := d.get(ctx, ref)
	if errors.Is(err, ledger.ErrNotFound) {
		var id string
		if id, err = d.queries.NewestWithHandle(ctx, ref); err != nil {
			return ledger.Record{}, found(err)
		}
		r, err = d.get(ctx, id)
	}
	r.Stale = !all
	return r, err
}

func (d *DB) get(ctx context.Context, id string) (ledger.Record, error) {
	row, err := d.queries.GetJob(ctx, id)
	if err != nil {
		return ledger.Record{}, found(err)
	}
	r, err := recordOf(row.Job)
	if err != nil {
		return ledger.Record{}, err
	}
	return withPayloads(r, row)
}

// Workload implements ledger.Store. It sees what was given before it, unless that could not be stored yet.
func (d *DB) Workload(ctx context.Context, id string) ([]byte, error) {
	d.flush(ctx)
	workload, err := d.queries.GetWorkload(ctx, id)
	return workload, found(err)
}

// Key implements ledger.Store. It sees what was given before it, unless that could not be stored yet.
func (d *DB) Key(ctx context.Context, key string) (ledger.Key, error) {
	d.flush(ctx)
	k, err := d.queries.GetKey(ctx, key)
	if err != nil {
		return ledger.Key{}, found(err)
	}
	at := time.UnixMicro(k.At).UTC()
	if at.Before(d.o.Now().Add(-d.o.KeyTTL)) {
		return ledger.Key{}, ledger.ErrNotFound
	}
	return ledger.Key{Key: k.Key, Fingerprint: k.Fingerprint, ID: k.Job, At: at}, nil
}

// found returns the ledger's word for an error of a query for one row.
func found(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ledger.ErrNotFound
	}
	return err
}

// snapshot is one state of the database: what is read of it belongs together.
type snapshot struct {
	*query.Queries
	*sql.Tx
}

func (d *DB) snapshot(ctx context.Context) (snapshot, error) {
	tx, err := d.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return snapshot{}, err
	}
	return snapshot{Queries: d.queries.WithTx(tx), Tx: tx}, nil
}

func (s snapshot) end() { _ = s.Rollback() } // nothing was written

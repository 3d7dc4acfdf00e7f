package store

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strings"

	"gearman-gateway/internal/ledger"
)

var live = []ledger.State{ledger.Scheduled, ledger.Queued, ledger.Running}

// List implements ledger.Store. It sees what was given before it, unless that could not be stored yet.
func (d *DB) List(ctx context.Context, q ledger.Query) ([]ledger.Record, error) {
	d.flush(ctx)
	s := selection{owner: q.Owner, function: q.Function, beyond: q.Before, newest: true, limit: q.Limit}
	if q.State != "" || q.Mode != "" || q.Function != "" || q.Owner != "" {
		s.states, s.modes = ledger.States, ledger.Modes // an open filter is a merge over all there are
	}
	if q.State != "" {
		s.states = []ledger.State{q.State}
	}
	if q.Mode != "" {
		s.modes = []ledger.Mode{q.Mode}
	}
	return d.records(ctx, s)
}

// page is how many records Unfinished reads at a time.
const page = 500

// Unfinished implements ledger.Store. It sees what was given before it, unless that could not be stored yet. It holds no
// transaction and no connection while f runs, so f may take its time and call the DB.
func (d *DB) Unfinished(ctx context.Context, f func(ledger.Record) error) error {
	d.flush(ctx)
	s := selection{states: live, modes: ledger.Modes, limit: page}
	for {
		records, err := d.records(ctx, s)
		if err != nil {
			return err
		}
		for _, r := range records {
			if err := f(r); err != nil {
				return err
			}
		}
		if len(records) < page {
			return nil
		}
		s.beyond = records[page-1].ID
	}
}

// records returns what is selected, in its order. Both queries read one state of the database.
func (d *DB) records(ctx context.Context, s selection) ([]ledger.Record, error) {
	tx, err := d.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer tx.end()
	ids, err := s.ids(ctx, tx.Tx)
	if err != nil {
		return nil, err
	}
	rows, err := tx.GetJobs(ctx, ids)
	if err != nil {
		return nil, err
	}
	records := make([]ledger.Record, len(rows))
	for i, row := range rows {
		if records[i], err = recordOf(row); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(records, func(a, b ledger.Record) int {
		if s.newest {
			a, b = b, a
		}
		return cmp.Compare(a.ID, b.ID)
	})
	return records, nil
}

// selection is a range of the records in the order of their ids.
type selection struct {
	owner    string         // "": any
	function string         // "": any
	states   []ledger.State // nil: any, and any mode, function and owner
	modes    []ledger.Mode
	newest   bool   // first
	beyond   string // in that order; "": from the beginning
	limit    int
}

// ids returns the ids of the selected records. Each pair of a state and a mode is a range of an index that is in order already, so
// that SQLite merges them and reads no more than it returns, however many records there are.
func (s selection) ids(ctx context.Context, tx *sql.Tx) ([]string, error) {
	text, args := s.sql()
	rows, err := tx.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// ofOwner restricts a query to one owner. SQLite uses a partial index where the query says the index's own condition.
const ofOwner = " AND owner = ? AND owner <> ''"

func (s selection) sql() (text string, args []any) {
	beyond, order := " AND id > ?", " ORDER BY id LIMIT ?"
	if s.newest {
		beyond, order = " AND id < ?", " ORDER BY id DESC LIMIT ?"
	}
	var ranges []string
	add := func(where string, values ...any) {
		args = append(args, values...)
		if s.owner != "" {
			where += ofOwner
			args = append(args, s.owner)
		}
		if s.beyond != "" {
			where += beyond
			args = append(args, s.beyond)
		}
		ranges = append(ranges, "SELECT id FROM jobs WHERE "+where)
	}
	for _, state := range s.states {
		for _, mode := range s.modes {
			if s.function != "" {
				add("function = ? AND state = ? AND mode = ?", s.function, string(state), string(mode))
			} else {
				add("state = ? AND mode = ?", string(state), string(mode))
			}
		}
	}
	if s.states == nil {
		add("TRUE")
	}
	return strings.Join(ranges, " UNION ALL ") + order, append(args, s.limit)
}

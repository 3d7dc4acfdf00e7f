package ledger

import (
	"context"
	"errors"
)

// List returns up to q.Limit records, newest first, without their results, warnings and logs, and the Before of the next page; ""
// if there is none.
func (l *Ledger) List(ctx context.Context, q Query) (records []Record, next string, err error) {
	q.Limit++ // one more tells whether there is a next page
	records, err = l.o.Store.List(ctx, q)
	if errors.Is(err, errors.ErrUnsupported) { // nothing is kept beyond memory
		records, err = l.inMemory(ctx, q), ctx.Err()
	}
	if err == nil && len(records) == q.Limit {
		records = records[:q.Limit-1]
		next = records[len(records)-1].ID
	}
	return records, next, err
}

// listPiece is how many records are looked at under one hold of the lock, for which everybody else waits.
const listPiece = 1000

// inMemory is Store.List over the ledger's own records. It looks at all of them if need be, and lets others have the lock in between.
func (l *Ledger) inMemory(ctx context.Context, q Query) (records []Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	mark := new(job)
	l.entered.push(mark)
	defer l.entered.remove(mark)
	for l.listMore(mark, q, &records) && ctx.Err() == nil {
		l.mu.Unlock()
		l.mu.Lock()
	}
	return records
}

// listMore moves the mark, a job without an ID, over older records, and keeps those that are selected. It reports whether there is more to
// look at. Others may have marks in the list, too.
func (x *index) listMore(mark *job, q Query, records *[]Record) bool {
	for range listPiece {
		j := x.entered.prev(mark)
		if j == nil || len(*records) >= q.Limit {
			return false
		}
		x.entered.remove(mark)
		x.entered.insert(mark, j)
		if j.ID != "" && q.selects(&j.Record) {
			r := j.Record
			r.Result, r.Warnings, r.Log = nil, nil, nil
			*records = append(*records, r)
		}
	}
	return true
}

func (q *Query) selects(r *Record) bool {
	return (q.Before == "" || r.ID < q.Before) && (q.Function == "" || r.Function == q.Function) && (q.State == "" || r.State == q.State) &&
		(q.Mode == "" || r.Mode == q.Mode) && (q.Owner == "" || r.Owner == q.Owner)
}

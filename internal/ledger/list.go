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
		records, err = l.inMemory(q), nil
	}
	if err == nil && len(records) == q.Limit {
		records = records[:q.Limit-1]
		next = records[len(records)-1].ID
	}
	return records, next, err
}

// inMemory is Store.List over the ledger's own records.
func (l *Ledger) inMemory(q Query) []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	var records []Record
	for e := l.entered.Back(); e != nil && len(records) < q.Limit; e = e.Prev() {
		r := e.Value.(*job).Record
		if q.Before != "" && r.ID >= q.Before || q.Function != "" && r.Function != q.Function ||
			q.State != "" && r.State != q.State || q.Mode != "" && r.Mode != q.Mode || q.Owner != "" && r.Owner != q.Owner {
			continue
		}
		r.Result, r.Warnings, r.Log = nil, nil, nil
		records = append(records, r)
	}
	return records
}

package store

import (
	"context"
	"database/sql"
	"errors"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/store/query"
	"gearman-gateway/internal/webhook"
)

// maxLooked is how many events a page of the log looks at that it does not select, at most.
const maxLooked = 5000

// Events implements webhook.Outbox. It sees what was given before it, unless that could not be stored yet.
func (d *DB) Events(ctx context.Context, q webhook.EventQuery) (webhook.EventPage, error) {
	d.flush(ctx)
	s, err := d.snapshot(ctx)
	if err != nil {
		return webhook.EventPage{}, err
	}
	defer s.end()
	after, err := s.cursor(ctx, q)
	if err != nil {
		return webhook.EventPage{}, err
	}
	_, last, err := s.bounds(ctx)
	if err != nil {
		return webhook.EventPage{}, err
	}
	numbers, next, end, err := s.find(ctx, q, after)
	if err != nil {
		return webhook.EventPage{}, err
	}
	if end {
		next = max(after, last) // all of it was looked at
	}
	page := webhook.EventPage{Next: next, End: end}
	if len(numbers) > 0 {
		page.Bodies, err = s.GetBodies(ctx, numbers)
	}
	return page, err
}

// cursor returns the number after which a page begins.
func (s snapshot) cursor(ctx context.Context, q webhook.EventQuery) (int64, error) {
	if q.AfterID != "" {
		n, err := s.number(ctx, q)
		if errors.Is(err, sql.ErrNoRows) {
			err = webhook.ErrNoEvent
		}
		return n, err
	}
	first, last, err := s.bounds(ctx)
	if err == nil && q.After != 0 && (q.After < first-1 || q.After > last) {
		err = webhook.ErrEventsExpired
	}
	return q.After, err
}

func (s snapshot) number(ctx context.Context, q webhook.EventQuery) (int64, error) {
	if q.Owner != "" {
		return s.EventNumberOf(ctx, query.EventNumberOfParams{ID: q.AfterID, Owner: q.Owner})
	}
	return s.EventNumber(ctx, q.AfterID)
}

// bounds returns the numbers of the first and the last event of the log. An empty one has its first behind its last.
func (s snapshot) bounds(ctx context.Context) (first, last int64, err error) {
	log, err := s.GetEventLog(ctx)
	if err != nil {
		return 0, 0, err
	}
	first, err = s.FirstEvent(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return log.Last + 1, log.Last, nil
	}
	return first, log.Last, err
}

// find returns the numbers of selected events, that of the last event it has looked at, and whether that is the end. It reads no bodies.
func (s snapshot) find(ctx context.Context, q webhook.EventQuery, after int64) (numbers []int64, looked int64, end bool, err error) {
	text, args := "SELECT n, type FROM events WHERE n > ?", []any{after}
	if q.Subject != "" {
		text += " AND subject = ?"
		args = append(args, q.Subject)
	}
	if q.Owner != "" {
		text += ofOwner
		args = append(args, q.Owner)
	}
	rows, err := s.QueryContext(ctx, text+" ORDER BY n", args...)
	if err != nil {
		return nil, 0, false, err
	}
	defer rows.Close()
	looked = after
	for count := 0; rows.Next(); count++ {
		if len(numbers) >= q.Limit || count >= maxLooked {
			return numbers, looked, false, nil
		}
		var kind event.Type
		if err := rows.Scan(&looked, &kind); err != nil {
			return nil, 0, false, err
		}
		if q.Types == nil || q.Types.Match(kind) {
			numbers = append(numbers, looked)
		}
	}
	return numbers, looked, true, rows.Err()
}

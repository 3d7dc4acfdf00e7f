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
	log, err := s.GetEventLog(ctx)
	if err != nil {
		return webhook.EventPage{}, err
	}
	numbers, next, end, err := s.find(ctx, q, after)
	if err != nil {
		return webhook.EventPage{}, err
	}
	if end {
		next = max(after, log.Last) // all of it was looked at
	}
	page := webhook.EventPage{Next: next, End: end}
	if len(numbers) > 0 {
		page.Bodies, err = s.GetBodies(ctx, numbers)
	}
	return page, err
}

// cursor returns the number after which a page begins.
func (s snapshot) cursor(ctx context.Context, q webhook.EventQuery) (int64, error) {
	log, err := s.GetEventLog(ctx)
	switch {
	case err != nil:
		return 0, err
	case q.AfterID != "":
		n, err := s.number(ctx, q)
		if errors.Is(err, sql.ErrNoRows) || err == nil && n < log.Floor {
			err = webhook.ErrNoEvent
		}
		return n, err
	case q.After == 0:
		return log.Floor, nil // no cursor: from the oldest that is kept
	case q.After < log.Floor || q.After > log.Last:
		return 0, webhook.ErrEventsExpired
	}
	return q.After, nil
}

func (s snapshot) number(ctx context.Context, q webhook.EventQuery) (int64, error) {
	if q.Owner != "" {
		return s.EventNumberOf(ctx, query.EventNumberOfParams{ID: q.AfterID, Owner: q.Owner})
	}
	return s.EventNumber(ctx, q.AfterID)
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

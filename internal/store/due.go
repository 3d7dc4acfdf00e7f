package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/store/query"
	"gearman-gateway/internal/webhook"
)

// Due implements webhook.Outbox. It reads one state of the database, in which every Advance that has returned is.
func (d *DB) Due(ctx context.Context, sink string, q webhook.DueQuery) (webhook.Ready, error) {
	s, err := d.snapshot(ctx)
	if err != nil {
		return webhook.Ready{}, err
	}
	defer s.end()
	subjects, next, err := s.due(ctx, sink, q)
	if err != nil {
		return webhook.Ready{}, err
	}
	ready := webhook.Ready{Next: next}
	for _, subject := range subjects {
		letters, err := s.letters(ctx, sink, subject, q.Letters)
		if err != nil {
			return webhook.Ready{}, err
		}
		ready.Lines = append(ready.Lines, webhook.Line{Subject: subject, Letters: letters})
	}
	if subjects == nil && next.IsZero() {
		if _, err := s.GetSink(ctx, sink); errors.Is(err, sql.ErrNoRows) {
			return webhook.Ready{}, webhook.ErrNoSink
		}
	}
	return ready, nil
}

// due returns the subjects of lines in the order in which they are due, and when the next is. It reads no more than that of the index
// and what is skipped, which is in front.
func (s snapshot) due(ctx context.Context, sink string, q webhook.DueQuery) (subjects []string, next time.Time, err error) {
	rows, err := s.QueryContext(ctx, "SELECT subject, due FROM deliveries WHERE sink = ? AND due IS NOT NULL ORDER BY due, n", sink)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer rows.Close()
	early := false
	for rows.Next() {
		var subject string
		var micros int64
		if err := rows.Scan(&subject, &micros); err != nil {
			return nil, time.Time{}, err
		}
		if q.Skip != nil && q.Skip(subject) {
			continue
		}
		due := time.UnixMicro(micros).UTC()
		later := due.After(q.Now)
		early = early || q.Early && later && len(subjects) == 0
		if len(subjects) >= q.Lines || later && !early {
			if !later {
				due = q.Now
			}
			return subjects, due, nil
		}
		subjects = append(subjects, subject)
	}
	return subjects, time.Time{}, rows.Err()
}

func (s snapshot) letters(ctx context.Context, sink, subject string, most int) ([]webhook.Letter, error) {
	rows, err := s.Letters(ctx, query.LettersParams{Sink: sink, Subject: subject, Limit: int64(most)})
	if err != nil {
		return nil, err
	}
	letters := make([]webhook.Letter, len(rows))
	for i, r := range rows {
		log, err := decodeAttempts(r.Log)
		if err != nil {
			return nil, err
		}
		letters[i] = webhook.Letter{
			N: r.N, EventID: r.ID, Type: event.Type(r.Type), Body: r.Body, Callback: r.Callback, Traceparent: r.Traceparent,
			Attempts: int(r.Attempts), Log: log,
		}
	}
	return letters, nil
}

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

// Register implements webhook.Outbox. What the sinks of an earlier life are still to get is kept until they are registered, but not
// longer than a minute after Open.
func (d *DB) Register(ctx context.Context, sink string) (webhook.Standing, error) {
	var row query.Sink
	err := d.do(ctx, 0, func(t *tx) (err error) {
		row, err = t.register(sink)
		return err
	})
	if err != nil {
		return webhook.Standing{}, err // row may still be written to
	}
	return standingOf(row), nil
}

func (t *tx) register(sink string) (query.Sink, error) {
	t.d.registered[sink] = true
	if err := t.AddSink(background, query.AddSinkParams{Name: sink, Position: t.log.Last}); err != nil {
		return query.Sink{}, err
	}
	return t.GetSink(background, sink)
}

// Unregister implements webhook.Outbox.
func (d *DB) Unregister(ctx context.Context, sink string) error {
	return d.do(ctx, 0, func(t *tx) error {
		delete(t.d.registered, sink)
		return nil
	})
}

// Advance implements webhook.Outbox. It waits for its turn and the disk as Commit does, and its Wants may be called more than once for
// an event, and even when it has returned because ctx ended.
func (d *DB) Advance(ctx context.Context, sink string, s webhook.Step) (webhook.Advanced, error) {
	logs, bytes := make([][]byte, len(s.Ends)), int64(0)
	for i, e := range s.Ends {
		logs[i] = encodeAttempts(e.Log)
		bytes += int64(len(logs[i]))
	}
	var looked int
	err := d.do(ctx, bytes, func(t *tx) (err error) {
		looked, err = t.advance(sink, s, logs)
		return err
	})
	if err != nil {
		return webhook.Advanced{}, err // looked may still be written to
	}
	return webhook.Advanced{Looked: looked}, nil
}

func (t *tx) advance(sink string, s webhook.Step, logs [][]byte) (looked int, err error) {
	row, err := t.sink(sink)
	if err != nil {
		return 0, err
	}
	if err := t.end(sink, s.Ends, logs); err != nil {
		return 0, err
	}
	looked, err = t.look(&row, s.Look, s.Wants)
	if err != nil || looked == 0 && s.Standing == nil {
		return 0, err
	}
	if s.Standing != nil {
		stand(&row, *s.Standing)
	}
	return looked, t.PutSink(background, query.PutSinkParams{
		Name: row.Name, Position: row.Position, Paused: row.Paused, Disabled: row.Disabled, FailingSince: row.FailingSince,
		LastError: row.LastError, LastErrorAt: row.LastErrorAt, LastSuccess: row.LastSuccess,
	})
}

// end notes the ends of attempts, and that what is the first of its subject now is due. An end of what is not pending is of one that
// is gone, or was noted before.
func (t *tx) end(sink string, ends []webhook.Ended, logs [][]byte) error {
	subjects := map[string]bool{}
	for i, e := range ends {
		var err error
		if e.State == webhook.Pending {
			err = t.RetryDelivery(background, query.RetryDeliveryParams{
				N: e.N, Sink: sink, Subject: e.Subject, Attempts: int64(e.Attempts), Due: micros(e.Due), Log: logs[i],
			})
		} else {
			err = t.EndDelivery(background, query.EndDeliveryParams{
				N: e.N, Sink: sink, State: string(e.State), Attempts: int64(e.Attempts), Log: logs[i],
			})
		}
		if err != nil {
			return err
		}
		subjects[e.Subject] = true
		if e.N <= t.log.Floor && e.State != webhook.Pending {
			if err := t.trimSettled(e.N); err != nil {
				return err
			}
		}
	}
	now := micros(t.now())
	for subject := range subjects {
		if err := t.Awaken(background, query.AwakenParams{Sink: sink, Subject: subject, Due: now}); err != nil {
			return err
		}
	}
	return nil
}

// look makes deliveries of those of the next events that the sink wants, and moves its position.
func (t *tx) look(sink *query.Sink, most int, wants func(webhook.Head) bool) (looked int, err error) {
	if most <= 0 {
		return 0, nil
	}
	events, err := t.Heads(background, query.HeadsParams{N: max(sink.Position, t.log.Floor), Limit: int64(most)})
	if err != nil || len(events) == 0 {
		return 0, err
	}
	now := micros(t.now())
	for _, e := range events {
		if !wants(webhook.Head{Type: event.Type(e.Type), Function: e.Function, Callback: e.Callback != ""}) {
			continue
		}
		err := t.AddDelivery(background, query.AddDeliveryParams{N: e.N, Sink: sink.Name, Subject: e.Subject, Due: now})
		if err != nil {
			return 0, err
		}
	}
	sink.Position = events[len(events)-1].N
	return len(events), nil
}

// sink returns the row of a sink, or ErrNoSink.
func (t *tx) sink(name string) (query.Sink, error) {
	row, err := t.GetSink(background, name)
	if errors.Is(err, sql.ErrNoRows) {
		err = webhook.ErrNoSink
	}
	return row, err
}

func standingOf(row query.Sink) webhook.Standing {
	return webhook.Standing{
		Paused: row.Paused == 1, Disabled: row.Disabled, FailingSince: moment(row.FailingSince),
		LastError: row.LastError, LastErrorAt: moment(row.LastErrorAt), LastSuccess: moment(row.LastSuccess),
	}
}

func stand(row *query.Sink, s webhook.Standing) {
	row.Paused, row.Disabled, row.FailingSince = flag(s.Paused), s.Disabled, micros(s.FailingSince)
	row.LastError, row.LastErrorAt, row.LastSuccess = s.LastError, micros(s.LastErrorAt), micros(s.LastSuccess)
}

// Backlog implements webhook.Outbox. Its Oldest is of the events that the sink has not looked at and of those whose delivery is
// pending.
func (d *DB) Backlog(ctx context.Context, sink string) (webhook.Backlog, error) {
	d.flush(ctx)
	s, err := d.snapshot(ctx)
	if err != nil {
		return webhook.Backlog{}, err
	}
	defer s.end()
	row, err := s.GetSink(ctx, sink)
	if errors.Is(err, sql.ErrNoRows) {
		return webhook.Backlog{}, nil
	}
	if err != nil {
		return webhook.Backlog{}, err
	}
	return s.backlog(ctx, row)
}

func (s snapshot) backlog(ctx context.Context, sink query.Sink) (b webhook.Backlog, err error) {
	log, err := s.GetEventLog(ctx)
	if err != nil {
		return b, err
	}
	position := max(sink.Position, log.Floor)
	b.Behind = log.Last - position
	for state, count := range map[webhook.DeliveryState]*int64{webhook.Pending: &b.Pending, webhook.Dead: &b.Dead} {
		*count, err = s.CountDeliveries(ctx, query.CountDeliveriesParams{Sink: sink.Name, State: string(state)})
		if err != nil {
			return b, err
		}
	}
	oldest := position + 1
	if b.Pending > 0 {
		if oldest, err = s.OldestPending(ctx, sink.Name); err != nil {
			return b, err
		}
	}
	e, err := s.EventTime(ctx, oldest)
	if errors.Is(err, sql.ErrNoRows) {
		return b, nil
	}
	b.Oldest = time.UnixMicro(e.Time).UTC()
	return b, err
}

// Hasten implements webhook.Outbox.
func (d *DB) Hasten(ctx context.Context, sink string) error {
	now := micros(d.o.Now())
	for n := int64(piece); n == piece; {
		var done int64
		err := d.do(ctx, 0, func(t *tx) (err error) {
			if _, err := t.sink(sink); err != nil {
				return err
			}
			done, err = t.HastenDeliveries(background, query.HastenDeliveriesParams{Sink: sink, Now: now, Most: piece})
			return err
		})
		if err != nil {
			return err
		}
		n = done
	}
	return nil
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"gearman-gateway/internal/store/query"
	"gearman-gateway/internal/webhook"
)

// Requeue implements webhook.Outbox. The attempts that were made stay in the delivery's Log.
func (d *DB) Requeue(ctx context.Context, sink, eventID string) error {
	return d.do(ctx, 0, func(t *tx) error { return t.requeueEvent(sink, eventID) })
}

func (t *tx) requeueEvent(sink, eventID string) error {
	n, err := t.EventNumber(background, eventID)
	if err != nil {
		return foundDelivery(err)
	}
	delivery, err := t.GetDelivery(background, key{N: n, Sink: sink})
	if err != nil {
		return foundDelivery(err)
	}
	if delivery.State == string(webhook.Pending) {
		return webhook.ErrPending
	}
	return t.requeue(sink, delivery.Subject, n)
}

// requeue makes a delivery pending once more: due at once if it is the first of its subject, in place of that which was the first.
func (t *tx) requeue(sink, subject string, n int64) error {
	due := micros(t.now())
	first, err := t.FirstPending(background, query.FirstPendingParams{Sink: sink, Subject: subject})
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return err
	case first.N < n:
		due = nil
	default:
		if err := t.SetDue(background, query.SetDueParams{N: first.N, Sink: sink}); err != nil {
			return err
		}
	}
	return t.RequeueDelivery(background, query.RequeueDeliveryParams{N: n, Sink: sink, Due: due})
}

// Replay implements webhook.Outbox. It takes some hundreds at a time: after an error those that it has come to are pending.
func (d *DB) Replay(ctx context.Context, sink string, since, until time.Time) (replayed int, err error) {
	for after, more := int64(0), true; more; {
		var n int
		var to int64
		err := d.do(ctx, 0, func(t *tx) (err error) {
			if _, err := t.sink(sink); err != nil {
				return err
			}
			n, to, more, err = t.replay(sink, after, since, until)
			return err
		})
		if err != nil {
			return replayed, err
		}
		replayed, after = replayed+n, to
	}
	return replayed, nil
}

// replay does so for the next dead deliveries, a bounded number.
func (t *tx) replay(sink string, after int64, since, until time.Time) (replayed int, to int64, more bool, err error) {
	dead, err := t.DeadDeliveries(background, query.DeadDeliveriesParams{Sink: sink, N: after, Limit: piece})
	if err != nil {
		return 0, 0, false, err
	}
	for _, d := range dead {
		to = d.N
		at := time.UnixMicro(d.Time)
		if at.Before(since) || !until.IsZero() && !at.Before(until) {
			continue
		}
		if err := t.requeue(sink, d.Subject, d.N); err != nil {
			return 0, 0, false, err
		}
		replayed++
	}
	return replayed, to, len(dead) == piece, nil
}

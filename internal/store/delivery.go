package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/store/query"
	"gearman-gateway/internal/webhook"
)

// piece is how many deliveries one transaction changes where there may be many, so that no change waits long for it.
const piece = 500

// Deliveries implements webhook.Outbox.
func (d *DB) Deliveries(ctx context.Context, q webhook.DeliveryQuery) ([]webhook.Delivery, error) {
	s, err := d.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer s.end()
	sinks, err := s.GetSinks(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(sinks))
	for i, sink := range sinks {
		names[i] = sink.Name
	}
	text, args := listing(q, names)
	if text == "" {
		return nil, nil
	}
	keys, err := s.keys(ctx, text, args)
	if err != nil {
		return nil, err
	}
	var deliveries []webhook.Delivery
	for _, k := range keys {
		delivery, err := s.delivery(ctx, k)
		if err != nil {
			return nil, err
		}
		deliveries = append(deliveries, delivery)
	}
	return deliveries, nil
}

// key names a delivery.
type key = query.GetDeliveryParams

// listing returns the query for the keys of what q selects; "" if it can be nothing. As in a list of jobs each pair of a sink and a
// state is a range of an index that is in order already, so that SQLite merges them and sorts nothing.
func listing(q webhook.DeliveryQuery, sinks []string) (text string, args []any) {
	const order = " ORDER BY n DESC, sink LIMIT ?"
	if q.Sink == "" && q.State == "" && q.Owner == "" {
		text = "SELECT n, sink FROM deliveries WHERE TRUE"
		if q.Before != 0 && q.BeforeSink != "" {
			text += " AND n <= ? AND (n < ? OR sink > ?)"
			args = append(args, q.Before, q.Before, q.BeforeSink)
		} else if q.Before != 0 {
			text += " AND n < ?"
			args = append(args, q.Before)
		}
		return text + order, append(args, q.Limit)
	}
	states := webhook.DeliveryStates
	if q.Sink != "" {
		sinks = []string{q.Sink}
	}
	if q.State != "" {
		states = []webhook.DeliveryState{q.State}
	}
	var ranges []string
	for _, sink := range sinks {
		for _, state := range states {
			where := "SELECT n, sink FROM deliveries WHERE sink = ? AND state = ?"
			args = append(args, sink, string(state))
			if q.Owner != "" {
				where += ofOwner
				args = append(args, q.Owner)
			}
			if q.Before != 0 {
				before := q.Before
				if q.BeforeSink != "" && sink > q.BeforeSink {
					before++ // its delivery of that event is still to come
				}
				where += " AND n < ?"
				args = append(args, before)
			}
			ranges = append(ranges, where)
		}
	}
	if ranges == nil {
		return "", nil
	}
	return strings.Join(ranges, " UNION ALL ") + order, append(args, q.Limit)
}

func (s snapshot) keys(ctx context.Context, text string, args []any) (keys []key, err error) {
	rows, err := s.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var k key
		if err := rows.Scan(&k.N, &k.Sink); err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, rows.Err()
}

// Delivery implements webhook.Outbox.
func (d *DB) Delivery(ctx context.Context, sink, eventID string) (webhook.Delivery, error) {
	s, err := d.snapshot(ctx)
	if err != nil {
		return webhook.Delivery{}, err
	}
	defer s.end()
	n, err := s.EventNumber(ctx, eventID)
	if err != nil {
		return webhook.Delivery{}, foundDelivery(err)
	}
	delivery, err := s.delivery(ctx, key{N: n, Sink: sink})
	if err != nil {
		return webhook.Delivery{}, err
	}
	log, err := s.GetDeliveryLog(ctx, query.GetDeliveryLogParams{N: n, Sink: sink})
	if err != nil {
		return webhook.Delivery{}, err
	}
	delivery.Log, err = decodeAttempts(log)
	return delivery, err
}

func (s snapshot) delivery(ctx context.Context, k key) (webhook.Delivery, error) {
	r, err := s.GetDelivery(ctx, k)
	if err != nil {
		return webhook.Delivery{}, foundDelivery(err)
	}
	return webhook.Delivery{
		N: k.N, Sink: k.Sink, Owner: r.Owner, EventID: r.ID, Type: event.Type(r.Type), Subject: r.Subject, Time: time.UnixMicro(r.Time).UTC(),
		State: webhook.DeliveryState(r.State), Attempts: int(r.Attempts), Due: moment(r.Due),
	}, nil
}

// foundDelivery returns the outbox's word for an error of a query for one row.
func foundDelivery(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return webhook.ErrNoDelivery
	}
	return err
}

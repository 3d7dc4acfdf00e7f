package webhook

import (
	"context"
	"time"

	"gearman-gateway/internal/event"
)

// Events returns a page of the log; see Outbox.
func (s *Sender) Events(ctx context.Context, q EventQuery) (EventPage, error) {
	return s.now().o.Outbox.Events(ctx, q)
}

// Grown returns a channel that is closed when there is a new event.
func (s *Sender) Grown() <-chan struct{} { return s.now().o.Outbox.Grown() }

// Deliveries returns deliveries, newest event first; see Outbox.
func (s *Sender) Deliveries(ctx context.Context, q DeliveryQuery) ([]Delivery, error) {
	return s.now().o.Outbox.Deliveries(ctx, q)
}

// Delivery returns one delivery with its attempts; ErrNoDelivery if there is none.
func (s *Sender) Delivery(ctx context.Context, sink, eventID string) (Delivery, error) {
	return s.now().o.Outbox.Delivery(ctx, sink, eventID)
}

// Redeliver makes a delivery that has ended once more, through the whole schedule if need be; ErrNoDelivery or ErrPending.
func (s *Sender) Redeliver(ctx context.Context, sink, eventID string) error {
	if err := s.now().o.Outbox.Requeue(ctx, sink, eventID); err != nil {
		return err
	}
	if k := s.sink(sink); k != nil {
		return k.ask(ctx, func() { k.check = true })
	}
	return nil
}

// Replay makes the deliveries to a sink once more that are dead letters, of events that happened at since or later and before until;
// zero: whenever. It returns how many there are.
func (s *Sender) Replay(ctx context.Context, sink string, since, until time.Time) (int, error) {
	k := s.sink(sink)
	if k == nil {
		return 0, ErrNoSink
	}
	n, err := s.now().o.Outbox.Replay(ctx, sink, since, until)
	if err != nil {
		return n, err
	}
	return n, k.ask(ctx, func() { k.check = true })
}

// Sinks returns how each sink is, in the order of Options.Sinks, and the callbacks last.
func (s *Sender) Sinks(ctx context.Context) ([]SinkStatus, error) {
	sinks := s.now().sinks
	all := make([]SinkStatus, len(sinks))
	for i, k := range sinks {
		var err error
		if all[i], err = k.status(ctx); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Sink returns how one is; ErrNoSink if there is none of the name.
func (s *Sender) Sink(ctx context.Context, name string) (SinkStatus, error) {
	k := s.sink(name)
	if k == nil {
		return SinkStatus{}, ErrNoSink
	}
	return k.status(ctx)
}

// Pause has a sink sent nothing more until Resume, which outlives the process where the Outbox does.
func (s *Sender) Pause(ctx context.Context, name string) error {
	k := s.sink(name)
	if k == nil {
		return ErrNoSink
	}
	return k.change(ctx, func() {
		k.standing.Paused = true
		k.hand.releaseAll()
		k.log.Info().Msg("webhook sink is paused")
	})
}

// Resume sets a sink going that is paused, disabled or failing, and makes due what waits for its next attempt.
func (s *Sender) Resume(ctx context.Context, name string) error {
	k := s.sink(name)
	if k == nil {
		return ErrNoSink
	}
	return k.change(ctx, func() {
		k.standing.Paused, k.standing.Disabled, k.standing.FailingSince = false, "", time.Time{}
		for _, g := range k.gates {
			g.failures, g.until = 0, time.Time{}
		}
		k.look, k.check, k.hasten = true, true, true
		k.log.Info().Msg("webhook sink is resumed")
	})
}

// Test sends an event to a sink, now and once, whatever its state; nothing is kept of it.
func (s *Sender) Test(ctx context.Context, name string) (Attempt, error) {
	k := s.sink(name)
	if k == nil || k.callbacks != nil {
		return Attempt{}, ErrNoSink
	}
	now := time.Now()
	e := event.New(event.SinkTest, name, uint64(now.UnixMicro()), now, event.Data{Rest: &event.Rest{Sink: name}, Reason: "somebody asked for it"})
	return k.post.send(ctx, k.to, Letter{EventID: e.ID, Type: e.Type, Body: Encode(s.now().o.Source, e)}).Attempt, nil
}

// CheckCallback returns why a job may not have a callback, a *CallbackError, and fills in its Events where it names none.
func (s *Sender) CheckCallback(c *event.Callback) error {
	callbacks := s.now().callbacks
	if callbacks == nil {
		return &CallbackError{"url", "is refused: the gateway's configuration allows no callbacks"}
	}
	return callbacks.check(c)
}

// Undelivered returns how many events the sinks have not had, at most: it counts events that they may not want.
func (s *Sender) Undelivered(ctx context.Context) (n int64) {
	for _, k := range s.now().sinks {
		if b, err := s.now().o.Outbox.Backlog(ctx, k.name); err == nil {
			n += b.Behind + b.Pending
		}
	}
	return n
}

func (s *Sender) sink(name string) *sink {
	set := s.now()
	return set.sink(name)
}

func (k *sink) status(ctx context.Context) (SinkStatus, error) {
	s := SinkStatus{Name: k.name, URL: k.to.shown, Events: k.events, Functions: k.functions}
	err := k.ask(ctx, func() {
		s.Standing = k.standing
		switch {
		case k.standing.Disabled != "":
			s.State = Disabled
		case k.standing.Paused:
			s.State = Paused
		case k.failing():
			s.State = Failing
		default:
			s.State = Active
		}
	})
	if err != nil {
		return s, err
	}
	s.Backlog, err = k.outbox.Backlog(ctx, k.name)
	return s, err
}

// ask runs f on the sink's goroutine and waits for it. After the sink's end it returns errStopped.
func (k *sink) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case k.commands <- func() { f(); close(done) }:
		<-done
		return nil
	case <-k.ended:
		return errStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// change runs f, which changes the sink's standing, and returns when that is stored.
func (k *sink) change(ctx context.Context, f func()) error {
	kept := make(chan error, 1)
	err := k.ask(ctx, func() {
		f()
		k.dirty = true
		k.waiters = append(k.waiters, kept)
	})
	if err != nil {
		return err
	}
	select {
	case err := <-kept:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

package webhook

import "context"

// A Meter counts attempts. It is called from many goroutines, and must not block.
type Meter interface {
	// Attempted is told of each attempt of a delivery, and of what the delivery is now: Dead if that was the last one.
	Attempted(sink string, a Attempt, state DeliveryState)

	// GivenUp is told of each delivery that became Dead without an attempt.
	GivenUp(sink string)
}

func (k *sink) meter(a Attempt, state DeliveryState) {
	if k.counts != nil {
		k.counts.Attempted(k.name, a, state)
	}
}

func (k *sink) meterGivenUp() {
	if k.counts != nil {
		k.counts.GivenUp(k.name)
	}
}

// SinkStats is what there is to count of a sink.
type SinkStats struct {
	Name  string
	State SinkState
	Backlog
	Err error // why the Backlog is not known
}

// Stats returns how each sink is. Unlike Sinks it goes on where one's backlog cannot be had, and asks all of them at once. It costs
// what Outbox.Backlog does, for each sink.
func (s *Sender) Stats(ctx context.Context) []SinkStats {
	sinks := s.now().sinks
	all := make([]SinkStats, len(sinks))
	done := make(chan struct{})
	for i, k := range sinks {
		go func() {
			status, err := k.status(ctx)
			all[i] = SinkStats{Name: k.name, State: status.State, Backlog: status.Backlog, Err: err}
			done <- struct{}{}
		}()
	}
	for range sinks {
		<-done
	}
	return all
}

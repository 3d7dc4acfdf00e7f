package workerpool_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"gearman-gateway/internal/workerpool"
)

// meter is a Meter, and what it is told.
type meter chan [2]string

func (m meter) RunEnded(function, outcome string, _ time.Duration) { m <- [2]string{function, outcome} }

func TestTheMeterHearsHowRunsEnd(t *testing.T) {
	server := startServer(t, "127.0.0.1:0")
	m := make(meter, 10)
	begun := make(chan struct{})
	p, stop := startPool(t, workerpool.Options{
		Concurrency: 3, Meter: m,
		Functions: functions{
			"good":   fn(func(context.Context, *workerpool.Job) ([]byte, error) { return nil, nil }),
			"bad":    fn(func(context.Context, *workerpool.Job) ([]byte, error) { return nil, errors.New("no") }),
			"panics": fn(func(context.Context, *workerpool.Job) ([]byte, error) { panic("no") }),
			"stays": fn(func(ctx context.Context, _ *workerpool.Job) ([]byte, error) {
				close(begun)
				<-ctx.Done()
				return nil, ctx.Err()
			}),
		},
	}, server.Addr())
	c := connect(t, server.Addr())
	for function, outcome := range map[string]string{"good": workerpool.RunCompleted, "bad": "exception", "panics": "panic"} {
		call(t, c, function, "")
		if got := receive(t, m, "the end of a run"); got != [2]string{function, outcome} {
			t.Errorf("%s: told %v, want %s", function, got, outcome)
		}
	}
	submit(t, c, "stays", "")
	receive(t, begun, "a run")
	want := workerpool.Stats{Slots: 3, Busy: 1, Functions: 4, Lives: 1}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for patience := time.After(10 * time.Second); p.Stats() != want; { // the end of a run is told before it gives its slot back
		select {
		case <-tick.C:
		case <-patience:
			t.Fatalf("stats: %+v, want %+v", p.Stats(), want)
		}
	}
	if err := stop(ended()); err != nil {
		t.Error(err)
	}
	if got := receive(t, m, "the end of a run"); got != [2]string{"stays", workerpool.RunHandedBack} {
		t.Errorf("told %v", got)
	}
}

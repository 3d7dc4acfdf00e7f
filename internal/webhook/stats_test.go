package webhook

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tallies is a Meter.
type tallies struct {
	mu   sync.Mutex
	told map[string][]DeliveryState
}

func (m *tallies) Attempted(sink string, a Attempt, state DeliveryState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told[sink] = append(m.told[sink], state)
}

func (m *tallies) GivenUp(sink string) { m.Attempted(sink, Attempt{}, Dead) }

func TestTheMeterHearsOfEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &tallies{told: map[string][]DeliveryState{}}
		w := &wire{answer: func(r *http.Request, _ call) (int, error) {
			if r.URL.Host == "bad.test" {
				return 400, nil
			}
			return 200, nil
		}}
		o := Options{Meter: m, Schedule: seconds(0, 1), Sinks: []SinkOptions{{Name: "good", URL: "http://good.test"}, {Name: "bad", URL: "http://bad.test"}}}
		s := start(t, w, o)
		s.publish(ev("a", 1))
		time.Sleep(5 * time.Second)
		o.Meter, o.Transport = nil, w
		if err := s.Reload(t.Context(), o); err != nil { // which does not bring another
			t.Fatal(err)
		}
		s.publish(ev("b", 1))
		time.Sleep(5 * time.Second)
		m.mu.Lock()
		defer m.mu.Unlock()
		if diff := cmp.Diff([]DeliveryState{Delivered, Delivered}, m.told["good"]); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]DeliveryState{Pending, Dead}, m.told["bad"][:2]); diff != "" {
			t.Error(diff)
		}
	})
}

// blind is an outbox whose backlog nobody can tell.
type blind struct{ Outbox }

var errBlind = errors.New("the disk does not answer")

func (blind) Backlog(context.Context, string) (Backlog, error) { return Backlog{}, errBlind }

func TestStatsTellTheStateOfSinksWhoseBacklogIsNotKnown(t *testing.T) {
	o := Options{Outbox: blind{NewMemory(MemoryOptions{})}, Sinks: []SinkOptions{{Name: "a", URL: "http://127.0.0.1:1"}, {Name: "b", URL: "http://127.0.0.1:1"}}}
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(s, 0)
	if err := s.Pause(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	got := s.Stats(t.Context())
	if len(got) != 2 || got[0].Name != "a" || got[0].State != Active || got[1].State != Paused || !errors.Is(got[0].Err, errBlind) {
		t.Errorf("got %+v", got)
	}
}

package httpapi

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

// fakeHooks is Webhooks. It has the log of events that it was given, and one sink, "audit"; each function may be replaced before the
// first request.
type fakeHooks struct {
	events     func(webhook.EventQuery) (webhook.EventPage, error)
	test       func(ctx context.Context) (webhook.Attempt, error)
	deliveries func(webhook.DeliveryQuery) ([]webhook.Delivery, error)
	delivery   func() (webhook.Delivery, error)
	redeliver  error
	refuse     *webhook.CallbackError
	broken     error // of what is asked about sinks

	mu     sync.Mutex
	log    [][]byte
	grown  chan struct{}
	asked  []webhook.EventQuery
	calls  []string // of what changes something
	status webhook.SinkStatus
}

// happen adds events to the log.
func (h *fakeHooks) happen(bodies ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range bodies {
		h.log = append(h.log, []byte(b))
	}
	if h.grown != nil {
		close(h.grown)
		h.grown = nil
	}
}

func (h *fakeHooks) Grown() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.grown == nil {
		h.grown = make(chan struct{})
	}
	return h.grown
}

// Events selects by number alone.
func (h *fakeHooks) Events(_ context.Context, q webhook.EventQuery) (webhook.EventPage, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, q)
	if h.events != nil {
		return h.events(q)
	}
	n := int64(len(h.log))
	end := min(n, q.After+int64(q.Limit))
	return webhook.EventPage{Bodies: h.log[min(q.After, n):end], Next: end, End: end == n}, nil
}

func (h *fakeHooks) Sinks(context.Context) ([]webhook.SinkStatus, error) {
	return []webhook.SinkStatus{h.status, {Name: "callbacks", State: webhook.Active}}, h.broken
}

func (h *fakeHooks) Sink(_ context.Context, name string) (webhook.SinkStatus, error) {
	if name != "audit" {
		return webhook.SinkStatus{}, webhook.ErrNoSink
	}
	return h.status, h.broken
}

// change notes a call, and knows which sinks there are.
func (h *fakeHooks) change(sink, format string, args ...any) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if sink != "audit" {
		return fmt.Errorf("%q: %w", sink, webhook.ErrNoSink)
	}
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
	return h.broken
}

func (h *fakeHooks) Test(ctx context.Context, sink string) (webhook.Attempt, error) {
	if err := h.change(sink, "test"); err != nil || h.test == nil {
		return webhook.Attempt{}, err
	}
	return h.test(ctx)
}

func (h *fakeHooks) Pause(_ context.Context, sink string) error  { return h.change(sink, "pause") }
func (h *fakeHooks) Resume(_ context.Context, sink string) error { return h.change(sink, "resume") }

func (h *fakeHooks) Replay(_ context.Context, sink string, since, until time.Time) (int, error) {
	return 12, h.change(sink, "replay %s %s", since.Format(time.RFC3339), until.Format(time.RFC3339))
}

func (h *fakeHooks) Deliveries(_ context.Context, q webhook.DeliveryQuery) ([]webhook.Delivery, error) {
	if h.deliveries != nil {
		return h.deliveries(q)
	}
	return nil, nil
}

func (h *fakeHooks) Delivery(_ context.Context, sink, eventID string) (webhook.Delivery, error) {
	h.note("delivery %s %s", sink, eventID)
	if h.delivery != nil {
		return h.delivery()
	}
	return webhook.Delivery{}, webhook.ErrNoDelivery
}

func (h *fakeHooks) Redeliver(_ context.Context, sink, eventID string) error {
	h.note("redeliver %s %s", sink, eventID)
	return h.redeliver
}

func (h *fakeHooks) note(format string, args ...any) { _ = h.change("audit", format, args...) }

// CheckCallback allows one host.
func (h *fakeHooks) CheckCallback(c *event.Callback) error {
	if h.refuse != nil {
		return h.refuse
	}
	if !strings.HasPrefix(c.URL, "https://shop.example/") && !strings.HasPrefix(c.URL, "https://me:pass@shop.example/") {
		return &webhook.CallbackError{Member: "url", Detail: "is of a host that is not allowed"}
	}
	if c.Events == nil {
		c.Events = event.CallbackPatterns
	}
	return nil
}

// wantCalls checks what was called since the last time.
func (h *fakeHooks) wantCalls(t *testing.T, want ...string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if diff := cmp.Diff(want, h.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	h.calls = nil
}

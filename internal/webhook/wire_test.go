package webhook

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gearman-gateway/internal/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A call is one request as the sink of a test saw it.
type call struct {
	at     time.Time
	host   string
	header http.Header
	body   string
	id     string
}

// A wire is a transport without a network: answer decides what each request gets, and it keeps them all.
type wire struct {
	answer func(*http.Request, call) (status int, err error)

	mu    sync.Mutex
	seen  []call
	reply http.Header
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	c := call{at: time.Now(), host: r.URL.Host, header: r.Header.Clone(), body: string(body), id: r.Header.Get("webhook-id")}
	w.mu.Lock()
	w.seen = append(w.seen, c)
	w.mu.Unlock()
	status, err := w.answer(r, c)
	if err != nil {
		return nil, err
	}
	header := w.reply.Clone()
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: header, Body: http.NoBody, Request: r}, nil
}

func (w *wire) calls() []call {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

// ids returns the events of the calls, in order, as the letters or numbers that ev gave them.
func (w *wire) ids() (ids []string) {
	for _, c := range w.calls() {
		ids = append(ids, c.id)
	}
	return ids
}

func ok(*http.Request, call) (int, error) { return 200, nil }

// status answers the same to all.
func status(code int) func(*http.Request, call) (int, error) {
	return func(*http.Request, call) (int, error) { return code, nil }
}

// hang answers when the request is given up.
func hang(r *http.Request, _ call) (int, error) {
	<-r.Context().Done()
	return 0, r.Context().Err()
}

// ev returns an event whose id is subject and seq, such as a1.
func ev(subject string, seq uint64) event.Event {
	return event.Event{ID: fmt.Sprint(subject, seq), Type: event.JobStarted, Subject: subject, Seq: seq, Time: time.Now()}
}

// desk is a Sender on a Memory, whose sinks are a wire.
type desk struct {
	*Sender
	t      *testing.T
	outbox *Memory
}

// start starts a Sender with one sink, unless o has some, that is stopped at the end of the test. It has an Outbox of its own unless o
// has one.
func start(t *testing.T, w *wire, o Options) *desk {
	t.Helper()
	if o.Sinks == nil {
		o.Sinks = []SinkOptions{{Name: "sink", URL: "http://sink.test/"}}
	}
	if o.Outbox == nil {
		o.Outbox = NewMemory(MemoryOptions{Wanted: o.Wanted()})
	}
	if w != nil {
		o.Transport = w
	}
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(s, 0) })
	return &desk{s, t, o.Outbox.(*Memory)}
}

func (d *desk) publish(events ...event.Event) { d.outbox.Publish(events...) }

// status returns how a sink is.
func (d *desk) status(sink string) SinkStatus {
	d.t.Helper()
	s, err := d.Sink(d.t.Context(), sink)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// count returns how many deliveries of a sink are in a state.
func (d *desk) count(sink string, state DeliveryState) int {
	d.t.Helper()
	all, err := d.Deliveries(d.t.Context(), DeliveryQuery{Sink: sink, State: state, Limit: 1 << 20})
	if err != nil {
		d.t.Fatal(err)
	}
	return len(all)
}

// tally is what became of a sink's deliveries, and of the sink.
type tally struct {
	Delivered, Dead, Pending int
	State                    SinkState // "": Active
}

func (d *desk) check(sink string, want tally) {
	d.t.Helper()
	want.State = cmp.Or(want.State, Active)
	got := tally{d.count(sink, Delivered), d.count(sink, Dead), d.count(sink, Pending), d.status(sink).State}
	if got != want {
		d.t.Errorf("%s: got %+v, want %+v", sink, got, want)
	}
}

// stop stops s within d.
func stop(s *Sender, d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	s.Stop(ctx)
}

// advance lets time go by, in the bubble of a test.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func seconds(n ...int) (d []time.Duration) {
	for _, s := range n {
		d = append(d, time.Duration(s)*time.Second)
	}
	return d
}

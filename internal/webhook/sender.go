package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/event"
)

// SinkOptions describe one receiver.
type SinkOptions struct {
	Name        string         // in logs and Stats, once in a Sender; "" means the host of URL
	URL         string         // http or https; its user and password become basic authentication and are never logged
	Secrets     []Secret       // each signs every delivery; none: deliveries are not signed
	Events      event.Patterns // nil means event.DefaultPatterns
	Timeout     time.Duration  // of one attempt; 0 means 15 s
	Concurrency int            // most deliveries at a time; 0 means 8
}

// Options are the Sender's. The zero value has no sinks.
type Options struct {
	Source string        // CloudEvents' source, a URI reference; "" means "/gateway"
	Sinks  []SinkOptions //
	// Schedule is the delay before each attempt, counted from the one before, give or take a fifth; an event that failed them
	// all is a dead letter. nil means 0s, 5s, 5m, 30m, 2h, 5h, 10h, 14h, 20h, 24h.
	Schedule []time.Duration
	// The bounds of each sink's queue. An event counts with the bytes of its payload, up to 20 kB, and 1 KiB.
	QueueEvents int               // 0 means 100,000
	QueueBytes  int64             // 0 means 64 MiB
	Log         zerolog.Logger    //
	Transport   http.RoundTripper // nil means one of the Sender's own: keep-alive, no proxy
}

var defaultSchedule = []time.Duration{
	0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour,
	20 * time.Hour, 24 * time.Hour,
}

// A Sender delivers events to sinks until Stop. Sinks are independent of each other, and so are subjects within a sink; the
// events of one subject arrive in the order in which they were published, and the next is sent only when the one before
// was delivered or became a dead letter. While the process lives each event is delivered at least once, except those that
// Stats counts as dropped or dead. All methods are safe for concurrent use.
type Sender struct {
	source string
	sinks  []*sink

	stopping sync.Once
	abort    context.CancelCauseFunc
	running  sync.WaitGroup
	own      *http.Transport // nil where Options brought one
}

var _ event.Sink = (*Sender)(nil)

// Stats count what became of the events for one sink. Each event that its patterns select ends up in one of Delivered, Dead and
// Dropped, and is Queued before that.
type Stats struct {
	Name      string
	Delivered uint64
	Dead      uint64 // events that failed every attempt of the schedule
	Dropped   uint64 // events given up: the queue was full, the sink is disabled, or Stop was called
	Failed    uint64 // attempts that failed
	Queued    int    // events that wait or are under way
	Disabled  bool   // the sink answered 410 Gone
}

// New checks the options and starts a Sender. Its errors show no URL's user, password or query.
func New(o Options) (*Sender, error) {
	o.Source = cmp.Or(o.Source, "/gateway")
	if _, err := url.Parse(o.Source); err != nil {
		return nil, errors.New("webhook source is not a URI reference")
	}
	if o.Schedule == nil {
		o.Schedule = defaultSchedule
	}
	if len(o.Schedule) == 0 || slices.Min(o.Schedule) < 0 {
		return nil, errors.New("webhook schedule needs at least one delay, and none below zero")
	}
	s := &Sender{source: o.Source}
	if o.Transport == nil {
		s.own = newTransport(o.Sinks)
		o.Transport = s.own
	}
	for i, so := range o.Sinks {
		k, err := newSink(o, so)
		if err != nil {
			return nil, fmt.Errorf("webhook sink %q: %w", cmp.Or(so.Name, fmt.Sprint(i+1)), err)
		}
		if slices.ContainsFunc(s.sinks, func(other *sink) bool { return other.name == k.name }) {
			return nil, fmt.Errorf("webhook sink %q: two sinks have that name", k.name)
		}
		s.sinks = append(s.sinks, k)
	}
	ctx, abort := context.WithCancelCause(context.Background())
	s.abort = abort
	for _, k := range s.sinks {
		s.running.Go(func() { k.run(ctx) })
	}
	return s, nil
}

// newTransport returns a transport that keeps a connection for each delivery at a time. Its Proxy is nil: the
// environment's proxy is none of the sinks'.
func newTransport(sinks []SinkOptions) *http.Transport {
	idle := defaultConcurrency
	for _, so := range sinks {
		idle = max(idle, so.Concurrency)
	}
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConnsPerHost:    idle,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
}

// Publish hands events to the sinks whose patterns select them. It does not block: where a queue is full, its oldest event
// gives way.
func (s *Sender) Publish(events ...event.Event) {
	now := time.Now()
	for _, e := range events {
		var m *message // one for all sinks
		for _, k := range s.sinks {
			if !k.wants[e.Type] {
				continue
			}
			if m == nil {
				m = newMessage(s.source, e)
			}
			k.push(m, now)
		}
	}
}

// Stop takes no more events, delivers what is due before the deadline of ctx, gives up the rest, and returns when every
// goroutine has ended. Without a deadline it delivers what is due now. When ctx ends, deliveries under way are cut off.
func (s *Sender) Stop(ctx context.Context) {
	s.stopping.Do(func() {
		until, _ := ctx.Deadline()
		for _, k := range s.sinks {
			k.queue.close()
			k.stop <- until
		}
	})
	defer context.AfterFunc(ctx, func() { s.abort(errStopped) })()
	s.running.Wait()
	s.abort(errStopped)
	if s.own != nil {
		s.own.CloseIdleConnections()
	}
}

// Stats returns the counts of each sink, in the order of Options.Sinks.
func (s *Sender) Stats() []Stats {
	stats := make([]Stats, len(s.sinks))
	for i, k := range s.sinks {
		stats[i] = k.stats()
	}
	return stats
}

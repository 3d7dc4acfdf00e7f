package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/event"
)

// SinkOptions describe one receiver.
type SinkOptions struct {
	Name        string            // where its deliveries are kept under, once in a Sender; "" means the host of URL
	URL         string            // http or https; its user and password become basic authentication and are never logged
	Secrets     []Secret          // each signs every delivery; none: deliveries are not signed
	Events      event.Patterns    // nil means event.DefaultPatterns
	Functions   []string          // only events of these functions, each a name or the beginning of names and "*"; nil means all
	Timeout     time.Duration     // of one attempt; 0 means 15 s
	Concurrency int               // most deliveries at a time; 0 means 8
	Headers     map[string]string // sent along; their values are never logged
	ContentType string            // "" means application/cloudevents+json
	Rate        float64           // most deliveries a second; 0 means no limit
}

// Options are the Sender's. Outbox is needed.
type Options struct {
	Outbox    Outbox
	Source    string // CloudEvents' source of test events, a URI reference; "" means DefaultSource
	Sinks     []SinkOptions
	Callbacks *CallbackOptions // nil: jobs may not have callbacks
	// Schedule is the delay before each attempt, counted from the one before, give or take a fifth; an event that failed them
	// all is a dead letter. The first is 0. nil means 0s, 5s, 5m, 30m, 2h, 5h, 10h, 14h, 20h, 24h.
	Schedule     []time.Duration
	DisableAfter time.Duration // a sink that has failed for so long, without a success, is disabled; 0 means 5 days
	Log          zerolog.Logger
}

// DefaultSource is the CloudEvents source of a gateway that has no other.
const DefaultSource = "/gateway"

var defaultSchedule = []time.Duration{
	0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour,
	20 * time.Hour, 24 * time.Hour,
}

const (
	defaultTimeout      = 15 * time.Second
	defaultConcurrency  = 8
	defaultDisableAfter = 5 * 24 * time.Hour
)

// Wanted returns which events are worth keeping: those that a sink selects, that a job's callback wants, and, for whoever reads the
// feed, those that a sink hears that selects none itself.
func (o *Options) Wanted() func(Head) bool {
	patterns := slices.Clone(event.DefaultPatterns)
	for _, so := range o.Sinks {
		patterns = append(patterns, so.Events...)
	}
	wanted := typesOf(patterns)
	return func(h Head) bool { return wanted[h.Type] || h.Callback }
}

// typesOf returns the types that patterns select, since a map is quicker to ask.
func typesOf(patterns event.Patterns) map[event.Type]bool {
	types := map[event.Type]bool{}
	for _, t := range event.Types {
		if patterns.Match(t) {
			types[t] = true
		}
	}
	return types
}

// A Sender delivers the events of an Outbox to sinks and callbacks until Stop. Sinks are independent of each other, and so are the
// subjects within a sink; the events of one subject arrive in the order in which they were published, and the next is sent only when
// the one before was delivered or is a dead letter. Each event is delivered at least once, and as long as the Outbox keeps it also
// when the process dies: then some are delivered again. All methods are safe for concurrent use.
type Sender struct {
	o         Options
	sinks     []*sink // and the callbacks, as the last, where there are any
	callbacks *callbacks

	stopping sync.Once
	abort    context.CancelCauseFunc
	running  sync.WaitGroup
}

// New checks the options, finds out where each sink stands, and starts a Sender. Its errors show no URL's user, password or query.
func New(ctx context.Context, o Options) (*Sender, error) {
	o.Source = cmp.Or(o.Source, DefaultSource)
	o.DisableAfter = cmp.Or(o.DisableAfter, defaultDisableAfter)
	if o.Schedule == nil {
		o.Schedule = defaultSchedule
	}
	if len(o.Schedule) == 0 || slices.Min(o.Schedule) < 0 || o.Schedule[0] != 0 {
		return nil, errors.New("webhook schedule begins with 0, and has no delay below that")
	}
	s := &Sender{o: o}
	if err := s.makeSinks(); err != nil {
		return nil, err
	}
	for _, k := range s.sinks {
		standing, err := o.Outbox.Register(ctx, k.name)
		if err != nil {
			return nil, fmt.Errorf("webhook sink %q: %w", k.name, err)
		}
		k.takeUp(standing)
	}
	run, abort := context.WithCancelCause(context.Background())
	s.abort = abort
	for _, k := range s.sinks {
		s.running.Go(func() { k.run(run) })
	}
	return s, nil
}

func (s *Sender) makeSinks() error {
	for i, so := range s.o.Sinks {
		k, err := newSink(&s.o, so)
		if err != nil {
			return fmt.Errorf("webhook sink %q: %w", cmp.Or(so.Name, fmt.Sprint(i+1)), err)
		}
		if k.name == callbacksName || slices.ContainsFunc(s.sinks, func(other *sink) bool { return other.name == k.name }) {
			return fmt.Errorf("webhook sink %q: the name is taken", k.name)
		}
		s.sinks = append(s.sinks, k)
	}
	if s.o.Callbacks == nil {
		return nil
	}
	c, err := newCallbacks(*s.o.Callbacks)
	if err != nil {
		return fmt.Errorf("callbacks: %w", err)
	}
	s.callbacks = c
	s.sinks = append(s.sinks, newCallbackSink(&s.o, c))
	return nil
}

// newTransport returns a transport that keeps a connection for each delivery at a time. Its Proxy is nil: the environment's proxy is
// none of the sinks'. control is the dialer's, or nil.
func newTransport(idle int, control func(network, address string, c syscall.RawConn) error) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: control}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConns:           1000,
		MaxIdleConnsPerHost:    idle,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
}

// Stop goes on until nothing is due or ctx ends, which cuts off the deliveries under way, and returns when every goroutine has ended.
// What was not delivered stays in the Outbox.
func (s *Sender) Stop(ctx context.Context) {
	s.stopping.Do(func() {
		for _, k := range s.sinks {
			close(k.stop)
		}
	})
	defer context.AfterFunc(ctx, func() { s.abort(errStopped) })()
	s.running.Wait()
	s.abort(errStopped)
	for _, k := range s.sinks {
		k.post.client.CloseIdleConnections()
	}
}

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
	"gearman-gateway/internal/tracing"
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
	Meter        Meter         // nil: nobody counts
	Log          zerolog.Logger
	Tracer       *tracing.Tracer   // nil: there are no traces
	Transport    http.RoundTripper // of the sinks; nil means one of their own each: keep-alive, no proxy
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
	reloading sync.Mutex // held while sinks come and go
	run       context.Context
	abort     context.CancelCauseFunc
	running   sync.WaitGroup

	mu      sync.RWMutex // guards what follows
	set     set
	stopped bool
}

// A set is the sinks of one configuration.
type set struct {
	o         Options
	sinks     []*sink // and the callbacks, as the last, where there are any
	callbacks *callbacks
}

// New checks the options, finds out where each sink stands, and starts a Sender. Its errors show no URL's user, password or query.
func New(ctx context.Context, o Options) (*Sender, error) {
	set, err := newSet(o)
	if err != nil {
		return nil, err
	}
	s := &Sender{}
	s.run, s.abort = context.WithCancelCause(context.Background())
	if err := set.register(ctx); err != nil {
		return nil, err
	}
	s.begin(set)
	return s, nil
}

func newSet(o Options) (set, error) {
	o.Source = cmp.Or(o.Source, DefaultSource)
	o.DisableAfter = cmp.Or(o.DisableAfter, defaultDisableAfter)
	if o.Schedule == nil {
		o.Schedule = defaultSchedule
	}
	if len(o.Schedule) == 0 || slices.Min(o.Schedule) < 0 || o.Schedule[0] != 0 {
		return set{}, errors.New("webhook schedule begins with 0, and has no delay below that")
	}
	s := set{o: o}
	for i, so := range o.Sinks {
		k, err := newSink(&s.o, so)
		if err != nil {
			return set{}, fmt.Errorf("webhook sink %q: %w", cmp.Or(so.Name, fmt.Sprint(i+1)), err)
		}
		if k.name == CallbacksName || s.sink(k.name) != nil {
			return set{}, fmt.Errorf("webhook sink %q: the name is taken", k.name)
		}
		s.sinks = append(s.sinks, k)
	}
	if o.Callbacks == nil {
		return s, nil
	}
	c, err := newCallbacks(*o.Callbacks)
	if err != nil {
		return set{}, fmt.Errorf("callbacks: %w", err)
	}
	s.callbacks = c
	s.sinks = append(s.sinks, newCallbackSink(&s.o, c))
	return s, nil
}

// register finds out where each sink stands.
func (s *set) register(ctx context.Context) error {
	for _, k := range s.sinks {
		standing, err := s.o.Outbox.Register(ctx, k.name)
		if err != nil {
			return fmt.Errorf("webhook sink %q: %w", k.name, err)
		}
		k.standing, k.began = standing, time.Now()
	}
	return nil
}

func (s *set) sink(name string) *sink {
	for _, k := range s.sinks {
		if k.name == name {
			return k
		}
	}
	return nil
}

// begin sets sinks going.
func (s *Sender) begin(next set) {
	for _, k := range next.sinks {
		k.takeUp()
		ctx, cut := context.WithCancelCause(s.run)
		k.cut = cut
		s.running.Go(func() { k.run(ctx) })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set = next
}

// now returns the sinks there are.
func (s *Sender) now() set {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.set
}

// lastAttempts is how long the attempts under way may take to end when their sink is replaced; then they are cut off, and made again.
const lastAttempts = time.Second

// Reload puts other sinks, another policy for callbacks and another schedule in the place of those there are; Options.Outbox, Meter and
// Tracer stay. A sink
// that keeps its name goes on where it was. After an error nothing has changed.
func (s *Sender) Reload(ctx context.Context, o Options) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	old := s.now()
	o.Outbox, o.Meter, o.Tracer = old.o.Outbox, old.o.Meter, old.o.Tracer
	next, err := newSet(o)
	if err != nil {
		return err
	}
	if err := next.register(ctx); err != nil {
		return err
	}
	if s.isStopped() {
		return errStopped
	}
	for _, k := range old.sinks {
		close(k.leave)
	}
	cut := time.AfterFunc(lastAttempts, func() {
		for _, k := range old.sinks {
			k.cut(errStopped)
		}
	})
	defer cut.Stop()
	for _, k := range old.sinks {
		<-k.ended
		k.post.client.CloseIdleConnections()
		if other := next.sink(k.name); other != nil {
			other.standing, other.began = k.standing, k.began // it may have changed since it was registered
		} else if err := o.Outbox.Unregister(ctx, k.name); err != nil {
			k.log.Error().Err(err).Msg("webhook sink is gone, but its events are kept for it until the gateway starts anew")
		}
	}
	s.begin(next)
	return nil
}

func (s *Sender) isStopped() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.stopped
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
	defer context.AfterFunc(ctx, func() { s.abort(errStopped) })()
	s.mu.Lock()
	first := !s.stopped
	s.stopped = true
	s.mu.Unlock()
	s.reloading.Lock()
	defer s.reloading.Unlock()
	sinks := s.now().sinks
	for _, k := range sinks {
		if first {
			close(k.stop)
		}
	}
	s.running.Wait()
	s.abort(errStopped)
	for _, k := range sinks {
		k.post.client.CloseIdleConnections()
	}
}

package webhook

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/event"
)

const (
	defaultTimeout     = 15 * time.Second
	defaultConcurrency = 8
	defaultQueueEvents = 100_000
	defaultQueueBytes  = 64 << 20
)

var errStopped = errors.New("the sender was stopped")

// A sink is one receiver: its queue, the goroutine of run that alone decides what is sent when, and one goroutine for
// each delivery under way.
type sink struct {
	name        string
	url         string // with its secrets
	shown       string // without
	secrets     []Secret
	wants       map[event.Type]bool
	timeout     time.Duration
	concurrency int
	schedule    []time.Duration
	client      *http.Client
	log         zerolog.Logger

	queue *queue
	wake  chan struct{}  // holds one: something was pushed
	stop  chan time.Time // holds one: finish by then

	delivered, dead, dropped, failed atomic.Uint64
	overflowed                       atomic.Uint64 // dropped by a full queue and not logged yet
	disabled                         atomic.Bool

	// of run's goroutine
	results   chan result
	inFlight  int
	gate      gate
	logDropAt time.Time // not before
}

// A result is how an attempt ended.
type result struct {
	*delivery
	probe bool
	retry bool
	after time.Duration
	err   error
}

func newSink(o Options, so SinkOptions) (*sink, error) {
	u, err := url.Parse(so.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("url is not that of an http or https server") // err would show what may be a password
	}
	if so.Timeout < 0 || so.Concurrency < 0 || o.QueueEvents < 0 || o.QueueBytes < 0 {
		return nil, errors.New("a timeout, concurrency or queue bound is below zero")
	}
	if slices.ContainsFunc(so.Secrets, func(s Secret) bool { return s.key == nil }) {
		return nil, errors.New("a secret is empty")
	}
	if so.Events == nil {
		so.Events = event.DefaultPatterns
	}
	if err := so.Events.Check(); err != nil {
		return nil, err
	}
	k := &sink{
		name: cmp.Or(so.Name, u.Host), url: so.URL, shown: redacted(u), secrets: so.Secrets, wants: map[event.Type]bool{},
		timeout: cmp.Or(so.Timeout, defaultTimeout), concurrency: cmp.Or(so.Concurrency, defaultConcurrency), schedule: o.Schedule,
		client: &http.Client{Transport: o.Transport, CheckRedirect: noRedirect},
		queue:  newQueue(cmp.Or(o.QueueEvents, defaultQueueEvents), cmp.Or(o.QueueBytes, defaultQueueBytes)),
		wake:   make(chan struct{}, 1), stop: make(chan time.Time, 1),
	}
	k.results = make(chan result, k.concurrency)
	k.log = o.Log.With().Str("sink", k.name).Logger()
	for _, t := range event.Types {
		k.wants[t] = so.Events.Match(t)
	}
	return k, nil
}

// noRedirect makes a redirect the answer: following it could lead anywhere, and drop the body on the way.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func (k *sink) push(m *message, now time.Time) {
	dropped, full := k.queue.push(m, now.Add(jitter(k.schedule[0])))
	if dropped > 0 {
		k.dropped.Add(uint64(dropped))
		if full {
			k.overflowed.Add(uint64(dropped))
		}
	}
	select {
	case k.wake <- struct{}{}:
	default: // it is awake already
	}
}

func (k *sink) stats() Stats {
	return Stats{
		Name: k.name, Delivered: k.delivered.Load(), Dead: k.dead.Load(), Dropped: k.dropped.Load(), Failed: k.failed.Load(),
		Queued: k.queue.len(), Disabled: k.disabled.Load(),
	}
}

// run sends what is due until it is told to stop and nothing more can be sent in time, or ctx ends; it gives up what is left
// and returns when its deliveries have ended.
func (k *sink) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var stopping bool
	var until time.Time
	for ctx.Err() == nil {
		now := time.Now()
		next := k.start(ctx, now)
		if stopping && k.inFlight == 0 && (next.IsZero() || next.After(until)) {
			break
		}
		if at := k.logDropped(now); next.IsZero() || !at.IsZero() && at.Before(next) {
			next = at
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(next.Sub(now))
		}
		select {
		case <-k.wake:
		case <-timer.C:
		case r := <-k.results:
			k.settle(ctx, r)
		case until = <-k.stop:
			stopping = true
		case <-ctx.Done():
		}
	}
	for k.inFlight > 0 {
		k.settle(ctx, <-k.results)
	}
	k.logDropAt = time.Time{}
	k.logDropped(time.Now())
	if n := k.drop(); n > 0 {
		k.log.Warn().Int("events", n).Msg("stopped before these webhook events were delivered")
	}
}

// start sends what is due, as much as may be under way at a time, and returns when there will be more; the zero time if
// that depends on something else than the clock.
func (k *sink) start(ctx context.Context, now time.Time) time.Time {
	for k.inFlight < k.gate.limit(k.concurrency) {
		d, next := k.queue.take(now, k.gate.until)
		if d == nil {
			return next
		}
		k.inFlight++
		probe := k.gate.failing()
		go func() {
			retry, after, err := k.attempt(ctx, d.message)
			k.results <- result{d, probe, retry, after, err}
		}()
	}
	return time.Time{}
}

// settle does what follows from an attempt.
func (k *sink) settle(ctx context.Context, r result) {
	k.inFlight--
	now := time.Now()
	if r.err == nil {
		if k.gate.failing() {
			k.log.Info().Msg("webhook sink answers again")
		}
		k.gate.succeeded()
		k.delivered.Add(1)
		k.queue.done(r.delivery)
		return
	}
	if ctx.Err() != nil { // cut off: what waits is given up next
		k.queue.retry(r.delivery, now)
		return
	}
	k.failed.Add(1)
	r.attempts++
	k.log.Debug().Err(r.err).Str("event", r.id).Int("attempt", r.attempts).Msg("webhook not delivered")
	if k.gate.failed(now, r.probe, r.after) {
		k.log.Warn().Err(r.err).Msg("webhook sink keeps failing: one delivery at a time from now on")
	}
	switch {
	case !r.retry:
		k.queue.retry(r.delivery, now)
		k.disable(r.err)
	case r.attempts >= len(k.schedule):
		k.dead.Add(1)
		k.log.Error().Err(r.err).Str("event", r.id).Str("type", string(r.kind)).Str("subject", r.subject).
			Int("attempts", r.attempts).Msg("webhook event is a dead letter")
		k.queue.done(r.delivery)
	default:
		k.queue.retry(r.delivery, now.Add(jitter(k.schedule[r.attempts])))
	}
	if k.disabled.Load() {
		k.drop()
	}
}

// disable gives up the sink for good, as 410 Gone asks for.
func (k *sink) disable(err error) {
	if k.disabled.Swap(true) {
		return // another delivery was told so before
	}
	k.queue.close()
	k.log.Error().Err(err).Msg("webhook sink is disabled until the next start")
}

// drop gives up what waits.
func (k *sink) drop() int {
	n := k.queue.clear()
	k.dropped.Add(uint64(n))
	return n
}

// logDropped says how many events a full queue dropped, once a second at most, and returns when to call it again; the zero
// time: not before more are dropped.
func (k *sink) logDropped(now time.Time) time.Time {
	if k.overflowed.Load() == 0 {
		return time.Time{}
	}
	if now.Before(k.logDropAt) {
		return k.logDropAt
	}
	k.logDropAt = now.Add(time.Second)
	k.log.Error().Uint64("events", k.overflowed.Swap(0)).Msg("webhook queue is full: oldest events dropped")
	return time.Time{}
}

// jitter returns d, give or take a fifth, so that what failed together is not tried again together.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"gearman-gateway/internal/event"
)

var errStopped = errors.New("the sender was stopped")

// A sink works through the outbox for one receiver, or for all callbacks. The goroutine of run alone decides what is sent when;
// there is one more for each attempt under way, and one while something is asked of the outbox.
type sink struct {
	name        string
	outbox      Outbox
	post        *poster
	to          target     // zero for callbacks
	callbacks   *callbacks // nil: it has one target
	events      event.Patterns
	functions   []string
	types       map[event.Type]bool
	concurrency int
	limiter     *rate.Limiter // nil: there is no limit
	schedule    []time.Duration
	disable     time.Duration // after failing for so long
	source      string
	counts      Meter // nil: nobody counts
	log         zerolog.Logger

	commands chan func()   // run on run's goroutine
	stop     chan struct{} // closed: finish what is due
	leave    chan struct{} // closed: finish what is under way
	cut      context.CancelCauseFunc
	ended    chan struct{} // closed when run has ended

	// of run's goroutine
	standing Standing  // and of Sender's before and after
	began    time.Time // when this life of the gateway first knew it; the same
	leaving  bool
	gates    gates
	hand     hand
	results  chan result
	inFlight int
	exchange
}

// A result is how an attempt ended.
type result struct {
	line  *line
	gate  *gate
	probe bool
	cut   bool // the sender was stopped meanwhile
	outcome
}

// Check returns what is wrong with the options; it shows nothing that may be secret.
func (so *SinkOptions) Check() error {
	u, err := url.Parse(so.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("url is not that of an http or https server") // err would show what may be a password
	}
	if so.Timeout < 0 || so.Concurrency < 0 || so.Rate < 0 {
		return errors.New("a timeout, concurrency or rate is below zero")
	}
	if err := so.Events.Check(); err != nil {
		return fmt.Errorf("events: %w", err)
	}
	return errors.Join(checkSecrets(so.Secrets), checkHeaders(so.Headers), checkContentType(so.ContentType))
}

func newSink(o *Options, so SinkOptions) (*sink, error) {
	if err := so.Check(); err != nil {
		return nil, err
	}
	if so.Events == nil {
		so.Events = event.DefaultPatterns
	}
	u, _ := url.Parse(so.URL) // was checked
	so.Concurrency = cmp.Or(so.Concurrency, defaultConcurrency)
	transport := o.Transport
	if transport == nil {
		transport = newTransport(so.Concurrency, nil)
	}
	p := &poster{
		client:  &http.Client{Transport: transport, CheckRedirect: noRedirect},
		timeout: cmp.Or(so.Timeout, defaultTimeout), secrets: so.Secrets, headers: so.Headers,
		contentType: cmp.Or(so.ContentType, contentType),
	}
	k := makeSink(o, cmp.Or(so.Name, u.Host), p, so.Concurrency)
	k.to = target{so.URL, redacted(u), newScrubber(u, so.Headers)}
	k.events, k.types, k.functions = so.Events, typesOf(so.Events), so.Functions
	if so.Rate > 0 {
		k.limiter = rate.NewLimiter(rate.Limit(so.Rate), max(1, int(so.Rate)))
	}
	return k, nil
}

// makeSink makes what all sinks have in common.
func makeSink(o *Options, name string, p *poster, concurrency int) *sink {
	p.sink, p.tracer = name, o.Tracer
	return &sink{
		name: name, outbox: o.Outbox, post: p, concurrency: concurrency, schedule: o.Schedule, disable: o.DisableAfter, source: o.Source, counts: o.Meter,
		log:      o.Log.With().Str("sink", name).Logger(),
		commands: make(chan func()), stop: make(chan struct{}), leave: make(chan struct{}), ended: make(chan struct{}),
		gates: gates{}, hand: newHand(max(leastLines, 4*concurrency)), results: make(chan result, concurrency),
		exchange: exchange{look: true, check: true, stored: make(chan stored, 1)},
	}
}

func checkSecrets(secrets []Secret) error {
	if slices.ContainsFunc(secrets, func(s Secret) bool { return s.key == nil }) {
		return errors.New("a secret is empty")
	}
	return nil
}

// reserved are headers that the gateway or HTTP itself sets.
var reserved = []string{
	"Content-Type", "Content-Length", "Transfer-Encoding", "Connection", "Host", headerID, headerTimestamp, headerSignature, "Traceparent",
}

func checkHeaders(headers map[string]string) error {
	for name, value := range headers {
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r) }):
			return fmt.Errorf("headers: %q is not the name of a header", name)
		case slices.Contains(reserved, canonical):
			return fmt.Errorf("headers: %s is set by the gateway itself", canonical)
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			return fmt.Errorf("headers: the value of %s has control characters", canonical)
		}
	}
	return nil
}

func checkContentType(t string) error {
	if t == "" {
		return nil
	}
	if media, _, err := mime.ParseMediaType(t); err != nil || media != contentType && media != "application/json" {
		return fmt.Errorf("content_type: %q is neither %s nor application/json", t, contentType)
	}
	return nil
}

// wants reports whether the sink selects an event.
func (k *sink) wants(h Head) bool {
	if k.callbacks != nil {
		return h.Callback
	}
	return k.types[h.Type] && (k.functions == nil || slices.ContainsFunc(k.functions, func(pattern string) bool {
		prefix, wild := strings.CutSuffix(pattern, "*")
		return pattern == h.Function || wild && h.Function != "" && strings.HasPrefix(h.Function, prefix)
	}))
}

// takeUp goes on from where an earlier life of the gateway has left off.
func (k *sink) takeUp() {
	s := k.standing
	if k.callbacks == nil && !s.FailingSince.IsZero() {
		g := failingGate()
		k.gates[""] = &g
	}
	switch {
	case s.Disabled != "":
		k.log.Warn().Str("reason", s.Disabled).Msg("webhook sink is disabled: POST /sinks/{name}/resume when it is well again")
	case s.Paused:
		k.log.Warn().Msg("webhook sink is paused: POST /sinks/{name}/resume sets it going")
	}
}

// idle reports whether the sink is to begin nothing.
func (k *sink) idle() bool { return k.leaving || k.standing.Paused || k.standing.Disabled != "" }

// failing reports whether the sink's one target fails.
func (k *sink) failing() bool { return k.callbacks == nil && k.gates.of("").failing() }

// run sends what is due until it is told to stop and nothing more is due, or ctx ends; it returns when its attempts have ended and
// are stored.
func (k *sink) run(ctx context.Context) {
	defer close(k.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop, leave, stopping := k.stop, k.leave, false
	for ctx.Err() == nil {
		if k.grown == nil {
			k.grown = k.outbox.Grown() // before the log is looked at
		}
		now := time.Now()
		next := k.start(ctx, now)
		k.begin(now)
		if stopping && k.inFlight == 0 && !k.storing && !k.due(now) && !k.throttled(now) {
			break
		}
		grown := k.grown
		if k.look || k.idle() {
			grown = nil // it is known, or of no interest
		}
		timer.Reset(time.Until(k.alarm(now, next)))
		select {
		case <-grown:
			k.grown, k.look = nil, true
		case <-timer.C:
		case r := <-k.results:
			k.settle(r)
		case s := <-k.stored:
			k.settled(s)
		case f := <-k.commands:
			f()
		case <-stop:
			stop, stopping, k.look = nil, true, true // at what was published before
		case <-leave:
			leave, stopping, k.leaving = nil, true, true
		case <-ctx.Done():
		}
	}
	k.finish()
}

// finish stores what is left to be stored.
func (k *sink) finish() {
	for k.inFlight > 0 {
		k.settle(<-k.results)
	}
	for tries := 0; tries < 2 && (k.storing || len(k.ends) > 0 || k.dirty); tries++ {
		k.storeAt = time.Time{}
		if !k.storing {
			k.store(Step{}, nil)
		}
		k.settled(<-k.stored)
	}
	k.answer(errStopped)
	if n := len(k.ends); n > 0 {
		k.log.Warn().Int("deliveries", n).Msg("what became of these deliveries could not be stored: they are made again")
	}
}

// start begins what may be sent now and returns when there will be more; the zero time if that depends on something else than the
// clock.
func (k *sink) start(ctx context.Context, now time.Time) (next time.Time) {
	if k.idle() {
		return time.Time{}
	}
	for n := len(k.hand.ready); n > 0 && k.inFlight < k.concurrency; n-- {
		l := k.hand.ready[0]
		to, key, most := k.to, "", k.concurrency
		if k.callbacks != nil {
			to, key, most = k.callbacks.target(l.Letters[0].Callback)
		}
		g := k.gates.of(key)
		switch {
		case now.Before(g.until) && k.callbacks == nil:
			return g.until
		case now.Before(g.until):
			k.postpone(k.hand.pop(), g, now, g.until)
			continue
		case !g.room(most) && k.callbacks == nil:
			return time.Time{}
		case !g.room(most) && !now.Before(g.stuck()):
			k.postpone(k.hand.pop(), g, now, now.Add(g.pause)) // it would take the place of another host's in the hand
			continue
		case !g.room(most):
			k.hand.push(k.hand.pop()) // another host's may go
			if next.IsZero() || g.stuck().Before(next) {
				next = g.stuck()
			}
			continue
		}
		if wait := k.throttle(now); wait > 0 {
			return now.Add(wait)
		}
		k.attempt(ctx, k.hand.pop(), g, to)
	}
	return next
}

// throttle returns how long the sink's rate has the next delivery wait; 0: it may go, and is counted.
func (k *sink) throttle(now time.Time) time.Duration {
	if k.limiter == nil {
		return 0
	}
	r := k.limiter.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// throttled reports whether deliveries are due that wait for nothing but the sink's rate, while none is under way.
func (k *sink) throttled(now time.Time) bool {
	return k.limiter != nil && !k.idle() && len(k.hand.ready) > 0 && !now.Before(k.gates.of("").until)
}

func (k *sink) attempt(ctx context.Context, l *line, g *gate, to target) {
	l.busy = true
	k.inFlight++
	g.inFlight++
	g.began = time.Now()
	letter, probe := l.Letters[0], g.failing()
	go func() {
		if u, err := url.Parse(to.url); k.callbacks != nil && err == nil {
			to.scrub = newScrubber(u, nil)
		}
		o := k.post.send(ctx, to, letter)
		k.results <- result{line: l, gate: g, probe: probe, cut: o.Error != "" && ctx.Err() != nil, outcome: o}
	}()
}

// settle does what follows from an attempt.
func (k *sink) settle(r result) {
	l, now := r.line, time.Now()
	l.busy = false
	k.inFlight--
	r.gate.inFlight--
	if r.cut {
		k.hand.release(l)
		return
	}
	letter := l.Letters[0]
	end := Ended{N: letter.N, Subject: l.Subject, State: Delivered, Attempts: letter.Attempts + 1, Log: logged(letter.Log, r.Attempt)}
	if r.Error == "" {
		k.succeeded(r.gate, now)
	} else {
		k.failed(r, letter, &end, now)
	}
	k.meter(r.Attempt, end.State)
	k.end(l, end)
}

// end notes the end of an attempt of a line's first letter, and what becomes of the line.
func (k *sink) end(l *line, end Ended) {
	k.ends = append(k.ends, end)
	l.unsaved++
	if end.State == Pending {
		l.Letters = nil // they wait, all of them
	} else {
		l.Letters = l.Letters[1:]
	}
	if len(l.Letters) > 0 {
		k.hand.push(l)
	}
	k.gates.tidy()
}

// postpone leaves a line for later, its target being known to fail, without an attempt. Where a sink would be disabled its letter is a
// dead one: attempts are few as long as the target fails, and more letters than there are attempts would never be through with theirs.
func (k *sink) postpone(l *line, g *gate, now, until time.Time) {
	letter := l.Letters[0]
	end := Ended{
		N: letter.N, Subject: l.Subject, State: Pending, Attempts: letter.Attempts, Log: letter.Log, Due: until.Add(jitter(firstProbe)),
	}
	if g.failing() && now.Sub(g.since) >= k.disable {
		why := fmt.Sprintf("not tried: its host has failed since %s, for %v", g.since.UTC().Format(time.RFC3339), k.disable)
		end.State, end.Due, end.Log = Dead, time.Time{}, logged(letter.Log, Attempt{At: now, Error: why})
		k.log.Error().Str("error", why).Str("event", letter.EventID).Str("type", string(letter.Type)).Str("subject", l.Subject).
			Int("attempts", end.Attempts).Msg("webhook event is a dead letter")
		k.meterGivenUp()
	}
	k.end(l, end)
}

func (k *sink) succeeded(g *gate, now time.Time) {
	if g.failing() {
		k.log.Info().Msg("webhook sink answers again")
		// What has failed, failed most likely because the sink was down. Of callbacks it may be another host's.
		k.hasten = k.hasten || k.callbacks == nil
	}
	g.succeeded()
	if k.standing.LastSuccess.IsZero() || !k.standing.FailingSince.IsZero() || now.Sub(k.standing.LastSuccess) > time.Second {
		k.dirty = true
	}
	k.standing.LastSuccess, k.standing.FailingSince = now, time.Time{}
}

// failed decides when a letter is tried again. The attempts of a probe do not count: no event is to become a dead letter because it
// had to find out that the sink is still down. They come more and more seldom all the same, so that one event that the sink cannot
// digest does not keep the others from finding out that it is well.
func (k *sink) failed(r result, letter Letter, end *Ended, now time.Time) {
	if away := k.began.Sub(k.standing.LastErrorAt); k.standing.FailingSince.IsZero() {
		k.standing.FailingSince = now
	} else if away > 0 { // nobody tried while there was no gateway: it has not failed then
		k.standing.FailingSince = k.standing.FailingSince.Add(away)
	}
	k.standing.LastError, k.standing.LastErrorAt, k.dirty = r.Error, now, true
	k.log.Debug().Str("error", r.Error).Str("event", letter.EventID).Int("attempt", end.Attempts).Msg("webhook not delivered")
	if r.gate.failed(now, r.probe, r.after) {
		k.log.Warn().Str("error", r.Error).Msg("webhook sink keeps failing: one delivery at a time from now on")
	}
	probe := r.probe && k.callbacks == nil
	switch last := len(k.schedule) - 1; {
	case r.gone && k.callbacks == nil:
		end.State, end.Attempts, end.Due = Pending, letter.Attempts, now
		k.giveUp("it answered 410 Gone")
	case probe:
		end.State, end.Attempts, end.Due = Pending, letter.Attempts, now.Add(jitter(k.schedule[min(len(end.Log), last)]))
	case r.gone || end.Attempts > last:
		end.State = Dead
		k.log.Error().Str("error", r.Error).Str("event", letter.EventID).Str("type", string(letter.Type)).Str("subject", r.line.Subject).
			Int("attempts", end.Attempts).Msg("webhook event is a dead letter")
	default:
		end.State, end.Due = Pending, now.Add(jitter(k.schedule[end.Attempts]))
	}
	if since := k.standing.FailingSince; k.callbacks == nil && now.Sub(since) >= k.disable {
		k.giveUp(fmt.Sprintf("it has failed since %s, for %v", since.UTC().Format(time.RFC3339), k.disable))
	}
}

// giveUp disables the sink until somebody resumes it. What it has not had stays in the outbox as long as there is room.
func (k *sink) giveUp(reason string) {
	if k.standing.Disabled != "" {
		return // another delivery has found out before
	}
	k.standing.Disabled, k.dirty = reason, true
	k.hand.releaseAll()
	k.log.Error().Str("reason", reason).Msg("webhook sink is disabled until POST /sinks/{name}/resume")
	now := time.Now()
	e := event.New(event.SinkDisabled, k.name, uint64(now.UnixMicro()), now, event.Data{Rest: &event.Rest{Sink: k.name}, Reason: reason})
	e.Promised = true // also where the outbox is full, as it may well be because of this sink
	k.outbox.Publish(e)
}

// logged returns a delivery's log with one more attempt.
func logged(log []Attempt, a Attempt) []Attempt {
	return append(slices.Clone(log[max(0, len(log)-maxAttempts+1):]), a)
}

// jitter returns d, give or take a fifth, so that what failed together is not tried again together.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

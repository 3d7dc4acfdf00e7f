package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gearman-gateway/internal/webhook"
)

// attempts counts what the sender tells. Sinks are those of the configuration.
type attempts struct {
	group
	total    *prometheus.CounterVec
	dead     *prometheus.CounterVec
	duration *prometheus.HistogramVec
	sinks    table[string, *sinkSeries]
}

type sinkSeries struct {
	accepted, refused, unanswered, dead prometheus.Counter
	duration                            prometheus.Observer
}

func newAttempts() *attempts {
	a := &attempts{
		total: counters("webhook_attempts_total",
			"Attempts to deliver an event: accepted (2xx), refused (another answer) or unanswered.", "sink", "outcome"),
		dead: counters("webhook_dead_letters_total", "Deliveries that were given up.", "sink"),
		duration: histograms("webhook_attempt_duration_seconds", "Time that attempts took.",
			until(time.Minute), "sink"),
	}
	a.group = group{a.total, a.dead, a.duration}
	return a
}

// Attempted implements webhook.Meter.
func (a *attempts) Attempted(sink string, attempt webhook.Attempt, state webhook.DeliveryState) {
	s := a.of(sink)
	switch {
	case attempt.Error == "":
		s.accepted.Inc()
	case attempt.Status != 0:
		s.refused.Inc()
	default:
		s.unanswered.Inc()
	}
	if state == webhook.Dead {
		s.dead.Inc()
	}
	s.duration.Observe(attempt.Duration.Seconds())
}

// GivenUp implements webhook.Meter.
func (a *attempts) GivenUp(sink string) { a.of(sink).dead.Inc() }

// of returns the series of a sink. All of them are there from the beginning, so that the first dead letter is a step that can be seen.
func (a *attempts) of(sink string) *sinkSeries {
	if s, ok := a.sinks.get(sink); ok {
		return s
	}
	return a.sinks.add(sink, func() *sinkSeries {
		l := valid(sink)
		return &sinkSeries{
			accepted: a.total.WithLabelValues(l, "accepted"), refused: a.total.WithLabelValues(l, "refused"),
			unanswered: a.total.WithLabelValues(l, "unanswered"), dead: a.dead.WithLabelValues(l), duration: a.duration.WithLabelValues(l),
		}
	})
}

// Counting what waits for a sink costs the outbox time that grows with it: it is done at most this often, and is given up after so long.
const (
	sinksEvery   = 5 * time.Second
	sinksTimeout = 2 * time.Second
)

var sinkStates = []webhook.SinkState{webhook.Active, webhook.Failing, webhook.Paused, webhook.Disabled}

func (m *Metrics) readSinks(stats func(context.Context) []webhook.SinkStats) prometheus.Collector {
	r := &reading{}
	state := r.describe("webhook_sink_state", "1 for the state that the sink is in, 0 for the others.", "sink", "state")
	behind := r.describe("webhook_behind_events", "Events that the sink has not looked at.", "sink")
	pending := r.describe("webhook_pending_deliveries", "Deliveries that are still to be made.", "sink")
	dead := r.describe("webhook_dead_deliveries", "Dead letters that are kept.", "sink")
	oldest := r.describe("webhook_oldest_pending_age_seconds", "Age of the oldest event that the sink has not had; 0 if there is none.", "sink")
	cached := cached(sinksEvery, func() []webhook.SinkStats {
		ctx, cancel := context.WithTimeout(context.Background(), sinksTimeout)
		defer cancel()
		return stats(ctx)
	})
	r.collect = func(ch chan<- prometheus.Metric) {
		for _, s := range cached() {
			if s.State == "" { // it is just being replaced
				continue
			}
			m.attempts.of(s.Name)
			sink := valid(s.Name)
			for _, is := range sinkStates {
				gauge(ch, state, flag(s.State == is), sink, string(is))
			}
			if s.Err != nil {
				m.log.Debug().Err(s.Err).Str("sink", s.Name).Msg("metrics: the backlog of a sink is not known")
				continue
			}
			gauge(ch, behind, s.Behind, sink)
			gauge(ch, pending, s.Pending, sink)
			gauge(ch, dead, s.Dead, sink)
			gauge(ch, oldest, age(s.Oldest), sink)
		}
	}
	return r
}

func age(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return max(0, time.Since(t).Seconds())
}

// cached returns what get does, which is called at most once in a while, and once at a time.
func cached[T any](every time.Duration, get func() T) func() T {
	var mu sync.Mutex
	var last T
	var at time.Time
	return func() T {
		mu.Lock()
		defer mu.Unlock()
		if at.IsZero() || time.Since(at) >= every {
			last, at = get(), time.Now()
		}
		return last
	}
}

func readOutbox(isFull func() bool, howMany func() uint64) prometheus.Collector {
	r := &reading{}
	full := r.describe("outbox_full", "Whether so many events wait that tracked and scheduled jobs are refused.")
	dropped := r.describe("events_dropped_total", "Events that were dropped for want of room, or because they could not be stored.")
	r.collect = func(ch chan<- prometheus.Metric) {
		gauge(ch, full, flag(isFull()))
		counter(ch, dropped, howMany())
	}
	return r
}

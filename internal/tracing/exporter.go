package tracing

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// bounded lets no more spans wait than there is room for, since those that find none are to be counted.
type bounded struct {
	sdktrace.SpanProcessor
	out *exporter
}

// OnEnd takes a span, or drops it. It does not block.
func (b *bounded) OnEnd(s sdktrace.ReadOnlySpan) {
	if b.out.waiting.Add(1) > maxWaiting {
		b.out.waiting.Add(-1)
		b.out.lose(1, errFull)
		return
	}
	b.SpanProcessor.OnEnd(s)
}

var errFull = errors.New("too many spans wait to be sent")

// An exporter sends spans and accounts for those that it could not send.
type exporter struct {
	next    sdktrace.SpanExporter
	log     zerolog.Logger
	secrets *strings.Replacer
	run     context.Context
	cut     context.CancelFunc // ends what is being sent, and lets nothing more be sent
	ended   chan struct{}      // closed when everything was sent, or lost
	waiting atomic.Int64       // spans

	mu     sync.Mutex
	lost   int64 // spans that were not logged yet
	why    error // of the latest
	logged time.Time
}

func newExporter(next sdktrace.SpanExporter, headers map[string]string, log zerolog.Logger) *exporter {
	var secrets []string
	for _, value := range headers {
		for _, secret := range append(strings.Fields(value), value) { // of "Bearer token" both
			if len(secret) >= 4 { // shorter ones would be found everywhere
				secrets = append(secrets, secret, "***")
			}
		}
	}
	e := &exporter{next: next, log: log, secrets: strings.NewReplacer(secrets...), ended: make(chan struct{})}
	e.run, e.cut = context.WithCancel(context.Background())
	return e
}

// ExportSpans sends a batch, and blocks until that is done or given up. OpenTelemetry has only one of them under way.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	defer e.waiting.Add(-int64(len(spans)))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.run, cancel)()
	if err := e.next.ExportSpans(ctx, spans); err != nil {
		e.lose(len(spans), err)
	}
	return nil
}

// Shutdown is called when the last batch was sent.
func (e *exporter) Shutdown(ctx context.Context) error {
	defer close(e.ended)
	return e.next.Shutdown(ctx)
}

// logEvery is how often it is said that spans are lost.
const logEvery = time.Minute

// lose counts spans that are lost, and logs that once in a while: a collector that is down must not fill the log.
func (e *exporter) lose(n int, err error) {
	e.mu.Lock()
	e.lost, e.why = e.lost+int64(n), err
	due := time.Since(e.logged) >= logEvery
	e.mu.Unlock()
	if due {
		e.report()
	}
}

// report logs what was lost since the last time.
func (e *exporter) report() {
	e.mu.Lock()
	lost, why := e.lost, e.why
	e.lost, e.logged = 0, time.Now()
	e.mu.Unlock()
	if lost > 0 {
		e.log.Warn().Int64("spans", lost).Str("error", e.shown(why)).Msg("spans did not get to the collector, or not all of them")
	}
}

// shown returns an error's text, which may quote the collector, without secrets and not too long.
func (e *exporter) shown(err error) string {
	text := e.secrets.Replace(err.Error())
	if len(text) > maxValue {
		text = text[:maxValue] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

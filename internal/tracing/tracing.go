// Package tracing tells an OpenTelemetry collector, over OTLP/HTTP, what the gateway does: a span for each request, submit, run and
// delivery. They are linked by texts alone, the traceparent of W3C Trace Context, which a job keeps in its record: so its runs and its
// deliveries find their parent hours later, and after a restart.
//
// A nil Tracer and a zero Span do nothing, and cost nothing.
package tracing

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Options say where spans go. Endpoint is needed.
type Options struct {
	Endpoint string            // http or https URL of the collector, to which /v1/traces is added where it does not end so
	Headers  map[string]string // sent along; their values are secret, and are never logged
	Sample   float64           // how many of the traces that begin here are sent, from 0 to 1; a caller's traceparent decides for its own
	Service  string            // what the gateway calls itself; "" means gearman-gateway
	Version  string            // of the gateway
	Log      zerolog.Logger
}

// Bounds of what waits for the collector, and of how long it is waited for.
const (
	maxWaiting = 8192             // spans that have ended and were not sent; further ones are dropped, and counted
	maxBatch   = 512              // spans of one request
	flushEvery = 2 * time.Second  // a span waits at most so long for others
	tryFor     = 15 * time.Second // to send a batch, with all tries
	answerTime = 5 * time.Second  // for one try
	lastFlush  = 2 * time.Second  // for all that waits, at the end
	maxValue   = 1024             // bytes of an attribute; the rest is cut off
	maxAnswer  = 64 << 10         // bytes of an answer of the collector
)

// Tracer makes spans and sends them. It is safe for concurrent use; none of its methods but Stop blocks. Stop it once.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	out      *exporter
	client   *http.Client
}

// New returns a Tracer that sends what it is told from now on. It does not connect yet: whether the collector is there is seen, and
// logged, when there is something to send.
func New(o Options) (*Tracer, error) {
	useLog(o.Log)
	client := &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: answerTime}).DialContext,
			TLSHandshakeTimeout: answerTime,
			MaxIdleConnsPerHost: 1,
			IdleConnTimeout:     time.Minute,
			ForceAttemptHTTP2:   true,
		},
		Timeout:       answerTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // it would take the headers along
	}
	endpoint := strings.TrimSuffix(o.Endpoint, "/")
	if !strings.HasSuffix(endpoint, "/v1/traces") {
		endpoint += "/v1/traces"
	}
	headers := o.Headers
	if headers == nil {
		headers = map[string]string{} // not those of the environment, which may be for another endpoint
	}
	otlp, err := otlptracehttp.New(context.Background(),
		otlptracehttp.WithHTTPClient(client), otlptracehttp.WithEndpointURL(endpoint), otlptracehttp.WithHeaders(headers),
		otlptracehttp.WithEncoding(otlptracehttp.EncodingProtobuf), otlptracehttp.WithMaxResponseSize(maxAnswer),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: time.Second, MaxInterval: answerTime, MaxElapsedTime: tryFor,
		}))
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	out := newExporter(otlp, headers, o.Log)
	queue := sdktrace.NewBatchSpanProcessor(out, sdktrace.WithMaxQueueSize(maxWaiting), sdktrace.WithMaxExportBatchSize(maxBatch),
		sdktrace.WithBatchTimeout(flushEvery), sdktrace.WithExportTimeout(tryFor))
	limits := sdktrace.NewSpanLimits()
	limits.AttributeValueLengthLimit = maxValue
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(&bounded{queue, out}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(o.Sample))),
		sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithResource(resource.NewWithAttributes(semconv.SchemaURL,
			semconv.ServiceName(cmp.Or(o.Service, "gearman-gateway")), semconv.ServiceVersion(o.Version))),
	)
	return &Tracer{
		provider: provider, out: out, client: client,
		tracer: provider.Tracer("gearman-gateway", trace.WithInstrumentationVersion(o.Version), trace.WithSchemaURL(semconv.SchemaURL)),
	}, nil
}

// useLog has OpenTelemetry's own complaints in the gateway's log; it would write them to standard error.
func useLog(log zerolog.Logger) {
	log = log.With().Str("from", "opentelemetry").Logger()
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn().Err(err).Msg("tracing") }))
	otel.SetLogger(funcr.New(func(_, text string) { log.Warn().Str("error", text).Msg("tracing") }, funcr.Options{}))
}

// Stop sends what waits, for two seconds at most, and returns when every goroutine has ended. Spans that end later are dropped.
func (t *Tracer) Stop() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastFlush)
	defer cancel()
	defer context.AfterFunc(ctx, t.out.cut)()
	_ = t.provider.Shutdown(ctx) // what was lost is counted
	<-t.out.ended
	t.out.cut()
	t.client.CloseIdleConnections()
	t.out.report()
}

package tracing_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"gearman-gateway/internal/tracing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector is an OTLP/HTTP collector that keeps what it gets.
type collector struct {
	*httptest.Server
	mu     sync.Mutex
	spans  []*tracepb.Span
	header http.Header
	path   string
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var request collectorpb.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil {
			t.Errorf("the collector got no OTLP: %v", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.header, c.path = r.Header, r.URL.Path
		for _, rs := range request.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				c.spans = append(c.spans, ss.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func newTracer(t *testing.T, o tracing.Options) *tracing.Tracer {
	t.Helper()
	tracer, err := tracing.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return tracer
}

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"

func TestSpansAreSentAtTheEndAtTheLatest(t *testing.T) {
	c := newCollector(t)
	tracer := newTracer(t, tracing.Options{Endpoint: c.URL + "/base/", Headers: map[string]string{"X-Token": "secret"}, Sample: 1})
	span := tracer.Submit(parent+"01", "resize\xff", "sync", 3)
	if got := span.Traceparent(); !strings.HasPrefix(got, parent[:36]) || !strings.HasSuffix(got, "-01") || got == parent+"01" {
		t.Errorf("traceparent %q is not of the parent's trace", got)
	}
	span.Fail("full", strings.Repeat("é", 1000)) // would be cut within a character
	span.End()
	tracer.Stop()
	if len(c.spans) != 1 || c.spans[0].Name != "submit resize\uFFFD" || fmt.Sprintf("%x", c.spans[0].ParentSpanId) != "00f067aa0ba902b7" {
		t.Errorf("the collector has %v", c.spans)
	}
	if c.path != "/base/v1/traces" || c.header.Get("X-Token") != "secret" {
		t.Errorf("sent to %s with %v", c.path, c.header)
	}
}

// A caller's decision holds, whatever is configured for traces that begin here.
func TestSamplingFollowsTheParent(t *testing.T) {
	for _, test := range []struct {
		parent string
		sample float64
		spans  int
		flags  string
	}{
		{parent + "01", 0, 1, "01"},
		{parent + "00", 1, 0, "00"},
		{"", 0, 0, "00"},
		{"", 1, 1, "01"},
	} {
		c := newCollector(t)
		tracer := newTracer(t, tracing.Options{Endpoint: c.URL, Sample: test.sample})
		span := tracer.Run(test.parent, "resize", "id", "H:a:1", 1)
		if got := span.Traceparent(); !strings.HasSuffix(got, "-"+test.flags) {
			t.Errorf("%q with %v: passed on as %q", test.parent, test.sample, got)
		}
		span.End()
		tracer.Stop()
		if len(c.spans) != test.spans {
			t.Errorf("%q with %v: %d spans, want %d", test.parent, test.sample, len(c.spans), test.spans)
		}
	}
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// A collector that hangs holds up nobody; what there is no room for is counted.
func TestACollectorThatHangsHoldsUpNobody(t *testing.T) {
	hanging, began, once := make(chan struct{}), make(chan struct{}), sync.Once{}
	c := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(began) })
		select {
		case <-r.Context().Done():
		case <-hanging:
		}
	}))
	defer c.Close()
	defer close(hanging)
	var log syncBuffer
	tracer := newTracer(t, tracing.Options{Endpoint: c.URL, Sample: 1, Log: zerolog.New(&log)})
	const spans = 20_000
	start := time.Now()
	for range spans {
		tracer.Submit("", "resize", "sync", 3).End()
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("%d spans took %v", spans, took)
	}
	<-began
	start = time.Now()
	tracer.Stop()
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("Stop took %v", took)
	}
	lost := 0
	for line := range strings.Lines(log.b.String()) {
		var n int
		if _, rest, ok := strings.Cut(line, `"spans":`); ok {
			fmt.Sscan(rest, &n)
		}
		lost += n
	}
	if lines := strings.Count(log.b.String(), "\n"); lost != spans || lines > 3 {
		t.Errorf("%d spans were said to be lost, want %d, in %d lines:\n%s", lost, spans, lines, log.b.String())
	}
}

// What a collector answers is shown, as far as it repeats no secret.
func TestAnAnswerIsLoggedWithoutSecrets(t *testing.T) {
	c := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no such token:\n"+r.Header.Get("Authorization"), http.StatusUnauthorized)
	}))
	defer c.Close()
	var log bytes.Buffer
	tracer := newTracer(t, tracing.Options{
		Endpoint: c.URL, Headers: map[string]string{"Authorization": "Bearer canary"}, Sample: 1, Log: zerolog.New(&log),
	})
	tracer.Submit("", "resize", "sync", 3).End()
	tracer.Stop()
	if got := log.String(); strings.Contains(got, "canary") || !strings.Contains(got, "no such token") || strings.Count(got, "\n") != 1 {
		t.Errorf("logged %q", got)
	}
}

// Without a collector there is nothing: no memory, and no goroutine, which TestMain sees.
func TestNoTracerCostsNothing(t *testing.T) {
	var tracer *tracing.Tracer
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/jobs", nil)
	allocs := testing.AllocsPerRun(1000, func() {
		request := tracer.Request("", "id", r)
		submit := tracer.Submit(request.Traceparent(), "resize", "sync", 3)
		submit.Job("id", "")
		submit.Server("127.0.0.1:4730")
		submit.End()
		run := tracer.Run(submit.Traceparent(), "resize", "id", "H:a:1", 1)
		run.Fail("exception", "")
		run.End()
		tracer.Deliver(run.Traceparent(), tracing.Delivery{Sink: "audit", URL: "http://127.0.0.1/"}).Delivered(200, "")
		request.Answered(r, 200, request.TraceID())
	})
	tracer.Stop()
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

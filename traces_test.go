package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	gateway "gearman-gateway"
)

// collector is an OTLP/HTTP collector that keeps what it gets.
type collector struct {
	*httptest.Server
	mu       sync.Mutex
	spans    []*tracepb.Span
	resource []*commonpb.KeyValue
}

func newCollector(t testing.TB) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var request collectorpb.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil {
			t.Errorf("the collector got no OTLP: %v", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, rs := range request.ResourceSpans {
			c.resource = rs.Resource.Attributes
			for _, ss := range rs.ScopeSpans {
				c.spans = append(c.spans, ss.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// find returns the span with a name, which there must be one of.
func (c *collector) find(t testing.TB, name string) *tracepb.Span {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var found *tracepb.Span
	for _, s := range c.spans {
		if s.Name == name {
			if found != nil {
				t.Errorf("%q is there twice", name)
			}
			found = s
		}
	}
	if found == nil {
		t.Fatalf("no span %q in %v", name, c.spans)
	}
	return found
}

func attribute(of []*commonpb.KeyValue, key string) string {
	for _, kv := range of {
		if kv.Key == key {
			if kv.Value.GetStringValue() == "" {
				return fmt.Sprint(kv.Value.GetIntValue())
			}
			return kv.Value.GetStringValue()
		}
	}
	return ""
}

// traceparentOf returns the context that a span hands on.
func traceparentOf(s *tracepb.Span) string { return fmt.Sprintf("00-%x-%x-01", s.TraceId, s.SpanId) }

const callersTrace = "4bf92f3577b34da6a3ce929d0e0e4736"

func postTraced(t testing.TB, url, body, traceparent string) answer {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if traceparent != "" {
		req.Header.Set("Traceparent", traceparent)
	}
	resp, err := http.DefaultClient.Do(req)
	return read(t, resp, err)
}

// traced is what a handler and a sink of a test are sent in their traceparent headers.
type traced struct {
	*httptest.Server
	heard chan string
}

func newTraced(t testing.TB) traced {
	heard := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heard <- r.Header.Get("Traceparent")
		fmt.Fprint(w, "canary-result")
	}))
	t.Cleanup(s.Close)
	return traced{s, heard}
}

// One job is one trace, from the caller's request to the sink.
func TestAJobIsOneTrace(t *testing.T) {
	for _, mode := range []string{"sync", "background", "tracked"} {
		c, sink, handler := newCollector(t), newTraced(t), newTraced(t)
		url, stop := startStoppable(t, func(g *gateway.Config) {
			g.Tracing.Endpoint, g.Tracing.ServiceName = gateway.URL(c.URL), "gateway-test"
			g.Sinks = []gateway.Sink{{Name: "audit", URL: gateway.URL(sink.URL + "/canary-path?canary-query"), Events: []string{"job.completed"}}}
			g.Functions = []gateway.Function{{Function: "resize", HTTP: &gateway.HTTPFunction{URL: gateway.URL(handler.URL)}}}
		})
		body := fmt.Sprintf(`{"function":"resize","workload":"canary-workload","mode":%q}`, mode)
		a := postTraced(t, url+"/jobs?", body, "00-"+callersTrace+"-00f067aa0ba902b7-01")
		id, _ := a.field(t, "id").(string)
		ran, delivered := <-handler.heard, <-sink.heard
		stop()

		request, run, delivery := c.find(t, "POST /jobs"), c.find(t, "run resize"), c.find(t, "deliver job.completed")
		submit := c.find(t, "submit resize")
		origin := submit // whose context the job has
		tree := map[*tracepb.Span]string{request: "00f067aa0ba902b7"}
		if mode == "tracked" {
			origin = c.find(t, "create resize")
			tree[submit] = fmt.Sprintf("%x", origin.SpanId)
		}
		tree[origin] = fmt.Sprintf("%x", request.SpanId)
		tree[run], tree[delivery] = fmt.Sprintf("%x", origin.SpanId), fmt.Sprintf("%x", origin.SpanId)
		for s, parent := range tree {
			if got := fmt.Sprintf("%x", s.ParentSpanId); got != parent || fmt.Sprintf("%x", s.TraceId) != callersTrace {
				t.Errorf("%s: %q has trace %x and parent %s, want %s", mode, s.Name, s.TraceId, got, parent)
			}
			if s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
				t.Errorf("%s: %q failed: %v", mode, s.Name, s.Status)
			}
		}
		if ran != traceparentOf(run) || delivered != traceparentOf(delivery) || a.field(t, "traceparent") != traceparentOf(origin) {
			t.Errorf("%s: the handler got %s, the sink %s, the record has %v", mode, ran, delivered, a.field(t, "traceparent"))
		}
		for s, kind := range map[*tracepb.Span]tracepb.Span_SpanKind{
			request: tracepb.Span_SPAN_KIND_SERVER, origin: tracepb.Span_SPAN_KIND_PRODUCER,
			run: tracepb.Span_SPAN_KIND_CONSUMER, delivery: tracepb.Span_SPAN_KIND_CLIENT,
		} {
			if s.Kind != kind {
				t.Errorf("%s: %q has kind %v", mode, s.Name, s.Kind)
			}
		}
		if got := attribute(request.Attributes, "gateway.job.id"); got != id {
			t.Errorf("%s: the request names job %q", mode, got)
		}
		if attribute(submit.Attributes, "messaging.system") != "gearman" || attribute(submit.Attributes, "messaging.message.id") != id ||
			attribute(submit.Attributes, "server.port") == "" || attribute(c.resource, "service.name") != "gateway-test" {
			t.Errorf("%s: submit has %v, the resource %v", mode, submit.Attributes, c.resource)
		}
		for _, s := range c.spans {
			if strings.Contains(s.String(), "canary") {
				t.Errorf("%s: a span tells too much: %v", mode, s)
			}
		}
	}
}

// What goes wrong is an error of its span, but what a worker says of it is not told.
func TestFailuresAreErrorsOfTheirSpans(t *testing.T) {
	c := newCollector(t)
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusGone) }))
	defer refuses.Close()
	url, stop := startStoppable(t, func(g *gateway.Config) {
		g.Tracing.Endpoint = gateway.URL(c.URL)
		g.Sinks = []gateway.Sink{{Name: "audit", URL: gateway.URL(refuses.URL), Events: []string{"job.failed"}}}
	})
	submit(t, url, `{"function":"fail","workload":"canary","mode":"sync"}`)
	get(t, url+"/livez")
	stop()
	for name, kind := range map[string]string{"run fail": "failed", "deliver job.failed": "410"} {
		s := c.find(t, name)
		if s.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || attribute(s.Attributes, "error.type") != kind {
			t.Errorf("%q: %v %v", name, s.Status, s.Attributes)
		}
	}
	for _, s := range c.spans {
		if strings.Contains(s.String(), "canary") || strings.Contains(s.String(), "livez") {
			t.Errorf("a span tells too much: %v", s)
		}
	}
}

// A caller that does not want to be traced is not, and what it is followed by is told so.
func TestACallerDecidesForItsTrace(t *testing.T) {
	c, handler := newCollector(t), newTraced(t)
	url, stop := startStoppable(t, func(g *gateway.Config) {
		g.Tracing.Endpoint = gateway.URL(c.URL)
		g.Functions = []gateway.Function{{Function: "resize", HTTP: &gateway.HTTPFunction{URL: gateway.URL(handler.URL)}}}
	})
	postTraced(t, url+"/jobs", `{"function":"resize","mode":"sync"}`, "00-"+callersTrace+"-00f067aa0ba902b7-00")
	ran := <-handler.heard
	stop()
	if len(c.spans) != 0 || !strings.HasPrefix(ran, "00-"+callersTrace) || !strings.HasSuffix(ran, "-00") {
		t.Errorf("%d spans, and the handler got %q", len(c.spans), ran)
	}
}

// Without a collector a caller's traceparent goes on as it came.
func TestWithoutTracesATraceparentGoesOn(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	defer http.DefaultClient.CloseIdleConnections()
	sink, handler := newTraced(t), newTraced(t)
	url, stop := startStoppable(t, func(g *gateway.Config) {
		g.Sinks = []gateway.Sink{{Name: "audit", URL: gateway.URL(sink.URL), Events: []string{"job.completed"}}}
		g.Functions = []gateway.Function{{Function: "resize", HTTP: &gateway.HTTPFunction{URL: gateway.URL(handler.URL)}}}
	})
	const given = "00-" + callersTrace + "-00f067aa0ba902b7-01"
	postTraced(t, url+"/jobs", `{"function":"resize","mode":"sync"}`, given)
	if ran, delivered := <-handler.heard, <-sink.heard; ran != given || delivered != given {
		t.Errorf("the handler got %q, the sink %q", ran, delivered)
	}
	stop()
	sink.Close()
	handler.Close()
}

// A collector that is not there, or takes no connection, holds up neither jobs nor the end.
func TestACollectorThatIsDownHoldsUpNobody(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	url, stop := startStoppable(t, func(g *gateway.Config) { g.Tracing.Endpoint = gateway.URL(gone.URL) })
	for range 100 {
		if a := submit(t, url, `{"function":"reverse","workload":"abc","mode":"sync"}`); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > 6*time.Second { // one of them is the server's DrainDelay
		t.Errorf("Stop took %v", took)
	}
}

package tracing

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// The gateway's own attributes. None of a span's attributes has anything of a workload, a result, a query, a header's value or what a
// worker said.
const (
	keyRequestID = attribute.Key("gateway.request.id")
	keyJobID     = attribute.Key("gateway.job.id")
	keyMode      = attribute.Key("gateway.job.mode")
	keyHandle    = attribute.Key("gateway.job.handle")
	keyAttempt   = attribute.Key("gateway.job.attempt")
	keySink      = attribute.Key("gateway.sink")
	keyEventType = attribute.Key("gateway.event.type")
	keyEventID   = attribute.Key("gateway.event.id")
)

// A Span is one thing that the gateway does. Its methods are safe for concurrent use and do not block; those of the zero Span do nothing.
type Span struct{ s trace.Span }

// start begins a span whose parent is a traceparent, or the first of a trace where that is "".
func (t *Tracer) start(parent, name string, kind trace.SpanKind, attributes ...attribute.KeyValue) Span {
	ctx := contextOf(parent)
	_, s := t.tracer.Start(ctx, text(name), trace.WithSpanKind(kind), trace.WithAttributes(attributes...))
	return Span{s}
}

func contextOf(traceparent string) context.Context {
	if traceparent == "" {
		return context.Background()
	}
	return propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": traceparent})
}

// text makes what comes from outside fit for protobuf, which refuses a whole batch for one byte that is not UTF-8.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// Request begins the span of a request that the gateway answers.
func (t *Tracer) Request(parent, requestID string, r *http.Request) Span {
	if t == nil {
		return Span{}
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	method := methodOf(r)
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return t.start(parent, method, trace.SpanKindServer,
		semconv.HTTPRequestMethodKey.String(method), semconv.URLScheme(scheme), semconv.URLPath(text(r.URL.Path)),
		semconv.NetworkProtocolVersion(strings.TrimPrefix(r.Proto, "HTTP/")), semconv.ClientAddress(host), keyRequestID.String(requestID))
}

// methodOf returns a request's method, which the conventions want to be one of a few.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
		http.MethodConnect, http.MethodTrace:
		return r.Method
	}
	return "_OTHER"
}

// Answered ends the span of a request. The job is the id of the one it is about; "" is none.
func (s Span) Answered(r *http.Request, status int, job string) {
	if s.s == nil {
		return
	}
	if r.Pattern != "" {
		s.s.SetName(methodOf(r) + " " + r.Pattern)
		s.s.SetAttributes(semconv.HTTPRoute(r.Pattern))
	}
	if job != "" {
		s.s.SetAttributes(keyJobID.String(job))
	}
	s.answered(status, http.StatusInternalServerError)
	s.s.End()
}

// answered notes a status of HTTP, which is a failure from a number on.
func (s Span) answered(status, failure int) {
	if status == 0 {
		return
	}
	s.s.SetAttributes(semconv.HTTPResponseStatusCode(status))
	if status >= failure {
		s.Fail(strconv.Itoa(status), "")
	}
}

// Create begins the span of a task that is taken, to be submitted when it is due, and Submit that of one that is given to a job server
// at once: in either case its job has the context of this span. Resubmit is the span of each time that a job server is given
// a task that was taken before.
func (t *Tracer) Create(parent, function, mode string, size int) Span {
	if t == nil {
		return Span{}
	}
	return t.message(parent, "create", semconv.MessagingOperationTypeCreate, trace.SpanKindProducer, function,
		keyMode.String(mode), semconv.MessagingMessageBodySize(size))
}

// Submit is described at Create.
func (t *Tracer) Submit(parent, function, mode string, size int) Span {
	if t == nil {
		return Span{}
	}
	return t.message(parent, "submit", semconv.MessagingOperationTypeSend, trace.SpanKindProducer, function,
		keyMode.String(mode), semconv.MessagingMessageBodySize(size))
}

// Resubmit is described at Create.
func (t *Tracer) Resubmit(parent, function, mode, job string, attempt int) Span {
	if t == nil {
		return Span{}
	}
	return t.message(parent, "submit", semconv.MessagingOperationTypeSend, trace.SpanKindClient, function,
		keyMode.String(mode), semconv.MessagingMessageID(job), keyAttempt.Int(attempt))
}

// Run begins the span of a run in the gateway's own pool. Job and attempt are "" and 0 for the job of another client, whose run begins a
// trace.
func (t *Tracer) Run(parent, function, job, handle string, attempt int) Span {
	if t == nil {
		return Span{}
	}
	s := t.message(parent, "run", semconv.MessagingOperationTypeProcess, trace.SpanKindConsumer, function, keyHandle.String(text(handle)))
	if job != "" {
		s.s.SetAttributes(semconv.MessagingMessageID(job), keyAttempt.Int(attempt))
	}
	return s
}

func (t *Tracer) message(
	parent, operation string, kind attribute.KeyValue, spanKind trace.SpanKind, function string, more ...attribute.KeyValue,
) Span {
	function = text(function)
	return t.start(parent, operation+" "+function, spanKind, append(more, semconv.MessagingSystemKey.String("gearman"),
		semconv.MessagingOperationName(operation), kind, semconv.MessagingDestinationName(function))...)
}

// Job notes the id of the job that a task has become. If it is that of an earlier task, the link leads to where that was submitted.
func (s Span) Job(id, link string) {
	if s.s == nil {
		return
	}
	s.s.SetAttributes(semconv.MessagingMessageID(id))
	if link != "" {
		s.s.AddLink(trace.LinkFromContext(contextOf(link)))
	}
}

// Server notes which job server a task went to, as host:port; "" is none.
func (s Span) Server(address string) {
	if s.s == nil || address == "" {
		return
	}
	host, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	s.s.SetAttributes(semconv.ServerAddress(host), semconv.ServerPort(n))
}

// A Delivery is one attempt to deliver an event to a sink.
type Delivery struct {
	Sink, EventType, EventID string
	URL                      string // of which only the scheme, the host and the port are told
	Attempts                 int    // made before
}

// Deliver begins the span of an attempt.
func (t *Tracer) Deliver(parent string, d Delivery) Span {
	if t == nil {
		return Span{}
	}
	s := t.start(parent, "deliver "+d.EventType, trace.SpanKindClient, semconv.HTTPRequestMethodPost,
		keySink.String(text(d.Sink)), keyEventType.String(d.EventType), keyEventID.String(d.EventID))
	if u, err := url.Parse(d.URL); err == nil {
		port, _ := strconv.Atoi(u.Port())
		if port == 0 {
			port = map[string]int{"http": 80, "https": 443}[u.Scheme]
		}
		s.s.SetAttributes(semconv.URLScheme(u.Scheme), semconv.ServerAddress(text(u.Hostname())), semconv.ServerPort(port))
	}
	if d.Attempts > 0 {
		s.s.SetAttributes(semconv.HTTPRequestResendCount(d.Attempts))
	}
	return s
}

// Delivered ends the span of an attempt with the status of the answer, 0 if there was none, and why it failed; "" if it did not.
func (s Span) Delivered(status int, failure string) {
	if s.s == nil {
		return
	}
	s.answered(status, http.StatusBadRequest)
	if failure != "" {
		kind := "no_answer"
		if status != 0 {
			kind = strconv.Itoa(status)
		}
		s.Fail(kind, failure)
	}
	s.s.End()
}

// Fail notes that it went wrong: of which of a few kinds that is, and what happened, as far as anybody may know.
func (s Span) Fail(kind, what string) {
	if s.s == nil {
		return
	}
	s.s.SetAttributes(semconv.ErrorTypeKey.String(kind))
	s.s.SetStatus(codes.Error, text(what[:min(len(what), maxValue)]))
}

// End ends a span; it may be called again, and then does nothing.
func (s Span) End() {
	if s.s != nil {
		s.s.End()
	}
}

// Traceparent returns the context of the span as W3C Trace Context has it, for what is done because of it; "" for the zero Span.
func (s Span) Traceparent() string {
	if s.s == nil {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpan(context.Background(), s.s), carrier)
	return carrier["traceparent"]
}

// TraceID returns the id of the span's trace; "" for the zero Span.
func (s Span) TraceID() string {
	if s.s == nil {
		return ""
	}
	return s.s.SpanContext().TraceID().String()
}

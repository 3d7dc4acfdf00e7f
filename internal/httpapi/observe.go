package httpapi

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"
)

// observe gives each request its id and its response, catches panics, and writes the access log line. The line names the
// job but has no query, body or header, where workloads and secrets may be.
func (a *API) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		started := time.Now()
		a.requests.Add(1)
		w := &response{ResponseWriter: rw, api: a, request: r, id: requestID(r)}
		if a.o.Tracer != nil && !probes[r.URL.Path] {
			w.span = a.o.Tracer.Request(traceparent(r.Header), w.id, r)
		}

		w.set("X-Request-Id", w.id)
		h := w.Header()
		h["X-Content-Type-Options"], h["Cache-Control"] = nosniff, noStore

		defer func() {
			stack := a.recovered(w, r, recover())
			took := time.Since(started)
			a.meter(w, r, took)
			a.logAccess(w, r, stack, took)
			w.span.Answered(r, w.status, w.job)
			if stack != nil && w.broken || w.status == statusClientGone {
				panic(http.ErrAbortHandler) // so that whoever still reads sees a broken response, not a short or an empty one
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// The values of headers that every response has. They are shared, and not changed.
var nosniff, noStore = []string{"nosniff"}, []string{"no-store"}

// recovered answers a request whose handler panicked, and returns the stack; nil if it did not panic.
func (a *API) recovered(w *response, r *http.Request, v any) (stack []byte) {
	if v == nil {
		return nil
	}
	stack = debug.Stack()
	w.broken = w.status != 0
	a.fail(w, r, fmt.Errorf("panic: %v", v))
	return stack
}

func (a *API) logAccess(w *response, r *http.Request, stack []byte, took time.Duration) {
	level := zerolog.InfoLevel
	switch {
	case stack != nil || w.status == http.StatusInternalServerError:
		level = zerolog.ErrorLevel
	case probes[r.Pattern] && w.status == http.StatusOK:
		level = zerolog.DebugLevel
	}
	e := a.o.Log.WithLevel(level).Str("method", r.Method).Str("route", r.Pattern).Str("path", r.URL.Path).Int("status", w.status).
		Int64("bytes", w.written).Dur("duration_ms", took).Str("request_id", w.id).Str("remote", r.RemoteAddr)
	if w.who != nil && w.who.Name != "" {
		e = e.Str("identity", w.who.Name).Str("credential", w.who.Credential)
	}
	if w.job != "" {
		e = e.Str("job", w.job)
	}
	if trace := w.span.TraceID(); trace != "" {
		e = e.Str("trace_id", trace)
	}
	if w.err != nil {
		e = e.AnErr("error", w.err)
	}
	if stack != nil {
		e = e.Bytes("stack", stack)
	}
	e.Msg("request")
}

// probes are called every few seconds by machines.
var probes = map[string]bool{"/livez": true, "/readyz": true, "/metrics": true}

// requestID returns the caller's id for the request if it can stand in a log and a header, and a new one otherwise.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if id == "" || len(id) > 64 {
		return newRequestID()
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return newRequestID()
		}
	}
	return id
}

// newRequestID is 64 random bits: enough to find a line in a log, and no secret.
func newRequestID() string {
	var bits [8]byte
	binary.NativeEndian.PutUint64(bits[:], rand.Uint64())
	return hex.EncodeToString(bits[:])
}

package httpapi

import (
	"cmp"
	"net/http"
	"time"
)

// A Meter counts requests. It is called from many goroutines, and must not block.
type Meter interface {
	// Answered is told of each request when it is over: the pattern of its route, "" where there is none; the status of the answer, 499
	// if the client did not wait for it; and whether the request waited, as it was asked to, for a job or an event.
	Answered(route, method string, status int, took time.Duration, waited bool)
}

// meter counts a request.
func (a *API) meter(w *response, r *http.Request, took time.Duration) {
	a.requests.Add(-1)
	if a.o.Meter != nil {
		a.o.Meter.Answered(r.Pattern, r.Method, cmp.Or(w.status, http.StatusOK), took, w.waited)
	}
}

// Stats are what the API does, and how much it may at a time.
type Stats struct {
	Requests            int64 // under way
	BodyBytes, MaxBytes int64 // of their bodies
	Waiting, MaxWaiting int64 // requests that wait for a job's end, or for events
	Streams, MaxStreams int64
}

// Stats returns what the API does now. It does not block.
func (a *API) Stats() Stats {
	return Stats{
		Requests:  a.requests.Load(),
		BodyBytes: a.inflight.used.Load(), MaxBytes: a.inflight.limit,
		Waiting: a.waiting.used.Load(), MaxWaiting: a.waiting.limit,
		Streams: a.streams.used.Load(), MaxStreams: a.streams.limit,
	}
}

// Stats is that of the server's API.
func (s *Server) Stats() Stats { return s.api.Stats() }

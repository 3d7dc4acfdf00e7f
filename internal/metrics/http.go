package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gearman-gateway/internal/httpapi"
)

// requests counts what httpapi has answered.
type requests struct {
	group
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	answered table[answer, requestSeries]
}

// An answer is what a request has in common with others.
type answer struct {
	route, method string
	status        int
	waited        bool
}

type requestSeries struct {
	total    prometheus.Counter
	duration prometheus.Observer
}

func newRequests() *requests {
	total := counters("http_requests_total", "HTTP requests that were answered.", "route", "method", "code")
	duration := histograms("http_request_duration_seconds",
		"Time from a request's headers to the end of its answer. Those that waited, for a job or for events, were asked to.",
		until(5*time.Minute), "route", "waited")
	return &requests{group: group{total, duration}, total: total, duration: duration}
}

// noRoute stands for all paths that have no route.
const noRoute = "none"

// Answered implements httpapi.Meter.
func (r *requests) Answered(route, method string, status int, took time.Duration, waited bool) {
	if route == "" {
		route = noRoute
	}
	a := answer{route, knownMethod(method), status, waited}
	s, ok := r.answered.get(a)
	if !ok {
		s = r.answered.add(a, func() requestSeries {
			return requestSeries{
				total:    r.total.WithLabelValues(a.route, a.method, strconv.Itoa(a.status)),
				duration: r.duration.WithLabelValues(a.route, strconv.FormatBool(a.waited)),
			}
		})
	}
	s.total.Inc()
	s.duration.Observe(took.Seconds())
}

// knownMethod returns a method of HTTP, or Other: callers may invent methods.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return Other
}

func readHTTP(stats func() httpapi.Stats) prometheus.Collector {
	r := &reading{}
	requests := r.describe("http_requests_in_flight", "HTTP requests under way.")
	body := r.describe("http_inflight_body_bytes", "Bytes of the bodies of requests under way.")
	maxBody := r.describe("http_inflight_body_limit_bytes", "Bound of the bytes of the bodies of requests under way.")
	waiting := r.describe("http_waiting_requests", "Requests that wait for the end of a job, or for events.")
	maxWaiting := r.describe("http_waiting_requests_limit", "Bound of the requests that wait for the end of a job, or for events.")
	streams := r.describe("http_streams", "Open event streams.")
	maxStreams := r.describe("http_streams_limit", "Bound of the open event streams.")
	r.collect = func(ch chan<- prometheus.Metric) {
		s := stats()
		gauge(ch, requests, s.Requests)
		gauge(ch, body, s.BodyBytes)
		gauge(ch, maxBody, s.MaxBytes)
		gauge(ch, waiting, s.Waiting)
		gauge(ch, maxWaiting, s.MaxWaiting)
		gauge(ch, streams, s.Streams)
		gauge(ch, maxStreams, s.MaxStreams)
	}
	return r
}

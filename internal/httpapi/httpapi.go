// Package httpapi is the HTTP side of the gateway: one route table, and what stands between a request and the ledger:
// limits, decoding, validation, problems (RFC 9457) and an orderly end. The contract is api/openapi.yaml.
package httpapi

import (
	"cmp"
	"context"
	"crypto/tls"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/rs/zerolog"
	"golang.org/x/sync/singleflight"

	"gearman-gateway/internal/auth"
	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/limit"
	"gearman-gateway/internal/tracing"
	"gearman-gateway/internal/webhook"
)

// Jobs is what this package needs of the ledger. All methods are called from many goroutines. A job that the Caller does not see is not
// there.
type Jobs interface {
	// Submit returns when the job server has a background task, or when a sync one ended or its Wait lapsed; the record
	// then says how far the job is. A ctx that ends first ends the call, not the job. With an error the record may be nil or
	// have an ID. Submit may change t, and keeps its workload.
	Submit(ctx context.Context, t *ledger.Task) (*ledger.Record, error)

	// Job returns what is known of the job that ref, an id or a handle, names; it waits up to wait for the job's end.
	Job(ctx context.Context, who ledger.Caller, ref string, wait time.Duration) (*ledger.Record, error)

	// List returns up to q.Limit records, newest first, and the Before of the next page; "" if there is none.
	List(ctx context.Context, q ledger.Query) (records []ledger.Record, next string, err error)

	// Cancel ends a job. The record is of one that has not ended yet where its run was told to end.
	Cancel(ctx context.Context, who ledger.Caller, ref string) (*ledger.Record, error)

	// RunAgain submits a job that has ended once more, as a new one of the same owner, whose record it returns.
	RunAgain(ctx context.Context, who ledger.Caller, ref string) (*ledger.Record, error)

	// Follow calls send, on the caller's goroutine, for each entry of a job's log after the one with the number after, as it comes,
	// and returns nil when the job has ended, else why it could not go on.
	Follow(ctx context.Context, who ledger.Caller, ref string, after uint64, send func(ledger.Entry) error) error
}

// Servers is what this package needs of the job servers. All methods are called from many goroutines.
type Servers interface {
	Functions(ctx context.Context) ([]gearman.FunctionInfo, error)
	Workers(ctx context.Context) ([]gearman.WorkerInfo, error)
	Servers(ctx context.Context) []gearman.ServerInfo

	// Load returns how many workers can do a function and how many of its jobs wait for one, as was said a moment ago. It does not
	// block; ok is false where nobody can tell.
	Load(function string) (workers, queued int, ok bool)

	// Ping returns nil as soon as any job server answers an ECHO.
	Ping(ctx context.Context) error

	// SetMaxQueue bounds the jobs of a function on each job server, and returns what each said.
	SetMaxQueue(ctx context.Context, function string, m gearman.MaxQueue) []gearman.Answer
}

// Pool is what this package needs of the gateway's own workers. All methods are called from many goroutines and do not block. They report
// whether a function is the pool's.
type Pool interface {
	// Pause has no more jobs of a function begun, until Resume.
	Pause(function string) (own bool)
	Resume(function string) (own bool)
	Paused(function string) (paused, own bool)
}

// Webhooks is what this package needs of the sender of events. All methods are called from many goroutines. What says that there is no
// such sink, delivery or event are the errors of package webhook.
type Webhooks interface {
	// Events returns a page of the log of events, and Grown a channel that is closed when there is a new one.
	Events(ctx context.Context, q webhook.EventQuery) (webhook.EventPage, error)
	Grown() <-chan struct{}

	Sinks(ctx context.Context) ([]webhook.SinkStatus, error)
	Sink(ctx context.Context, name string) (webhook.SinkStatus, error)

	// Test sends a sink one event, once and now, whatever its state. That the sink did not take it is in the attempt, and no error.
	Test(ctx context.Context, sink string) (webhook.Attempt, error)

	// Pause keeps what a sink is to get; Resume sends it, also to a sink that was disabled.
	Pause(ctx context.Context, sink string) error
	Resume(ctx context.Context, sink string) error

	// Deliveries returns up to q.Limit of them without their Log, newest event first.
	Deliveries(ctx context.Context, q webhook.DeliveryQuery) ([]webhook.Delivery, error)
	Delivery(ctx context.Context, sink, eventID string) (webhook.Delivery, error)

	// Redeliver makes a delivery that has ended pending once more; Replay does so with those of a sink that are dead and of events
	// from since to before until, if these are not zero, and returns how many there were.
	Redeliver(ctx context.Context, sink, eventID string) error
	Replay(ctx context.Context, sink string, since, until time.Time) (int, error)

	// CheckCallback returns a *webhook.CallbackError for a callback that is not allowed, and fills in its Events where it is nil.
	CheckCallback(c *event.Callback) error
}

// API is the http.Handler of the gateway. It is safe for concurrent use, and what it starts ends with the request's context.
type API struct {
	o      Options
	router *chi.Mux

	origin *http.CrossOriginProtection
	fields *fieldChecker

	requests atomic.Int64
	pings    singleflight.Group
	inflight budget // bytes of request bodies
	answers  budget // bytes of whole answers that are being sent
	waiting  budget // requests that wait for the end of a job, or for an event
	streams  budget // event streams

	drain      context.Context // ended by Server.Shutdown
	beginDrain context.CancelFunc
}

// New returns the handler that o describes.
func New(o Options) *API {
	o = o.withDefaults()
	a := &API{
		o:        o,
		origin:   http.NewCrossOriginProtection(),
		fields:   newFieldChecker(o.MaxWait),
		inflight: budget{limit: o.MaxInflightBytes},
		answers:  budget{limit: o.MaxAnswerBytes},
		waiting:  budget{limit: int64(o.MaxWaiting)},
		streams:  budget{limit: int64(o.MaxStreams)},
	}
	a.drain, a.beginDrain = context.WithCancel(context.Background())
	a.router = a.routes()
	return a
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.router.ServeHTTP(w, r) }

// routes is the route table, all of it.
func (a *API) routes() *chi.Mux {
	r := chi.NewMux()
	r.Use(a.observe, a.guard)
	route := func(method, pattern string, needs auth.Scope, h handler) {
		r.Method(method, pattern, a.handle(a.admit(needs, h)))
	}
	get := func(pattern string, needs auth.Scope, h handler) {
		route(http.MethodGet, pattern, needs, h)
		route(http.MethodHead, pattern, needs, h) // net/http drops the body
	}
	post := func(pattern string, needs auth.Scope, h handler) { route(http.MethodPost, pattern, needs, h) }

	post("/jobs", auth.Submit, wantsJSON(noQuery(a.submit)))
	get("/jobs", auth.Read, wantsJSON(a.page))
	post("/jobs/batch", auth.Submit, wantsJSON(noQuery(a.batch)))
	get("/jobs/{handle}", auth.Read, wantsJSON(a.job))
	route(http.MethodDelete, "/jobs/{handle}", auth.Cancel, wantsJSON(noQuery(a.cancel)))
	get("/jobs/{handle}/result", auth.Read, noQuery(a.result))
	get("/jobs/{handle}/events", auth.Read, a.events)
	post("/jobs/{handle}/retry", auth.Submit, wantsJSON(noQuery(a.runAgain)))
	post("/functions/{function}", auth.Submit, a.call)
	post("/functions/{function}/pause", auth.Admin, wantsJSON(noQuery(a.pauseFunction)))
	post("/functions/{function}/resume", auth.Admin, wantsJSON(noQuery(a.resumeFunction)))
	route(http.MethodPut, "/functions/{function}/maxqueue", auth.Admin, wantsJSON(noQuery(a.setMaxQueue)))

	get("/functions", auth.Read, wantsJSON(noQuery(a.functions)))
	get("/workers", auth.Admin, wantsJSON(noQuery(a.workers)))
	get("/servers", auth.Admin, wantsJSON(noQuery(a.servers)))

	get("/events", auth.Read, wantsJSON(a.feed))
	get("/sinks", auth.Admin, wantsJSON(noQuery(a.sinks)))
	get("/sinks/{name}", auth.Admin, wantsJSON(noQuery(a.sink)))
	post("/sinks/{name}/test", auth.Admin, wantsJSON(noQuery(a.testSink)))
	post("/sinks/{name}/pause", auth.Admin, wantsJSON(noQuery(a.pauseSink)))
	post("/sinks/{name}/resume", auth.Admin, wantsJSON(noQuery(a.resumeSink)))
	post("/sinks/{name}/replay", auth.Admin, wantsJSON(noQuery(a.replay)))
	get("/deliveries", auth.Read, wantsJSON(a.deliveries))
	get("/deliveries/{id}", auth.Read, wantsJSON(noQuery(a.delivery)))
	post("/deliveries/{id}/redeliver", auth.Submit, wantsJSON(noQuery(a.redeliver)))

	get("/livez", open, a.livez)
	get("/readyz", open, a.readyz)
	get("/openapi.yaml", open, a.openapi)
	a.operations(get)

	r.NotFound(a.handle(a.noRoute))
	r.MethodNotAllowed(a.handle(a.noRoute))
	return r
}

// A handler answers a request, or returns the error that says why not. It does not do both.
type handler func(w *response, r *http.Request) error

// handle turns a handler into net/http's. The writer is the response that observe made.
func (a *API) handle(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w.(*response), r); err != nil {
			a.fail(w.(*response), r, err)
		}
	}
}

// noRoute answers where the table has no route. chi leaves the Allow header to whoever replaces its own handlers, so the
// table is asked method by method.
func (a *API) noRoute(w *response, r *http.Request) error {
	path := r.URL.EscapedPath()
	allow := ""
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete} {
		if a.router.Match(chi.NewRouteContext(), m, path) {
			allow += m + ", "
		}
	}
	if allow == "" {
		return notFound.because("There is nothing at this path.")
	}
	w.Header().Set("Allow", allow+http.MethodOptions)
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return methodNotAllowed.because("The Allow header lists the methods of this path.")
}

// Options says how the API and its Server behave. Jobs, Servers, Pool and Webhooks are needed; every other zero value means the default.
type Options struct {
	Jobs     Jobs
	Servers  Servers
	Pool     Pool
	Webhooks Webhooks
	Audit    event.Sink                                  // gets what administrators do; may be nil
	Rules    func(function string) Rules                 // of workloads; nil: there are none. It must not block
	Identify func(*http.Request) (*auth.Identity, error) // an error is one of package auth; nil: there is no access control
	Meter    Meter                                       // counts requests; nil: nobody does
	Metrics  http.Handler                                // of GET /metrics; nil: there is no such path
	Limits   *limit.Limiter                              // nil: there are no limits of identities and functions
	Gate     *limit.Gate                                 // nil: however many requests come, all are worked on at once
	Log      zerolog.Logger                              // the zero value logs to nowhere: zerolog's zero Logger has no writer
	Tracer   *tracing.Tracer                             // nil: there are no traces

	Hosts []string // names, without port, by which browsers may call besides localhost and IP addresses

	MaxWorkload      int64         // bytes of one workload, decoded; 0 means 64 MiB
	MaxInflightBytes int64         // of all request bodies that are being handled; beyond it 503; 0 means 512 MiB
	MaxAnswerBytes   int64         // of all answers that are being sent, but for streams; beyond it 503; 0 means 512 MiB
	SyncTimeout      time.Duration // how long a sync job is waited for that names no timeout; 0 means 30 s, and never over MaxWait
	MaxWait          time.Duration // the longest wait a caller may ask for; 0 means 5 minutes
	MaxWaiting       int           // requests that wait for a job's end, or for events, at a time; beyond it 503; 0 means 20,000
	MaxStreams       int           // event streams at a time; beyond it 503; 0 means 10,000
	MaxBatch         int           // submissions of one batch; 0 means 1,000
	MaxBatchBytes    int64         // of the body of a batch; 0 means 64 MiB

	// Of Server alone.
	TLS               *tls.Config   // of TCP listeners, with NextProtos also in what its GetConfigForClient returns; nil: plain HTTP
	H2C               bool          // speak HTTP/2 also without TLS, to clients that begin with it
	MaxConnections    int           // beyond it new ones wait until another is closed or idle; 0 means 20,000
	ReadHeaderTimeout time.Duration // 0 means 5 s
	ReadTimeout       time.Duration // of a whole request, headers and body; 0 means 60 s
	WriteTimeout      time.Duration // of each write of up to 256 KiB, not of a response; 0 means 30 s
	IdleTimeout       time.Duration // of a kept connection between requests; 0 means 2 minutes
	MaxHeaderBytes    int           // 0 means 64 KiB
	DrainDelay        time.Duration // how long Shutdown goes on answering before it closes the listeners; 0 means 1 s
}

func (o Options) withDefaults() Options {
	o.MaxWorkload = cmp.Or(o.MaxWorkload, 64<<20)
	o.MaxInflightBytes = cmp.Or(o.MaxInflightBytes, 512<<20)
	o.MaxAnswerBytes = cmp.Or(o.MaxAnswerBytes, 512<<20)
	o.MaxWait = cmp.Or(o.MaxWait, 5*time.Minute)
	o.SyncTimeout = min(cmp.Or(o.SyncTimeout, 30*time.Second), o.MaxWait)
	o.MaxWaiting = cmp.Or(o.MaxWaiting, 20_000)
	o.MaxStreams = cmp.Or(o.MaxStreams, 10_000)
	o.MaxBatch = cmp.Or(o.MaxBatch, 1_000)
	o.MaxBatchBytes = cmp.Or(o.MaxBatchBytes, 64<<20)
	o.MaxConnections = cmp.Or(o.MaxConnections, 20_000)
	o.ReadHeaderTimeout = cmp.Or(o.ReadHeaderTimeout, 5*time.Second)
	o.ReadTimeout = cmp.Or(o.ReadTimeout, 60*time.Second)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 30*time.Second)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 2*time.Minute)
	o.MaxHeaderBytes = cmp.Or(o.MaxHeaderBytes, 64<<10)
	o.DrainDelay = cmp.Or(o.DrainDelay, time.Second)
	return o
}

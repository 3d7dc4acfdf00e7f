// Package gateway is the whole gateway: HTTP/JSON in front, Gearman job servers behind, a worker pool that runs handlers, and
// webhooks that tell of every job. A program of your own imports it to add handlers written in Go.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/auth"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/httpapi"
	"gearman-gateway/internal/jobserver"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/limit"
	"gearman-gateway/internal/metrics"
	"gearman-gateway/internal/store"
	"gearman-gateway/internal/tracing"
	"gearman-gateway/internal/webhook"
	"gearman-gateway/internal/workerpool"
)

// A Handler runs jobs of one function; Job is one run of it. HandlerFunc makes a Handler of a function, and a handler that
// returns ErrFailed ends its job without an exception.
type (
	Handler     = workerpool.Handler
	HandlerFunc = workerpool.HandlerFunc
	Job         = workerpool.Job
)

// RetryError is what a handler returns that asks for another try, and NeverRetryError one that asks for none.
type (
	RetryError      = workerpool.RetryError
	NeverRetryError = workerpool.NeverRetryError
)

// ErrFailed ends a job as failed without a word to its client.
var ErrFailed = workerpool.ErrFailed

// Gateway is one gateway. Make it with New, then Start it once and Stop it once.
type Gateway struct {
	c       Config
	tls     *tls.Config
	tracer  *tracing.Tracer // nil where there are no traces
	db      *store.DB       // nil where nothing is durable
	outbox  webhook.Outbox
	events  *webhook.Sender
	limits  *limit.Limiter
	records *ledger.Ledger
	engine  *jobserver.Server // nil where the configuration names job servers
	cluster *gearman.Cluster
	pool    atomic.Pointer[workerpool.Pool] // nil where there is nothing to run
	servers []gearman.Options               // the pool's
	server  *httpapi.Server
	metrics *metrics.Metrics
	addrs   []string // where HTTP is served
	failed  chan error
	left    chan string // why the pool has left for good

	serverTLS atomic.Pointer[tls.Config] // of new connections; nil without Config.TLS

	wanted atomic.Pointer[func(webhook.Head) bool]
	rules  atomic.Pointer[map[string]httpapi.Rules]
	auth   atomic.Pointer[auth.Authenticator] // nil where there is no access control
}

// New checks the configuration and returns a gateway that does nothing yet.
func New(c Config) (*Gateway, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	c.Log = c.Log.Level(zerolog.Level(c.LogLevel))
	t, err := c.GearmanTLS.config()
	if err != nil {
		return nil, err
	}
	g := &Gateway{c: c, tls: t, failed: make(chan error, 1), left: make(chan string, 1), limits: limit.New(c.Limits.rules())}
	g.metrics = g.newMetrics()
	rules, err := c.rules()
	if err != nil {
		return nil, err
	}
	a, err := c.authenticator()
	if err != nil {
		return nil, err
	}
	g.auth.Store(a)
	serverTLS, err := c.TLS.config()
	if err != nil {
		return nil, err
	}
	g.serverTLS.Store(serverTLS)
	g.use(&c, rules)
	return g, nil
}

// use takes from a configuration what others look at all the time.
func (g *Gateway) use(c *Config, rules map[string]httpapi.Rules) {
	o := c.webhookOptions()
	wanted := o.Wanted()
	g.wanted.Store(&wanted)
	g.rules.Store(&rules)
}

// Start brings everything up, from the inside out, and returns when the gateway answers HTTP; after an error nothing is left
// running. A job server that cannot be reached is no error: the gateway goes on trying.
func (g *Gateway) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			now, cancel := context.WithCancel(ctx)
			cancel()
			_ = g.Stop(now) // err says more
		}
	}()
	if g.tracer, err = g.c.tracer(); err != nil {
		return err
	}
	if err = g.startWebhooks(ctx); err != nil {
		return err
	}
	if g.servers, err = g.jobServers(); err != nil {
		return err
	}
	if g.cluster, err = gearman.NewCluster(g.servers); err != nil {
		return err
	}
	if err = g.openRecords(ctx); err != nil {
		return err
	}
	if err = g.startPool(); err != nil {
		return err
	}
	first, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_ = g.cluster.WaitConnected(first) // the cluster's log says what is wrong
	if a := g.auth.Load(); a != nil {
		a.Start(nil)
	}
	return g.serve()
}

// startWebhooks opens what keeps events, and the data directory with it, and delivers those that an earlier life has left.
func (g *Gateway) startWebhooks(ctx context.Context) (err error) {
	o := g.c.webhookOptions()
	wanted := func(h webhook.Head) bool { return (*g.wanted.Load())(h) }
	if g.c.Data == "" {
		g.outbox = webhook.NewMemory(webhook.MemoryOptions{
			Wanted: wanted, MaxBytes: min(memoryBacklog, int64(g.c.Webhooks.MaxBacklog)), Log: g.c.Log,
		})
	} else {
		g.db, err = store.Open(ctx, store.Options{
			Dir: g.c.Data, Log: g.c.Log, Wanted: wanted, MaxEventBytes: int64(g.c.Webhooks.MaxBacklog),
			ResultTTL: time.Duration(g.c.ResultTTL), Retention: time.Duration(g.c.Retention), Meter: g.metrics,
		})
		if err != nil {
			return fmt.Errorf("data: %w", err)
		}
		g.outbox = g.db
	}
	o.Outbox, o.Meter, o.Tracer = g.outbox, g.metrics, g.tracer
	g.events, err = webhook.New(ctx, o)
	return err
}

// memoryBacklog bounds the events of a gateway without a data directory, in bytes.
const memoryBacklog = 64 << 20

// openRecords makes the ledger, and takes up what an earlier life of the gateway has left in the data directory.
func (g *Gateway) openRecords(ctx context.Context) error {
	o := ledger.Options{
		Servers: g.cluster, Events: g.outbox, EventsFull: g.outbox.Full, SharedUniques: g.c.SharedUniques, Log: g.c.Log,
		Meter: g.metrics, Tracer: g.tracer, ResultTTL: time.Duration(g.c.ResultTTL),
		Room: func(owner, function string, size int64, owned, called ledger.Held) error {
			return g.limits.Room(owner, function, size, limit.Held(owned), limit.Held(called))
		},
		CancelRun: func(a *gearman.Assignment) {
			if pool := g.pool.Load(); pool != nil {
				pool.Cancel(a)
			}
		},
	}
	if g.db != nil {
		o.Store = g.db
	}
	g.records = ledger.New(o)
	return g.records.Start(ctx)
}

// jobServers starts the embedded job server where no other is configured, and returns how to reach what there is.
func (g *Gateway) jobServers() ([]gearman.Options, error) {
	addrs := g.c.Gearman
	queue := ""
	if g.c.Data != "" { // which the store has locked
		queue = filepath.Join(g.c.Data, "queue.jsonl")
	}
	if len(addrs) > 0 && jobserver.Kept(queue) {
		g.c.Log.Warn().Str("file", queue).Msg("the embedded job server has left jobs that nobody runs: start once without gearman for them, or remove the file")
	}
	if len(addrs) == 0 {
		engine := jobserver.New(jobserver.Options{
			Listen: string(g.c.Jobserver.Listen), Queue: queue, MaxBody: g.c.maxPacket(), Version: g.c.Version, Log: g.c.Log,
		})
		switch err := engine.Start(); {
		case errors.Is(err, jobserver.ErrQueue):
			return nil, fmt.Errorf("data: %w", err)
		case err != nil:
			return nil, portTaken(err, "jobserver.listen", "--jobserver-listen, or --gearman with the address of a job server that runs already")
		}
		g.engine = engine
		addrs = []Address{Address(engine.Addr())}
	}
	var servers []gearman.Options
	for _, a := range addrs {
		o := gearman.Options{Addr: string(a), MaxPacket: g.c.maxPacket(), Log: g.c.Log}
		if g.engine == nil {
			o.TLS = g.tls
		}
		servers = append(servers, o)
	}
	return servers, nil
}

// maxPacket has room for a workload and its names.
func (c *Config) maxPacket() int { return int(c.MaxWorkload) + 64<<10 }

func (g *Gateway) startPool() error {
	functions, err := g.c.functions()
	if err != nil {
		return err
	}
	if len(functions) == 0 {
		g.c.Log.Info().Msg("no handlers: this gateway runs no jobs itself")
	}
	return g.reloadPool(&g.c, functions)
}

// reloadPool gives the pool what it is to run, and makes it when there is something for the first time.
func (g *Gateway) reloadPool(c *Config, functions map[string]workerpool.Function) error {
	w := c.Workers
	limits := workerpool.Limits{
		MaxRuntime: time.Duration(w.MaxRuntime), MemoryLimit: int64(w.MemoryLimit), IdleTimeout: time.Duration(w.IdleTimeout),
		MaxJobs: w.MaxJobs, OnLimit: w.OnLimit,
	}
	if pool := g.pool.Load(); pool != nil {
		g.metrics.Know(slices.Sorted(maps.Keys(functions)))
		err := pool.Reload(functions, limits)
		if err != nil {
			closeHandlers(functions)
		}
		return err
	}
	if len(functions) == 0 {
		return nil
	}
	g.metrics.Know(slices.Sorted(maps.Keys(functions)))
	pool, err := workerpool.New(workerpool.Options{
		Servers: g.servers, Functions: functions, Kept: slices.Collect(maps.Values(g.c.Handlers)), Limits: limits, Concurrency: w.Concurrency, Grace: time.Duration(w.Grace) + killTime,
		MaxDeaths: w.MaxDeaths, Observer: g.records, Meter: g.metrics, Events: g.outbox, Log: c.Log, Tracer: g.tracer,
		Exit: func(reason string) { g.left <- reason },
	})
	if err != nil {
		closeHandlers(functions)
		return err
	}
	g.pool.Store(pool)
	pool.Start()
	return nil
}

// killTime is what the pool waits longer than a handler's process has between SIGTERM and SIGKILL: so the job of one that was killed ends.
const killTime = time.Second

// identify returns who sent a request: anyone, where there is no access control.
func (g *Gateway) identify(r *http.Request) (*auth.Identity, error) {
	if a := g.auth.Load(); a != nil {
		return a.Identify(r)
	}
	return auth.Anyone, nil
}

// Stop ends the gateway, from the outside in, so that nobody loses what another part still owes it:
//
//  1. HTTP: no new requests; those under way are answered, which needs everything below;
//  2. the worker pool: no new jobs; those that run end and their results reach the job server. It takes jobs for as long as a request
//     may wait for one of them, at most for half of the time that there is: what it takes then has the other half to end;
//  3. the ledger submits no more, then the connections to the job servers;
//  4. the embedded job server, which keeps what is queued in the data directory, if there is one;
//  5. the webhooks, because all of the above cause events;
//  6. the traces, of all of the above;
//  7. the data directory, when all that was told of jobs, events and deliveries is stored;
//  8. the operations listener, so that all of this can be watched.
//
// When ctx ends what is left is cut short, in the same order. Stop returns when every goroutine has ended, and the error says
// what was cut.
func (g *Gateway) Stop(ctx context.Context) error {
	errs := g.stopWork(ctx)
	if g.records != nil {
		g.records.Stop()
	}
	if g.cluster != nil {
		now, cancel := context.WithCancel(ctx)
		cancel() // nobody waits any more, and tracked jobs are taken up again at the next start
		g.cluster.Close(now)
	}
	if g.engine != nil {
		g.engine.Stop()
	}
	if g.events != nil {
		g.stopWebhooks(ctx)
	}
	g.tracer.Stop()
	if g.db != nil {
		if err := g.db.Close(); err != nil {
			errs = append(errs, fmt.Errorf("data: %w", err))
		}
	}
	if g.server != nil {
		g.server.StopOperations()
	}
	return errors.Join(errs...)
}

// stopWork ends HTTP and the worker pool. The pool's own deadline counts from when nobody waits for an answer any more.
func (g *Gateway) stopWork(ctx context.Context) (errs []error) {
	answered, left := make(chan struct{}), make(chan error, 1)
	jobs, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	go func() { left <- g.stopPool(ctx, jobs, answered) }()
	if g.server != nil {
		if err := g.server.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("HTTP requests were cut off: %w", err))
		}
	}
	if a := g.auth.Load(); a != nil {
		a.Close()
	}
	close(answered)
	defer context.AfterFunc(ctx, cut)()
	if err := <-left; err != nil {
		errs = append(errs, fmt.Errorf("worker pool: %w", err))
	}
	return errs
}

// stopPool stops the pool when all requests are answered, or half of ctx's time is over. It cancels jobs when the context jobs ends.
func (g *Gateway) stopPool(ctx, jobs context.Context, answered <-chan struct{}) error {
	pool := g.pool.Load()
	if pool == nil {
		return nil
	}
	var half <-chan time.Time // nil: ctx has no deadline
	if deadline, ok := ctx.Deadline(); ok {
		timer := time.NewTimer(time.Until(deadline) / 2)
		defer timer.Stop()
		half = timer.C
	}
	select {
	case <-answered:
	case <-half:
	}
	return pool.Stop(jobs)
}

// lastEvents is how long the webhooks may take at the end for what is due: at least, where what is left then is lost, at most, where it
// is kept for the next start.
const lastEvents = 2 * time.Second

// stopWebhooks gives the last events a moment, also when ctx has ended: they tell how the others ended.
func (g *Gateway) stopWebhooks(ctx context.Context) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastEvents)
	defer cancel()
	if deadline, ok := ctx.Deadline(); ok && g.db == nil && time.Until(deadline) > lastEvents {
		last = ctx
	}
	g.events.Stop(last)
	if n := g.events.Undelivered(context.WithoutCancel(ctx)); n > 0 && g.db == nil {
		g.c.Log.Warn().Int64("events", n).Msg("webhook events were not delivered before the end, and there is no data directory to keep them")
	}
}

//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// soakCmd loads one gateway that has all its parts: the embedded job server and pool, a data directory, a sink.
type soakCmd struct {
	programs
	For    time.Duration `help:"How long to load." default:"1h" env:"SOAK"`
	Rate   int           `help:"Requests a second." default:"500"`
	Settle time.Duration `help:"The longest time to come back to the baseline in." default:"2m"`
	Docs   string        `help:"Directory of performance.md, where the result is put; none: nothing is written." placeholder:"DIR"`
}

// soakConfig has records and results go early, so that the gateway comes to hold as much as it ever will, and then no more.
const soakConfig = `listen: %s
jobserver: {listen: %s}
data: %s
result_ttl: 5s
retention: 5s
sinks: [{url: "http://%s/"}]
log_level: warn
`

// full is how many jobs that do not end it takes until the gateway holds as many records as it ever will: 100,000, as docs/limits.md has it.
// The load alone would take half an hour for that: only the records of its jobs that fail stay, as there is no result of theirs to give up.
const full = 110_000

// Run warms up until the gateway is full, or for a tenth of the time, and takes the baseline when what came of that is gone; then it
// loads, and waits until everything is back.
func (c *soakCmd) Run(ctx context.Context) error {
	b, err := newBench(c.programs)
	if err != nil {
		return err
	}
	defer b.close()
	s, err := c.start(ctx, b)
	if err != nil {
		return err
	}
	defer s.stop()
	warmup := c.For / 10
	fmt.Fprintf(os.Stderr, "bench: soak: warming up for %v at most, then loading for %v\n", warmup, c.For)
	if err := s.warmUp(ctx, warmup, 10*c.Rate); err != nil {
		return fmt.Errorf("warming up: %w", err)
	}
	baseline := s.settle(ctx, nil, c.Settle)
	before := s.requests.Load()
	s.load(ctx, c.For, c.Rate)
	loaded := s.take(ctx)
	end := s.settle(ctx, &baseline, c.Settle)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s %v of load: %d requests, %d of them not answered as they should be.\n\n", about(ctx), c.For, s.requests.Load()-before, s.failures.Load())
	back := writeHeld(&text, baseline, loaded, end)
	if _, err := os.Stdout.Write(text.Bytes()); err != nil {
		return err
	}
	if c.Docs != "" {
		if err := replaceBetween(filepath.Join(c.Docs, "performance.md"), "soak", text.Bytes()); err != nil {
			return err
		}
	}
	if err := s.failed(); err != nil {
		return err
	}
	if !back {
		return fmt.Errorf("the gateway did not come back to its baseline within %v", c.Settle)
	}
	return nil
}

// soaking is the gateway under load.
type soaking struct {
	*rig
	ops      string // URL of the operations listener; "" where the gateway has none
	requests atomic.Int64
	failures atomic.Int64
	failure  atomic.Value // the last, an error
}

// failed returns how many requests have failed, as an error; nil if none has.
func (s *soaking) failed() error {
	if n := s.failures.Load(); n > 0 {
		return fmt.Errorf("%d requests failed, the last: %v", n, s.failure.Load())
	}
	return nil
}

func (c *soakCmd) start(ctx context.Context, b *bench) (_ *soaking, err error) {
	s := &soaking{rig: &rig{setup: setup{front: "gateway", embedded: true, worker: true}}}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.dir, err = os.MkdirTemp(b.dir, "soak-"); err != nil {
		return nil, err
	}
	var sink, metrics string
	for _, addr := range []*string{&s.http, &s.gearman, &sink, &metrics} {
		if *addr, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	file := filepath.Join(s.dir, "gateway.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, soakConfig, s.http, s.gearman, filepath.Join(s.dir, "data"), sink), 0o600); err != nil {
		return nil, err
	}
	accepts := func(ctx context.Context) error { return connects(ctx, sink) }
	if _, err := s.runQuietly(ctx, "sink", accepts, b.programs.Gateway, "sink", "--listen", sink); err != nil {
		return nil, err
	}
	argv := []string{b.programs.Gateway, "--config", file}
	if help, err := exec.CommandContext(ctx, b.programs.Gateway, "serve", "--help").CombinedOutput(); err == nil && bytes.Contains(help, []byte("--ops-listen")) {
		argv, s.ops = append(argv, "--ops-listen", metrics), "http://"+metrics
	}
	s.server, err = s.run(ctx, "gateway", s.hasWorker, argv...)
	return s, err
}

// runQuietly runs a process of which only errors are kept: a sink prints every event.
func (s *soaking) runQuietly(ctx context.Context, name string, ready func(context.Context) error, argv ...string) (*process, error) {
	return s.run(ctx, name, ready, append([]string{"sh", "-c", `exec "$0" "$@" >/dev/null`}, argv...)...)
}

// load sends requests for so long, of each kind in turn, over kept connections and now and then a new one.
func (s *soaking) load(ctx context.Context, d time.Duration, rate int) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	places := make(chan struct{}, 256) // under way at a time; when all are taken the rate is not kept
	tick := time.NewTicker(time.Second / time.Duration(max(rate, 1)))
	defer tick.Stop()
	var requests sync.WaitGroup
	defer requests.Wait()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		places <- struct{}{}
		requests.Go(func() {
			defer func() { <-places }()
			s.requests.Add(1)
			if err := s.request(client, i); err != nil {
				s.failures.Add(1)
				s.failure.Store(err)
			}
		})
	}
}

// warmUp takes half of a time at most for each of loading the gateway and filling it.
func (s *soaking) warmUp(ctx context.Context, most time.Duration, rate int) error {
	s.load(ctx, min(most/2, 20*time.Second), rate)
	const batch = 100
	job := `{"function":"nobody","workload":"abc"}`
	body := "[" + strings.Repeat(job+",", batch-1) + job + "]"
	for began, n := time.Now(), 0; n < full && time.Since(began) < most/2 && ctx.Err() == nil; n += batch {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.http+"/jobs/batch", strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		if _, err := do(http.DefaultClient, req); err != nil {
			return fmt.Errorf("filling the gateway: %w", err)
		}
	}
	return s.failed()
}

// soakRequests are the kinds of request; GET ones come after a submit and have the job's id for %s.
var soakRequests = []struct{ path, body, follow string }{
	{path: "/jobs", body: `{"function":"reverse","workload":"abc","mode":"background"}`},
	{path: "/jobs", body: `{"function":"reverse","workload":"abc","mode":"sync"}`},
	{path: "/functions/wordcount", body: "a b c"},
	{path: "/jobs", body: `{"function":"reverse","workload":"abc","mode":"tracked"}`, follow: "/jobs/%s?wait=10s"},
	{path: "/jobs", body: `{"function":"reverse","workload":"abc","mode":"tracked"}`, follow: "/jobs/%s/events"},
	{path: "/jobs", body: `{"function":"reverse","workload":"abc","delay":"1s"}`},
	{path: "/jobs/batch", body: `[{"function":"reverse","workload":"a"},{"function":"reverse","workload":"b"}]`},
	{path: "/jobs", body: `{"function":"fail","workload":"exception","mode":"sync"}`},
}

// request makes the i-th request. It is not cut off when the load ends, so that a failure is the gateway's own.
func (s *soaking) request(client *http.Client, i int) error {
	kind := soakRequests[i%len(soakRequests)]
	req, err := http.NewRequest(http.MethodPost, "http://"+s.http+kind.path, strings.NewReader(kind.body))
	if err != nil {
		return err
	}
	req.Close = i%50 == 0
	if kind.path == "/jobs" || kind.path == "/jobs/batch" {
		req.Header.Set("Content-Type", "application/json")
	}
	header, err := do(client, req)
	if err != nil || kind.follow == "" {
		return err
	}
	if req, err = http.NewRequest(http.MethodGet, "http://"+s.http+fmt.Sprintf(kind.follow, header.Get("X-Job-Id")), nil); err != nil {
		return err
	}
	_, err = do(client, req)
	return err
}

func do(client *http.Client, req *http.Request) (http.Header, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %.200q", req.Method, req.URL.Path, resp.Status, text)
	}
	return resp.Header, err
}

// held is what a gateway holds at one time.
type held struct {
	goroutines     int   // -1: the gateway does not say
	heap           int64 // bytes that are in use when the garbage has been collected; -1: the gateway does not say
	threads, descs int
	resident       int64
}

// take looks at the gateway.
func (s *soaking) take(ctx context.Context) held {
	_, _ = s.ask(ctx, "/debug/pprof/heap?gc=1") // the garbage is collected
	text, err := s.ask(ctx, "/metrics")
	gauge := func(name string) int64 {
		_, rest, found := strings.Cut(text, "\n"+name+" ")
		line, _, _ := strings.Cut(rest, "\n")
		n, wrong := strconv.ParseFloat(line, 64)
		if err != nil || !found || wrong != nil {
			return -1
		}
		return int64(n)
	}
	return held{goroutines: int(gauge("go_goroutines")), heap: gauge("go_memstats_heap_alloc_bytes"), threads: s.server.entries("task"), descs: s.server.entries("fd"), resident: s.server.memory("VmRSS")}
}

// ask reads what the operations listener has.
func (s *soaking) ask(ctx context.Context, path string) (text string, err error) {
	if s.ops == "" {
		return "", errors.New("the gateway has no operations listener")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.ops+path, nil)
	if err != nil {
		return "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// within reports whether h is back at a baseline: goroutines and descriptors but for the handful that come and go, memory but for what
// Go's heap may keep of the last peak.
func (h held) within(b held) (goroutines, descs, resident bool) {
	return h.goroutines <= b.goroutines+5, h.descs <= b.descs+5, h.resident <= b.resident*12/10+16<<20
}

// settle waits until the gateway is back at the baseline, or until the patience is over, and returns what it holds then. Without a
// baseline it waits for as long as records, deliveries and idle connections take to go.
func (s *soaking) settle(ctx context.Context, baseline *held, patience time.Duration) held {
	if baseline == nil {
		patience = min(patience, 45*time.Second)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end) && ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		if baseline == nil {
			continue
		}
		h := s.take(ctx)
		if a, b, c := h.within(*baseline); a && b && c {
			return h
		}
	}
	return s.take(ctx)
}

// writeHeld writes point 8, and reports whether all is back.
func writeHeld(w io.Writer, baseline, loaded, end held) bool {
	goroutines, descs, resident := end.within(baseline)
	verdict := func(back bool) string { return (&point{ok: back}).verdict() }
	known := baseline.goroutines >= 0 && end.goroutines >= 0
	fmt.Fprint(w, "| point 8 | baseline | under load | afterwards | |\n| --- | --: | --: | --: | --- |\n")
	if known {
		fmt.Fprintf(w, "| goroutines | %d | %d | %d | %s |\n", baseline.goroutines, loaded.goroutines, end.goroutines, verdict(goroutines))
	} else {
		fmt.Fprint(w, "| goroutines | | | | not known: the gateway has no metrics |\n")
	}
	if known {
		fmt.Fprintf(w, "| heap after a collection, MiB | %d | %d | %d | |\n", baseline.heap>>20, loaded.heap>>20, end.heap>>20)
	}
	fmt.Fprintf(w, "| threads | %d | %d | %d | |\n", baseline.threads, loaded.threads, end.threads)
	fmt.Fprintf(w, "| descriptors | %d | %d | %d | %s |\n", baseline.descs, loaded.descs, end.descs, verdict(descs))
	fmt.Fprintf(w, "| RSS, MiB | %d | %d | %d | %s |\n", baseline.resident>>20, loaded.resident>>20, end.resident>>20, verdict(resident))
	return descs && resident && (goroutines || !known)
}

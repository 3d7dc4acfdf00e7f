//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// The workloads, in bytes, and the numbers of keep-alive connections.
var (
	sizes = []int{100, 16 << 10}
	conns = []int{1, 16, 64, 256}
)

// bench is one run.
type bench struct {
	programs
	self           string // this program
	dir            string // of everything that it writes; removed at the end
	time           time.Duration
	smoke          bool
	rounds, others int // of main cells, and of the others
}

func newBench(p programs) (*bench, error) {
	b := &bench{programs: p}
	for _, name := range []string{p.Gateway, p.Gearmand, "wrk", "php"} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, fmt.Errorf("%w: make bench builds and installs what is needed", err)
		}
	}
	var err error
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.programs.Gateway, err = filepath.Abs(p.Gateway); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return nil, err
	}
	for name, text := range map[string][]byte{"wrk.lua": script, "client.php": client} {
		if err := os.WriteFile(filepath.Join(b.dir, name), text, 0o600); err != nil {
			b.close()
			return nil, err
		}
	}
	return b, nil
}

func (b *bench) close() { _ = os.RemoveAll(b.dir) }

// cell is one row of the table: a contender at a work, with the rounds that it had.
type cell struct {
	name string // of the contender
	work string // background, sync, tracked, batch, raw; pipeline
	setup
	conns, size int
	main        bool // more and longer rounds
	load        func(*bench, context.Context, *rig, *cell, time.Duration) (loaded, error)

	rounds []round
	err    error // of the last round that failed
}

// round is what was measured in one.
type round struct {
	rate                    float64 // jobs a second
	p50, p99                float64 // of a request, in milliseconds
	serverCPU, jobserverCPU float64 // microseconds a job
	serverRSS, jobserverRSS float64 // peaks, in MiB
	errors                  float64 // requests
}

// jobs is how many there are in a request.
func (c *cell) jobs() int {
	if c.work == "batch" {
		return batchSize
	}
	return 1
}

// table lists what is measured. Names with the same work, connections and size are interleaved, as is everything else.
func table() (cells []*cell) {
	floor := setup{front: "floor"}
	gateway, plugin, gearmand := setup{front: "gateway"}, setup{front: "plugin"}, setup{front: "gearmand"}
	embedded := setup{front: "gateway", embedded: true}
	with := func(s setup, change func(*setup)) setup { change(&s); return s }
	worker := func(s setup) setup { return with(s, func(s *setup) { s.worker = true }) }
	add := func(name, work string, s setup, conns, size int, main bool) {
		c := &cell{name: name, work: work, setup: s, conns: conns, size: size, main: main, load: (*bench).wrk}
		switch {
		case name == "php-gearman":
			c.load = (*bench).php
		case s.front == "gearmand":
			c.load = (*bench).raw
		}
		cells = append(cells, c)
	}
	for _, size := range sizes {
		for _, n := range conns {
			main := size == 100 && n == 64
			add("floor", "background", floor, n, size, main)
			add("gateway", "background", gateway, n, size, main)
			add("gearmand -r http", "background", plugin, n, size, main)
			add("gateway", "sync", worker(gateway), n, size, main || size == 100 && n == 1)
			add("gearmand -r http", "sync", worker(plugin), n, size, main)
		}
	}
	add("gateway", "batch", gateway, 16, 100, true)
	add("gateway, embedded", "batch", embedded, 16, 100, false)
	add("gearmand alone", "pipeline", gearmand, 1, 100, true)
	add("client alone", "background", gearmand, 1, 100, false)
	add("client alone", "background", gearmand, 64, 100, false)
	add("client alone", "sync", worker(gearmand), 1, 100, true)
	add("client alone", "sync", worker(gearmand), 64, 100, false)
	add("php-gearman", "background", gearmand, 1, 100, false)
	add("php-gearman", "sync", worker(gearmand), 1, 100, false)
	add("floor", "sync", floor, 64, 100, false)
	add("gateway, embedded", "background", embedded, 64, 100, false)
	add("gateway, embedded", "sync", worker(embedded), 64, 100, false)
	add("gateway, sink", "background", with(gateway, func(s *setup) { s.sink = true }), 64, 100, false)
	add("gateway, worker", "background", worker(gateway), 64, 100, false)
	add("gearmand -r http, worker", "background", worker(plugin), 64, 100, false)
	add("gateway, data", "tracked", with(worker(gateway), func(s *setup) { s.data = true }), 64, 100, false)
	add("gateway, embedded, data", "tracked", with(worker(embedded), func(s *setup) { s.data = true }), 64, 100, false)
	add("gateway", "raw", worker(gateway), 64, 100, false)
	add("gateway, embedded", "raw", worker(embedded), 64, 100, false)
	return cells
}

// cells measures the table, round by round, each round over all rows: what the machine does meanwhile meets all alike.
func (b *bench) cells(ctx context.Context) []*cell {
	cells := table()
	for n := range b.rounds {
		for _, c := range cells {
			if ctx.Err() != nil || !c.main && n >= b.others {
				continue
			}
			d := b.time
			if !c.main {
				d /= 2
			}
			r, err := b.measure(ctx, c, d)
			if err != nil {
				c.err = err
				if ctx.Err() == nil {
					fmt.Fprintf(os.Stderr, "bench: %s, %s, %d connections, %d bytes: %v\n", c.name, c.work, c.conns, c.size, err)
				}
				continue
			}
			c.rounds = append(c.rounds, r)
		}
		fmt.Fprintf(os.Stderr, "bench: round %d of %d\n", n+1, b.rounds)
	}
	return cells
}

// measure takes one round of a cell.
func (b *bench) measure(ctx context.Context, c *cell, d time.Duration) (m round, err error) {
	r, err := b.start(ctx, c.setup, c.size)
	if err != nil {
		return m, err
	}
	defer r.stop()
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w\n%s", err, r.tails())
		}
	}()
	if r.front != "gearmand" {
		if _, err := probe(ctx, r, c.work, c.size); err != nil {
			return m, err
		}
	}
	if !b.smoke {
		if _, err := c.load(b, ctx, r, c, d/8); err != nil {
			return m, fmt.Errorf("warm-up: %w", err)
		}
	}
	var before, after usage
	var l loaded
	for ; l.Requests == 0; d *= 4 { // a short round on a busy machine may be over before the first answer
		if d > 30*time.Second {
			return m, errors.New("no request was answered")
		}
		if before, err = used(r); err != nil {
			return m, err
		}
		if l, err = c.load(b, ctx, r, c, d); err != nil {
			return m, err
		}
		if after, err = used(r); err != nil {
			return m, err
		}
	}
	jobs := float64(l.Requests * c.jobs())
	m = round{
		rate: jobs / float64(l.US) * 1e6, p50: float64(l.P50) / 1e3, p99: float64(l.P99) / 1e3, errors: float64(l.Errors),
		serverCPU:    float64((after.server - before.server).Microseconds()) / jobs,
		jobserverCPU: float64((after.jobserver - before.jobserver).Microseconds()) / jobs,
		serverRSS:    float64(r.server.memory("VmHWM")) / (1 << 20),
		jobserverRSS: float64(r.jobserver.memory("VmHWM")) / (1 << 20),
	}
	if r.server == nil { // the load is the contender
		m.serverCPU, m.serverRSS = float64(l.CPU)/jobs, float64(l.RSS)/(1<<10)
	}
	return m, nil
}

// usage is the CPU time that the measured processes of a rig have used.
type usage struct{ server, jobserver time.Duration }

func used(r *rig) (u usage, err error) {
	if u.server, err = r.server.cpu(); err != nil {
		return u, err
	}
	u.jobserver, err = r.jobserver.cpu()
	return u, err
}

// median of one number of the rounds; 0 where there were none.
func (c *cell) median(of func(round) float64) float64 {
	values := make([]float64, len(c.rounds))
	for i, r := range c.rounds {
		values[i] = of(r)
	}
	return median(values)
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	switch {
	case n == 0:
		return 0
	case n%2 == 0:
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[n/2]
}

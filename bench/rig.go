//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"gearman-gateway/internal/gearman"
)

// setup says which processes a contender consists of.
type setup struct {
	front    string // what is loaded: floor, gateway, plugin (gearmand's own HTTP), or gearmand
	embedded bool   // the gateway brings its job server
	worker   bool   // a pool runs the jobs: of a process of its own, the same for gateway and plugin; if embedded, of the gateway itself
	data     bool   // the gateway has a data directory
	sink     bool   // and a webhook sink
}

// rig is a setup that runs.
type rig struct {
	setup
	dir       string
	all       []*process
	server    *process // the floor or the gateway; nil where there is none
	jobserver *process // gearmand; nil where there is none
	http      string   // host:port to send requests to
	gearman   string   // host:port of the job server
}

// start brings a setup up, with fresh processes: a round inherits nothing of those before. size is that of the workloads.
func (b *bench) start(ctx context.Context, s setup, size int) (r *rig, err error) {
	for range 3 { // somebody may take a port between the look and the bind
		if r, err = b.try(ctx, s, size); err == nil || !errors.Is(err, errEnded) {
			break
		}
	}
	return r, err
}

func (b *bench) try(ctx context.Context, s setup, size int) (_ *rig, err error) {
	r := &rig{setup: s}
	defer func() {
		if err != nil {
			r.stop()
		}
	}()
	if r.dir, err = os.MkdirTemp(b.dir, "rig-"); err != nil {
		return nil, err
	}
	for _, addr := range []*string{&r.http, &r.gearman} {
		if *addr, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	if s.front == "floor" {
		r.server, err = r.run(ctx, "floor", r.answersHTTP, b.self, "floor", "--listen", r.http,
			"--background", b.answer("background", size), "--sync", b.answer("sync", size))
		return r, err
	}
	if !s.embedded {
		if err := b.gearmand(ctx, r); err != nil {
			return nil, err
		}
	}
	if s.front == "gateway" {
		if err := b.gateway(ctx, r); err != nil {
			return nil, err
		}
	}
	if s.worker && !s.embedded {
		addr, err := freeAddress()
		if err != nil {
			return nil, err
		}
		_, err = r.run(ctx, "worker", r.hasWorker, b.programs.Gateway, "--listen", addr, "--gearman", r.gearman, "--builtin", "--log-level", "warn")
		return r, err
	}
	return r, nil
}

// gearmand has room for a wave of connections that its default backlog, 32, would make wait a second for the next try, and a table of
// uniques that is made for long queues.
func (b *bench) gearmand(ctx context.Context, r *rig) (err error) {
	host, port, _ := net.SplitHostPort(r.gearman)
	argv := []string{b.programs.Gearmand, "-L", host, "-p", port, "-l", "stderr", "-b", "1024", "--hashtable-buckets", "1000003"}
	ask := r.answersGearman
	if r.front == "plugin" {
		_, port, _ := net.SplitHostPort(r.http)
		argv = append(argv, "-r", "http", "--http-port", port)
		ask = func(ctx context.Context) error { return errors.Join(r.answersGearman(ctx), r.accepts(ctx)) }
	}
	r.jobserver, err = r.run(ctx, "gearmand", ask, argv...)
	return err
}

func (b *bench) gateway(ctx context.Context, r *rig) (err error) {
	argv := []string{b.programs.Gateway, "--listen", r.http, "--log-level", "warn"}
	if r.embedded {
		argv = append(argv, "--jobserver-listen", r.gearman)
	} else {
		argv = append(argv, "--gearman", r.gearman)
	}
	if !r.worker || !r.embedded {
		argv = append(argv, "--no-builtin")
	}
	if r.data {
		argv = append(argv, "--data", filepath.Join(r.dir, "data"))
	}
	if r.sink {
		addr, err := freeAddress()
		if err != nil {
			return err
		}
		accepts := func(ctx context.Context) error { return connects(ctx, addr) }
		if _, err := r.run(ctx, "sink", accepts, b.programs.Gateway, "sink", "--listen", addr); err != nil {
			return err
		}
		argv = append(argv, "--sink-url", "http://"+addr+"/")
	}
	r.server, err = r.run(ctx, "gateway", r.answersHTTP, argv...)
	if err == nil && r.embedded && r.worker {
		err = r.server.ready(ctx, r.hasWorker)
	}
	return err
}

// run starts a process of the rig and waits until it is ready.
func (r *rig) run(ctx context.Context, name string, ready func(context.Context) error, argv ...string) (*process, error) {
	p, err := start(r.dir, name, argv...)
	if err != nil {
		return nil, err
	}
	r.all = append(r.all, p)
	return p, p.ready(ctx, ready)
}

// stop kills the processes, those in front first, and removes what they wrote.
func (r *rig) stop() {
	for i := len(r.all) - 1; i >= 0; i-- {
		r.all[i].kill()
	}
	_ = os.RemoveAll(r.dir) // the benchmark's own directory goes at the end
}

// tails is the end of what each process wrote.
func (r *rig) tails() string {
	var s strings.Builder
	for _, p := range r.all {
		if t := p.tail(); t != "" {
			fmt.Fprintf(&s, "%s wrote:\n%s\n", p.name, t)
		}
	}
	return s.String()
}

func (r *rig) answersHTTP(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.http+"/readyz", nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz answers %s", resp.Status)
	}
	return nil
}

func (r *rig) answersGearman(ctx context.Context) error {
	_, err := gearman.NewAdmin(gearman.Options{Addr: r.gearman}).Version(ctx)
	return err
}

// hasWorker reports an error while the job server has no worker for reverse.
func (r *rig) hasWorker(ctx context.Context) error {
	functions, err := gearman.NewAdmin(gearman.Options{Addr: r.gearman}).Status(ctx)
	for _, f := range functions {
		if f.Function == function && f.Workers > 0 {
			return err
		}
	}
	return errors.Join(err, errors.New("no worker"))
}

func (r *rig) accepts(ctx context.Context) error { return connects(ctx, r.http) }

func connects(ctx context.Context, addr string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

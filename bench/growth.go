//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"gearman-gateway/internal/gearman/wire"
)

// growthRow is what a job server does per second with a number of jobs in its queue.
type growthRow struct {
	name             string
	queued           int
	submit, complete []float64 // jobs a second, by round
	rss              []float64 // of the job server, in MiB
	err              error
}

// growth measures both job servers with ever longer queues: submits and completes in turn, so that the queue keeps its length. The
// load is the same peer, which speaks to nothing but the job server, on one connection for each side.
func (b *bench) growth(ctx context.Context) []*growthRow {
	queued := []int{0, 10_000, 100_000, 1_000_000}
	jobs, rounds := 40_960, b.others
	if b.smoke {
		queued, jobs, rounds = []int{0, 100, 1_000, 10_000}, 1024, 1
	}
	servers := []struct {
		name string
		setup
	}{{"embedded", setup{front: "gateway", embedded: true}}, {"gearmand", setup{front: "gearmand"}}}
	var rows []*growthRow
	for _, s := range servers {
		for _, n := range queued {
			rows = append(rows, &growthRow{name: s.name, queued: n})
		}
	}
	for range rounds {
		for i, s := range servers {
			if ctx.Err() != nil {
				return rows
			}
			of := rows[i*len(queued) : (i+1)*len(queued)]
			if err := b.grow(ctx, s.setup, of, jobs); err != nil {
				of[0].err = err
				fmt.Fprintf(os.Stderr, "bench: queue of %s: %v\n", s.name, err)
			}
		}
	}
	return rows
}

// grow fills the queue of one fresh job server up to the length of each row in turn, and measures there.
func (b *bench) grow(ctx context.Context, s setup, rows []*growthRow, jobs int) error {
	r, err := b.start(ctx, s, 0)
	if err != nil {
		return err
	}
	defer r.stop()
	server := r.jobserver
	if s.embedded {
		server = r.server
	}
	submits, err := dialPeer(r.gearman)
	if err != nil {
		return err
	}
	defer submits.conn.Close()
	completes, err := dialPeer(r.gearman)
	if err != nil {
		return err
	}
	defer completes.conn.Close()
	defer context.AfterFunc(ctx, func() { submits.conn.Close(); completes.conn.Close() })()
	completes.out = wire.Append(completes.out, wire.Request, wire.CanDo, []byte(function))

	text := []byte(workload(100))
	next, length := 0, 0
	for _, row := range rows {
		if err := submits.submit(row.queued-length, next, text); err != nil {
			return err
		}
		next, length = next+row.queued-length, row.queued
		var submitting, completing time.Duration
		const chunk = 4 * pipelined
		for range jobs / chunk {
			began := time.Now()
			if err := submits.submit(chunk, next, text); err != nil {
				return err
			}
			between := time.Now()
			if err := completes.complete(chunk); err != nil {
				return err
			}
			submitting += between.Sub(began)
			completing += time.Since(between)
			next += chunk
		}
		row.submit = append(row.submit, float64(jobs)/submitting.Seconds())
		row.complete = append(row.complete, float64(jobs)/completing.Seconds())
		row.rss = append(row.rss, float64(server.memory("VmRSS"))/(1<<20))
	}
	return nil
}

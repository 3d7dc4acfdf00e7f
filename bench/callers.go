//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// callersRow is a number of callers that wait for sync jobs at the same time.
type callersRow struct {
	callers, requests int       // requests are those of all callers together
	answered          int       // in the round with the fewest
	rate              []float64 // a second, by round
	p50, slowest      []float64 // in milliseconds
	rss               []float64 // peak of the gateway, in MiB
	err               error
}

// callers has ever more connections call reverse at the same time, on the gateway as it is by default: all of them wait for eight
// workers. Each caller asks again as soon as it is answered.
func (b *bench) callers(ctx context.Context) []*callersRow {
	rows := []*callersRow{{callers: 100, requests: 10_000}, {callers: 1_000, requests: 20_000}, {callers: 10_000, requests: 50_000}}
	rounds := b.others
	if b.smoke {
		rows, rounds = []*callersRow{{callers: 10, requests: 50}, {callers: 100, requests: 500}, {callers: 1_000, requests: 2_000}}, 1
	}
	for n := range rounds {
		for _, row := range rows {
			if ctx.Err() != nil {
				return rows
			}
			answered, err := b.wait(ctx, row)
			if err != nil {
				row.err = err
				fmt.Fprintf(os.Stderr, "bench: %d callers: %v\n", row.callers, err)
			}
			if row.answered = min(row.answered, answered); n == 0 {
				row.answered = answered
			}
		}
	}
	return rows
}

// wait takes one round, and returns how many requests were answered as they should be.
func (b *bench) wait(ctx context.Context, row *callersRow) (int, error) {
	s := setup{front: "gateway", embedded: true, worker: true}
	r, err := b.start(ctx, s, 100)
	if err != nil {
		return 0, err
	}
	defer r.stop()
	if _, err := probe(ctx, r, "sync", 100); err != nil {
		return 0, err
	}
	request := encode("/jobs", "Content-Type: application/json\r\n", `{"function":"`+function+`","workload":"`+workload(100)+`","mode":"sync","timeout":"60s"}`)
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var connected, done sync.WaitGroup
	begin := make(chan struct{})
	connected.Add(row.callers)
	dials := make(chan struct{}, 64) // at a time, or the backlog overflows
	for range row.callers {
		done.Go(func() {
			dials <- struct{}{}
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", r.http)
			<-dials
			connected.Done()
			<-begin
			var took []time.Duration
			if err == nil {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				took, err = callHTTP(conn, request, row.requests/row.callers)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if err != nil {
				failed = err
			}
		})
	}
	connected.Wait()
	began := time.Now()
	close(begin)
	done.Wait()
	seconds := time.Since(began).Seconds()
	if len(all) == 0 {
		return 0, failed
	}
	slices.Sort(all)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
	row.rate = append(row.rate, float64(len(all))/seconds)
	row.p50, row.slowest = append(row.p50, ms(all[len(all)/2])), append(row.slowest, ms(all[len(all)-1]))
	row.rss = append(row.rss, float64(r.server.memory("VmHWM"))/(1<<20))
	return len(all), failed
}

// callHTTP sends a request n times, each after the answer to the one before, and returns how long the answers took.
func callHTTP(conn net.Conn, request []byte, n int) (took []time.Duration, err error) {
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	in := bufio.NewReaderSize(conn, 2<<10)
	for range n {
		began := time.Now()
		if _, err := conn.Write(request); err != nil {
			return took, err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return took, err
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return took, err
		}
		if resp.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(`"state":"completed"`)) {
			return took, fmt.Errorf("%s: %.200q", resp.Status, body)
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

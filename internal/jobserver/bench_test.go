package jobserver_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"gearman-gateway/internal/gearman/wire"
	"gearman-gateway/internal/jobserver"
)

const pipeline = 256 // requests under way on one connection

// exchange sends a request n times and reads as many answers of perRequest packets.
func (p *peer) exchange(n, perRequest int, request func(i int) []byte) {
	for done := 0; done < n; {
		batch := min(pipeline, n-done)
		var out []byte
		for i := range batch {
			out = append(out, request(done+i)...)
		}
		p.write(out)
		for range batch * perRequest {
			if _, err := p.packets.Next(); err != nil {
				p.t.Fatal(err)
			}
		}
		done += batch
	}
}

func backgroundJob(i int) []byte {
	return wire.Append(nil, wire.Request, wire.SubmitJobBG, []byte("f"), fmt.Append(nil, "unique-", i), []byte(strings.Repeat("x", 100)))
}

// BenchmarkQueued is a round of 1,024 background jobs of 100 bytes with uniques, which one connection submits and then another
// grabs and completes, with a number of older jobs in the queue.
func BenchmarkQueued(b *testing.B) {
	const round = 1024
	for _, queued := range []int{0, 1_000_000} {
		b.Run(strconv.Itoa(queued), func(b *testing.B) {
			s := start(b, jobserver.Options{})
			c, w := connect(b, s), connect(b, s)
			w.send(wire.CanDo, "f")
			prefix := strings.TrimSuffix(c.submit(wire.SubmitJobBG, "f", "unique", ""), "1")
			c.exchange(queued, 1, backgroundJob)
			b.ReportAllocs()
			var submitting, completing time.Duration
			jobs := 0
			for b.Loop() {
				began := time.Now()
				c.exchange(round, 1, func(i int) []byte { return backgroundJob(queued + jobs + i) })
				between := time.Now()
				w.exchange(round, 1, func(i int) []byte { // handles count from 1, and there is one priority
					out := wire.Append(nil, wire.Request, wire.GrabJob)
					return wire.Append(out, wire.Request, wire.WorkComplete, fmt.Append(nil, prefix, jobs+i+1), nil)
				})
				submitting += between.Sub(began)
				completing += time.Since(between)
				jobs += round
			}
			b.ReportMetric(float64(jobs)/submitting.Seconds(), "submits/s")
			b.ReportMetric(float64(jobs)/completing.Seconds(), "completes/s")
		})
	}
}

package jobserver_test

import (
	"fmt"
	"strings"
	"testing"

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

// BenchmarkSubmit is a background job of 100 bytes with a unique, submitted to queues of several lengths. The cost is flat.
func BenchmarkSubmit(b *testing.B) {
	for _, queued := range []int{0, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("queued=%d", queued), func(b *testing.B) {
			p := connect(b, start(b, jobserver.Options{MaxJobs: 1 << 30, MaxBytes: 1 << 40}))
			p.exchange(queued, 1, backgroundJob)
			b.ReportAllocs()
			b.ResetTimer()
			p.exchange(b.N, 1, func(i int) []byte { return backgroundJob(queued + i) })
		})
	}
}

// BenchmarkGrabAndComplete is a worker's side of a job, with a million more in the queue.
func BenchmarkGrabAndComplete(b *testing.B) {
	s := start(b, jobserver.Options{MaxJobs: 1 << 30, MaxBytes: 1 << 40})
	c, w := connect(b, s), connect(b, s)
	w.send(wire.CanDo, "f")
	first := c.submit(wire.SubmitJobBG, "f", "unique", "")
	c.exchange(1_000_000+b.N, 1, backgroundJob)
	prefix := strings.TrimSuffix(first, "1")
	b.ReportAllocs()
	b.ResetTimer()
	w.exchange(b.N, 1, func(i int) []byte { // handles count from 1, and there is one priority
		out := wire.Append(nil, wire.Request, wire.GrabJob)
		return wire.Append(out, wire.Request, wire.WorkComplete, fmt.Append(nil, prefix, i+1), nil)
	})
}

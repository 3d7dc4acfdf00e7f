package jobserver_test

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
	"testing"
	"time"

	"gearman-gateway/internal/gearman/wire"
	"gearman-gateway/internal/jobserver"
)

const pipeline = 256 // requests under way on one connection

// A load is a peer that makes hardly any garbage, so that the server's is what is collected.
type load struct {
	*peer
	out []byte
}

// exchange sends n requests, which add makes, and reads as many answers.
func (l *load) exchange(n int, add func(dst []byte, i int) []byte) {
	for done := 0; done < n; {
		batch := min(pipeline, n-done)
		l.out = l.out[:0]
		for i := range batch {
			l.out = add(l.out, done+i)
		}
		l.write(l.out)
		for range batch {
			header, err := l.br.Peek(12)
			if err != nil {
				l.t.Fatal(err)
			}
			if _, err := l.br.Discard(12 + int(binary.BigEndian.Uint32(header[8:]))); err != nil {
				l.t.Fatal(err)
			}
		}
		done += batch
	}
}

var workload = bytes.Repeat([]byte("x"), 100)

func backgroundJob(dst []byte, i int) []byte {
	var unique [32]byte
	return wire.Append(dst, wire.Request, wire.SubmitJobBG, []byte("f"), strconv.AppendInt(append(unique[:0], "unique-"...), int64(i), 10), workload)
}

// BenchmarkQueued is a round of 1,024 background jobs of 100 bytes with uniques, which one connection submits and then another
// grabs and completes, with a number of older jobs in the queue.
func BenchmarkQueued(b *testing.B) {
	const round = 1024
	for _, queued := range []int{0, 1_000_000} {
		b.Run(strconv.Itoa(queued), func(b *testing.B) {
			s := start(b, jobserver.Options{})
			c, w := &load{peer: connect(b, s)}, &load{peer: connect(b, s)}
			w.send(wire.CanDo, "f")
			prefix := []byte(strings.TrimSuffix(c.submit(wire.SubmitJobBG, "f", "unique", ""), "1"))
			c.exchange(queued, backgroundJob)
			b.ReportAllocs()
			var submitting, completing time.Duration
			jobs := 0
			for b.Loop() {
				began := time.Now()
				c.exchange(round, func(dst []byte, i int) []byte { return backgroundJob(dst, queued+jobs+i) })
				between := time.Now()
				w.exchange(round, func(dst []byte, i int) []byte { // handles count from 1, and there is one priority
					dst = wire.Append(dst, wire.Request, wire.GrabJob)
					var handle [64]byte
					return wire.Append(dst, wire.Request, wire.WorkComplete, strconv.AppendInt(append(handle[:0], prefix...), int64(jobs+i+1), 10), nil)
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

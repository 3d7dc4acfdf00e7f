package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/webhook"
)

// BenchmarkCommit submits tracked jobs from 128 callers. In the same run it writes and syncs a page of a file on the same disk as
// often as it goes, one after the other, which is what a commit would cost if each had a sync of its own.
func BenchmarkCommit(b *testing.B) {
	dir := b.TempDir()
	d := open(b, Options{Dir: dir})
	const callers = 128
	var left atomic.Int64
	var all sync.WaitGroup
	before := d.transactions.Load()
	left.Store(int64(b.N))
	b.ResetTimer()
	for range callers {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if err := d.Commit(context.Background(), &ledger.Change{Record: job(newID()), Workload: make([]byte, 100)}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	commits := float64(b.N) / b.Elapsed().Seconds()
	syncs := syncsPerSecond(b, dir)
	b.ReportMetric(commits, "commits/s")
	b.ReportMetric(syncs, "fsyncs/s")
	b.ReportMetric(commits/syncs, "commits/fsync")
	b.ReportMetric(float64(b.N)/float64(d.transactions.Load()-before), "commits/transaction")
}

func syncsPerSecond(b *testing.B, dir string) float64 {
	f, err := os.Create(filepath.Join(dir, "raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	began, n := time.Now(), 0
	for ; time.Since(began) < time.Second; n++ {
		if _, err := f.Write(page); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	return float64(n) / time.Since(began).Seconds()
}

// backlog publishes n events of so many subjects, round and round.
func backlog(b *testing.B, d *DB, n, subjects int) {
	b.Helper()
	for i := range n {
		d.Publish(event.New(event.JobCompleted, fmt.Sprint("0193-subject-", i%subjects), uint64(i), time.Now(), event.Data{
			ID: "01934a3c-0000-7000-8000-000000000000", Function: "resize", Mode: "tracked", Result: []byte(`{"w":10}`),
		}))
		if i%10_000 == 0 {
			d.flush(b.Context())
		}
	}
	d.flush(b.Context())
}

// BenchmarkDeliver takes a sink through a backlog of 100,000 events of 20,000 subjects that it wants all of: what came of the letters
// before and a look at the log in one Advance, then Due for the next.
func BenchmarkDeliver(b *testing.B) {
	const events, subjects = 100_000, 20_000
	var slowest time.Duration
	delivered := 0
	for b.Loop() {
		b.StopTimer()
		d := open(b, Options{Dir: b.TempDir()})
		register(b, d, "a")
		backlog(b, d, events, subjects)
		log := []webhook.Attempt{{At: time.Now(), Duration: time.Millisecond, Status: 200, Answer: []byte("ok")}}
		var ends []webhook.Ended
		b.StartTimer()
		for looked := -1; looked != 0 || ends != nil; {
			began := time.Now()
			looked = advance(b, d, "a", webhook.Step{Ends: ends, Look: 500})
			ready := due(b, d, "a", webhook.DueQuery{Lines: 200, Letters: 16})
			slowest = max(slowest, time.Since(began))
			ends = nil
			for _, line := range ready.Lines {
				for _, l := range line.Letters {
					ends = append(ends, webhook.Ended{N: l.N, Subject: line.Subject, State: webhook.Delivered, Attempts: 1, Log: log})
				}
			}
			delivered += len(ends)
		}
	}
	if delivered != b.N*events {
		b.Errorf("%d were delivered, want %d", delivered, b.N*events)
	}
	b.ReportMetric(float64(delivered)/b.Elapsed().Seconds(), "deliveries/s")
	b.ReportMetric(float64(slowest.Milliseconds()), "slowest-ms")
}

// BenchmarkPublish publishes events and waits until they are in the log.
func BenchmarkPublish(b *testing.B) {
	d := open(b, Options{Dir: b.TempDir()})
	b.ResetTimer()
	backlog(b, d, b.N, 20_000)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

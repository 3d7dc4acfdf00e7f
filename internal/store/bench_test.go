package store

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gearman-gateway/internal/ledger"
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
				if err := d.Commit(context.Background(), ledger.Change{Record: job(newID()), Workload: make([]byte, 100)}); err != nil {
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

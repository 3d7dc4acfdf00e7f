package gearman_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/gearmandtest"
)

// BenchmarkSubmitBackground has 64 goroutines submit background jobs of 100 bytes over one connection to a real gearmand.
// cpu-µs/job is the CPU time of this process for each: the client's share, not the server's.
func BenchmarkSubmitBackground(b *testing.B) {
	s := gearmandtest.Start(b)
	c := connect(b, s.Addr())
	workload := make([]byte, 100)
	var left atomic.Int64
	left.Store(int64(b.N))
	runtime.GC()
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime(b)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := c.Submit(context.Background(), gearman.Task{
					Function: "nobody", Workload: workload, Background: true,
				}, nil); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/job")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

// BenchmarkRoundTrip has one caller wait for the result of one job at a time.
func BenchmarkRoundTrip(b *testing.B) {
	s := gearmandtest.Start(b)
	startWorker(b, s.Addr(), 1, echoWorker, "echo")
	c := connect(b, s.Addr())
	workload := make([]byte, 100)
	done := make(chan gearman.Kind, 1)
	for b.Loop() {
		if _, err := c.Submit(context.Background(), gearman.Task{Function: "echo", Workload: workload}, func(u gearman.Update) {
			if u.Kind != gearman.Created {
				done <- u.Kind
			}
		}); err != nil {
			b.Fatal(err)
		}
		if k := <-done; k != gearman.Completed {
			b.Fatalf("ended as %d", k)
		}
	}
}

// cpuTime is the CPU time that this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

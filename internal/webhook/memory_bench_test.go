package webhook_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

// BenchmarkMemoryPublish publishes into an outbox that is full of settled events, as one is most of the time.
func BenchmarkMemoryPublish(b *testing.B) {
	for _, sinks := range []int{0, 3} {
		b.Run(fmt.Sprintf("sinks=%d", sinks), func(b *testing.B) {
			m := webhook.NewMemory(webhook.MemoryOptions{})
			for i := range sinks {
				name := fmt.Sprint("sink", i)
				register(b, m, name)
				advance(b, m, name, webhook.Step{Standing: &webhook.Standing{Disabled: "for the benchmark"}})
			}
			events := make([]event.Event, 1<<17)
			for i := range events {
				events[i] = event.New(event.JobStarted, fmt.Sprint("j", i/4), 1, time.Now(), event.Data{ID: fmt.Sprint("j", i/4), Function: "resize"})
			}
			m.Publish(events...)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				m.Publish(events[i%len(events)])
			}
		})
	}
}

// BenchmarkMemoryDeliver is a cycle of Due and Advance, 32 deliveries, with a backlog of 100,000 events in 20,000 subjects that stays as
// long as it is.
func BenchmarkMemoryDeliver(b *testing.B) {
	const backlog, subjects = 100_000, 20_000
	m := webhook.NewMemory(webhook.MemoryOptions{})
	register(b, m, "audit")
	publish := func(i int) {
		e := event.New(event.JobStarted, fmt.Sprint("j", i%subjects), 1, time.Now(), event.Data{Function: "resize"})
		e.Promised = true
		m.Publish(e)
	}
	for i := range backlog {
		publish(i)
	}
	advance(b, m, "audit", webhook.Step{Look: backlog, Wants: everything})
	b.ReportAllocs()
	count := 0
	var ends []webhook.Ended
	for b.Loop() {
		advance(b, m, "audit", webhook.Step{Ends: ends, Look: len(ends), Wants: everything})
		r, err := m.Due(b.Context(), "audit", webhook.DueQuery{Now: time.Now(), Lines: 8, Letters: 4})
		if err != nil {
			b.Fatal(err)
		}
		ends = ends[:0]
		for _, l := range r.Lines {
			for _, letter := range l.Letters {
				log := append(letter.Log, webhook.Attempt{At: time.Now(), Status: 200})
				ends = append(ends, webhook.Ended{N: letter.N, Subject: l.Subject, State: webhook.Delivered, Attempts: 1, Log: log})
				publish(count)
				count++
			}
		}
		if len(ends) == 0 {
			b.Fatal("nothing is due")
		}
	}
	b.ReportMetric(float64(count)/b.Elapsed().Seconds(), "deliveries/s")
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc)/backlog, "heap-B/event")
	runtime.KeepAlive(m)
}

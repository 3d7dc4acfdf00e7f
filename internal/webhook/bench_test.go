package webhook_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/store"
	"gearman-gateway/internal/webhook"
)

// BenchmarkDeliver empties a durable outbox with a backlog of 100,000 events, 5 each of 20,000 jobs, into a local sink. Its metrics are
// deliveries a second, and the largest heap in use seen meanwhile and before, in MiB.
func BenchmarkDeliver(b *testing.B) {
	const jobs, each = 20_000, 5
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer sink.Close()
	secret, err := webhook.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		b.Fatal(err)
	}
	var delivering time.Duration
	var before, peak uint64
	for b.Loop() {
		db := backlog(b, jobs, each)
		before = max(before, heap())
		began := time.Now()
		s, err := webhook.New(b.Context(), webhook.Options{Outbox: db, Sinks: []webhook.SinkOptions{
			{Name: "sink", URL: sink.URL, Secrets: []webhook.Secret{secret}, Concurrency: 16},
		}})
		if err != nil {
			b.Fatal(err)
		}
		for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
			peak = max(peak, heap())
			if status, err := s.Sink(b.Context(), "sink"); err != nil || status.Behind+status.Pending == 0 {
				tick.Stop()
				break
			}
		}
		delivering += time.Since(began)
		s.Stop(context.Background())
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*jobs*each)/delivering.Seconds(), "deliveries/s")
	b.ReportMetric(float64(before>>20), "MiB-before")
	b.ReportMetric(float64(peak>>20), "MiB-peak")
}

// backlog returns an outbox with events that the sink has not had.
func backlog(b *testing.B, jobs, each int) *store.DB {
	db, err := store.Open(b.Context(), store.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := db.Register(b.Context(), "sink"); err != nil {
		b.Fatal(err)
	}
	last := int64(0)
	for seq := range each {
		for job := range jobs {
			e := event.New(event.JobStarted, fmt.Sprint("job-", job), uint64(seq+1), time.Now(), event.Data{Function: "f", State: "running"})
			e.Promised = true
			db.Publish(e)
		}
		page, err := db.Events(b.Context(), webhook.EventQuery{After: last, Limit: 1}) // waits until they are stored
		if err != nil {
			b.Fatal(err)
		}
		last = page.Next
	}
	return db
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

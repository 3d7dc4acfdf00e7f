package outboxtest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

const (
	publishers = 4
	published  = 100 // by each
)

// testConcurrent has publishers, sinks and readers at it together. Each publisher's events share a subject.
func testConcurrent(b *bench) {
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	var all sync.WaitGroup
	for _, sink := range []string{"first", "second"} {
		b.register(sink)
		all.Go(func() { b.drain(ctx, sink) })
	}
	for p := range publishers {
		all.Go(func() {
			for seq := range published {
				b.outbox.Publish(event.New(event.JobStarted, fmt.Sprint(p), uint64(seq+1), noon, event.Data{}))
			}
		})
	}
	all.Go(func() { b.read(ctx) })
	all.Wait()
	for _, sink := range []string{"first", "second"} {
		b.same("backlog of "+sink, b.backlog(sink), webhook.Backlog{})
	}
}

// drain delivers until it has delivered all, and checks the order.
func (b *bench) drain(ctx context.Context, sink string) {
	last := map[string]int64{}
	var ends []webhook.Ended
	for count := 0; count < publishers*published; {
		grown := b.outbox.Grown()
		looked, err := b.outbox.Advance(ctx, sink, webhook.Step{Ends: ends, Look: 50, Wants: all})
		if err != nil {
			b.Error(err)
			return
		}
		ends = nil
		r, err := b.outbox.Due(ctx, sink, webhook.DueQuery{Now: time.Now(), Lines: 3, Letters: 5})
		if err != nil {
			b.Error(err)
			return
		}
		for _, l := range r.Lines {
			for _, letter := range l.Letters {
				if letter.N <= last[l.Subject] {
					b.Errorf("%s got %d of %s after %d", sink, letter.N, l.Subject, last[l.Subject])
				}
				last[l.Subject] = letter.N
				ends = append(ends, ended(letter.N, l.Subject, webhook.Delivered))
				count++
			}
		}
		if len(ends) > 0 || looked.Looked > 0 || !r.Next.IsZero() {
			continue
		}
		select {
		case <-grown:
		case <-ctx.Done():
			b.Errorf("%s got %d events, want %d", sink, count, publishers*published)
			return
		}
	}
	_, err := b.outbox.Advance(ctx, sink, webhook.Step{Ends: ends})
	if err != nil {
		b.Error(err)
	}
}

// read follows the log to its end, and lists deliveries meanwhile.
func (b *bench) read(ctx context.Context) {
	q := webhook.EventQuery{Limit: 7}
	for count := 0; count < publishers*published; {
		grown := b.outbox.Grown()
		page, err := b.outbox.Events(ctx, q)
		if err != nil {
			b.Error(err)
			return
		}
		count += len(page.Bodies)
		q.After = page.Next
		if _, err := b.outbox.Deliveries(ctx, webhook.DeliveryQuery{State: webhook.Pending, Limit: 5}); err != nil {
			b.Error(err)
			return
		}
		if !page.End {
			continue
		}
		if count == publishers*published {
			return
		}
		select {
		case <-grown:
		case <-ctx.Done():
			b.Errorf("read %d events, want %d", count, publishers*published)
			return
		}
	}
}

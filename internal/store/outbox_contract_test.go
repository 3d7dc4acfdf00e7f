package store

import (
	"testing"
	"time"

	"gearman-gateway/internal/webhook"
	"gearman-gateway/internal/webhook/outboxtest"
)

func TestDBIsAnOutbox(t *testing.T) {
	outboxtest.Test(t, func(t *testing.T, wanted func(webhook.Head) bool) webhook.Outbox {
		// The events of the test have a date of their own: they are not to expire by it.
		return open(t, Options{Dir: t.TempDir(), Wanted: wanted, Retention: 100 * 365 * 24 * time.Hour})
	})
}

package store

import (
	"testing"

	"gearman-gateway/internal/webhook"
	"gearman-gateway/internal/webhook/outboxtest"
)

func TestDBIsAnOutbox(t *testing.T) {
	outboxtest.Test(t, func(t *testing.T, wanted func(webhook.Head) bool) webhook.Outbox {
		return open(t, Options{Dir: t.TempDir(), Wanted: wanted})
	})
}

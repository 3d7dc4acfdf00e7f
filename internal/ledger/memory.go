package ledger

import (
	"context"
	"errors"
	"sync"
	"time"

	"gearman-gateway/internal/event"
)

// memory is the Store of a gateway without a data directory: it passes events on, and remembers idempotency keys. Everything
// else is in the ledger's own memory.
type memory struct {
	events event.Sink

	mu   sync.Mutex
	keys map[string]Key
	next []Key // the keys, oldest first, and some that were given back
}

// Bounds of the idempotency keys; beyond, the oldest are forgotten.
const (
	maxKeys = 100_000
	keyTTL  = 24 * time.Hour
)

func newMemory(events event.Sink) *memory { return &memory{events: events, keys: map[string]Key{}} }

func (m *memory) Apply(c *Change, events ...event.Event) {
	if c.Forget && c.Key != nil {
		m.mu.Lock()
		delete(m.keys, c.Key.Key)
		m.mu.Unlock()
	}
	if len(events) > 0 && m.events != nil {
		m.events.Publish(events...)
	}
}

func (m *memory) Commit(_ context.Context, c *Change, events ...event.Event) error {
	if c.Key != nil && !m.take(*c.Key) {
		return ErrKeyTaken
	}
	m.Apply(&Change{}, events...)
	return nil
}

func (m *memory) take(k Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.next) > 0 && (len(m.next) >= maxKeys || time.Since(m.next[0].At) > keyTTL) {
		if oldest := m.next[0]; m.keys[oldest.Key].ID == oldest.ID { // it may be another job's since
			delete(m.keys, oldest.Key)
		}
		m.next = m.next[1:]
	}
	if _, taken := m.keys[k.Key]; taken {
		return false
	}
	m.keys[k.Key] = k
	m.next = append(m.next, k)
	return true
}

func (m *memory) Key(_ context.Context, key string) (Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.keys[key]
	if !ok || time.Since(k.At) > keyTTL {
		return Key{}, ErrNotFound
	}
	return k, nil
}

func (m *memory) Get(context.Context, string) (Record, error)          { return Record{}, ErrNotFound }
func (m *memory) Workload(context.Context, string) ([]byte, error)     { return nil, ErrNotFound }
func (m *memory) List(context.Context, Query) ([]Record, error)        { return nil, errors.ErrUnsupported }
func (m *memory) Unfinished(context.Context, func(Record) error) error { return nil }

package store

import (
	"sync"
	"testing"
	"time"

	"gearman-gateway/internal/ledger"
)

// meter is a Meter.
type meter struct {
	mu                       sync.Mutex
	commits, changes, errors int
}

func (m *meter) Committed(changes int, took time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.errors++
		return
	}
	m.commits++
	m.changes += changes
}

func (m *meter) errs() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.errors
}

func TestTheMeterHearsOfEachTransaction(t *testing.T) {
	var m meter
	d := open(t, Options{Dir: t.TempDir(), Meter: &m})
	const n = 20
	for range n {
		commit(t, d, ledger.Change{Record: job(newID())})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.commits != n || m.changes != n || m.errors != 0 {
		t.Errorf("%d commits of %d changes, %d errors; want %d of each", m.commits, m.changes, m.errors, n)
	}
	if got := d.Stats(); got != (Stats{}) || d.Dropped() != 0 {
		t.Errorf("stats: %+v, %d dropped", got, d.Dropped())
	}
}

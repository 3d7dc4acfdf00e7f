package metrics

import (
	"maps"
	"sync"
	"sync/atomic"
)

// A table is a map that is read all the time and seldom added to: reading it takes no lock and allocates nothing, which the vectors of
// client_golang do with each look for a child. The zero value is empty.
type table[K comparable, V any] struct {
	adding sync.Mutex
	now    atomic.Pointer[map[K]V] // never changed
}

func (t *table[K, V]) get(k K) (v V, ok bool) {
	if m := t.now.Load(); m != nil {
		v, ok = (*m)[k]
	}
	return v, ok
}

// add returns what k has, and gives it what create returns if it has nothing.
func (t *table[K, V]) add(k K, create func() V) V {
	t.adding.Lock()
	defer t.adding.Unlock()
	if v, ok := t.get(k); ok {
		return v
	}
	next := map[K]V{}
	if m := t.now.Load(); m != nil {
		next = maps.Clone(*m)
	}
	v := create()
	next[k] = v
	t.now.Store(&next)
	return v
}

func (t *table[K, V]) len() int {
	if m := t.now.Load(); m != nil {
		return len(*m)
	}
	return 0
}

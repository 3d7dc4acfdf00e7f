package gateway

import (
	"sync/atomic"

	"gearman-gateway/internal/workerpool"
)

// ownPool is the pool as HTTP knows it. There may be none, before a reload that brings the first handler.
type ownPool struct {
	pool *atomic.Pointer[workerpool.Pool]
}

func (o ownPool) Pause(function string) (own bool) {
	pool := o.pool.Load()
	return pool != nil && pool.Pause(function)
}

func (o ownPool) Resume(function string) (own bool) {
	pool := o.pool.Load()
	return pool != nil && pool.Resume(function)
}

func (o ownPool) Paused(function string) (paused, own bool) {
	pool := o.pool.Load()
	if pool == nil {
		return false, false
	}
	return pool.Paused(function)
}

package httpapi

import (
	lists "container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// conns are the connections of an http.Server, by what they do, and a bound on them. A connection is busy when a request is under way on
// it, or may be: new ones are. One that is idle is closed when a new one finds no room, the longest idle first.
type conns struct {
	limit int

	mu      sync.Mutex
	changed sync.Cond // there may be room
	taken   int       // let in and not closed yet
	leaving int       // of these, closed to make room
	waiting int       // for room: at most one for each listener
	open    map[net.Conn]*lists.Element
	idle    lists.List // of net.Conn, the longest idle in front
	none    chan struct{}
	lifted  bool // the limit does not hold any more
}

func newConns(limit int) *conns {
	c := &conns{limit: limit, open: map[net.Conn]*lists.Element{}}
	c.changed.L = &c.mu
	return c
}

// enter blocks until there is room for one more connection, which it takes. The ConnState of the connection's end gives it back.
func (b *conns) enter() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting++
	for b.taken >= b.limit && !b.lifted {
		// One for each who waits: whoever counts on one that leaves for another is not woken again.
		if longest := b.idle.Front(); longest != nil && b.leaving < b.waiting {
			b.evict(longest)
		}
		b.changed.Wait()
	}
	b.waiting--
	b.taken++
}

// evict closes an idle connection. A request that its client sends at this very moment is lost, as always when a server closes a kept
// connection.
func (b *conns) evict(e *lists.Element) {
	c := b.idle.Remove(e).(net.Conn)
	b.open[c] = left
	b.leaving++
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn() // Close of a tls.Conn writes, and may block
	}
	_ = c.Close()
}

// left stands in conns.open for a place in the list, with a connection that was closed to make room.
var left = &lists.Element{}

// lift ends the limit.
func (b *conns) lift() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lifted = true
	b.changed.Broadcast()
}

// track is the http.Server's ConnState. With HTTP/2 a connection is active while it has streams.
func (b *conns) track(c net.Conn, s http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.open[c]
	if e == left && s != http.StateClosed {
		return
	}
	if e != nil && e != left {
		b.idle.Remove(e)
	}
	switch s {
	case http.StateNew, http.StateActive:
		b.open[c] = nil
		return
	case http.StateIdle:
		b.open[c] = b.idle.PushBack(c)
	default:
		delete(b.open, c)
		b.taken--
		if e == left {
			b.leaving--
		}
	}
	b.changed.Signal()
	if b.busy() == 0 && b.none != nil {
		close(b.none)
		b.none = nil
	}
}

// busy is called with the lock held.
func (b *conns) busy() int { return len(b.open) - b.idle.Len() - b.leaving }

// wait blocks until there are no busy connections, or ctx ends.
func (b *conns) wait(ctx context.Context) {
	b.mu.Lock()
	if b.busy() == 0 {
		b.mu.Unlock()
		return
	}
	if b.none == nil {
		b.none = make(chan struct{})
	}
	none := b.none
	b.mu.Unlock()
	select {
	case <-none:
	case <-ctx.Done():
	}
}

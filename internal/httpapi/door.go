package httpapi

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// door is a listener that lets in as many connections as there is room for: more wait in the kernel's queue. Shutdown and net/http may
// both close it.
type door struct {
	net.Listener
	conns *conns
	last  atomic.Int64 // when the latest connection came, in nanoseconds of Unix time

	once sync.Once
	err  error
}

// ListenTCP returns a listener for Serve. It is without Multipath TCP, which Go's own has where the kernel can: a socket filter does nothing
// there.
func ListenTCP(address string) (net.Listener, error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), "tcp", address)
}

// Accept returns the next connection when there is room for it.
func (d *door) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	d.last.Store(time.Now().UnixNano())
	d.conns.enter()
	return c, nil
}

// Close closes the listener, once.
func (d *door) Close() error {
	d.once.Do(func() { d.err = d.Listener.Close() })
	return d.err
}

const (
	// handshake is how long a client may take from our SYN-ACK to its ACK, that is, the longest round trip that is thought of.
	handshake = 200 * time.Millisecond
	// lastCalls bounds the wait for connections that are being made.
	lastCalls = 2 * time.Second
)

// shut closes the listener without resetting a connection. The kernel resets those that it has established for a listener and that
// were not accepted; so it is told to establish no more, and those that it has are accepted first. Where it cannot be told the listener
// is just closed.
func (d *door) shut(ctx context.Context) {
	if refuse(d.Listener) {
		began := time.Now()
		d.last.Store(began.UnixNano())
		for end := began.Add(lastCalls); ; {
			quiet := time.Until(time.Unix(0, d.last.Load()).Add(handshake))
			if quiet <= 0 || time.Now().After(end) || !pause(ctx, quiet) {
				break
			}
		}
	}
	_ = d.Close() // it is only to accept no more
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

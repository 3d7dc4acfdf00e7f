package httpapi

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server serves the API on a listener and ends it without failing a request that was on its way.
type Server struct {
	api  *API
	http *http.Server
	ln   atomic.Pointer[closeOnce] // set by Serve
	busy busyConns

	cancel context.CancelCauseFunc // of every request's context
}

// NewServer returns a Server that is not serving yet. The Options are those of New.
func NewServer(o Options) *Server {
	api := New(o)
	base, cancel := context.WithCancelCause(context.Background())
	s := &Server{
		api:    api,
		cancel: cancel,
		http: &http.Server{
			Handler:     api,
			BaseContext: func(net.Listener) context.Context { return base },
			ErrorLog:    log.New(api.o.Log.With().Str("from", "net/http").Logger(), "", 0),

			ReadHeaderTimeout: api.o.ReadHeaderTimeout,
			ReadTimeout:       api.o.ReadTimeout, // net/http lifts it when the body has been read, so it ends no wait
			IdleTimeout:       api.o.IdleTimeout,
			MaxHeaderBytes:    api.o.MaxHeaderBytes,
			// No WriteTimeout: it would begin with the request and cut off whoever waits for a job; response has its own.
		},
	}
	s.http.ConnState = s.busy.track
	return s
}

// closeOnce is a listener that Shutdown and net/http may both close.
type closeOnce struct {
	net.Listener
	once sync.Once
	err  error
}

func (l *closeOnce) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}

// busyConns are the connections that have a request under way, or may have: new ones. The zero value has none.
type busyConns struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	none  chan struct{} // not nil while somebody waits; closed when there are none
}

func (b *busyConns) track(c net.Conn, s http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s == http.StateNew || s == http.StateActive {
		if b.conns == nil {
			b.conns = map[net.Conn]struct{}{}
		}
		b.conns[c] = struct{}{}
		return
	}
	delete(b.conns, c)
	if len(b.conns) == 0 && b.none != nil {
		close(b.none)
		b.none = nil
	}
}

// wait blocks until there are no busy connections, or ctx ends.
func (b *busyConns) wait(ctx context.Context) {
	b.mu.Lock()
	if len(b.conns) == 0 {
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

// Serve answers requests on ln, which it closes, until Shutdown or an error. After a Shutdown it returns nil, at once: wait for
// Shutdown to return.
func (s *Server) Serve(ln net.Listener) error {
	once := &closeOnce{Listener: ln}
	s.ln.Store(once)
	err := s.http.Serve(once)
	if errors.Is(err, http.ErrServerClosed) || s.api.drain.Err() != nil {
		return nil
	}
	return err
}

// stopGrace is how long callers that still wait when Shutdown's ctx ends have for reading that the gateway stops.
const stopGrace = time.Second

// Shutdown ends the server and returns when no request is left. The order keeps clients from posting into a connection that is
// being closed:
//
//  1. /readyz fails, event streams end, and every response says Connection: close, for Options.DrainDelay;
//  2. the listener is closed, and requests under way are waited for until ctx ends. net/http's own Shutdown comes only then: it drops
//     requests that were sent while it began;
//  3. those that are left are answered 503, and after a second cut off; then Shutdown returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.cancel(errStopped)
	s.api.beginDrain()
	select {
	case <-time.After(s.api.o.DrainDelay):
	case <-ctx.Done():
	}

	if ln := s.ln.Load(); ln != nil {
		_ = ln.Close() // it is only to accept no more
	}
	s.busy.wait(ctx)
	err := s.http.Shutdown(ctx)
	if err == nil {
		return nil
	}
	s.cancel(errStopped)
	last, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	if s.http.Shutdown(last) != nil {
		_ = s.http.Close() // err is already the reason
	}
	return err
}

package httpapi

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"time"
)

// Server serves the API on a listener and ends it without failing a request that was on its way.
type Server struct {
	api  *API
	http *http.Server

	cancel context.CancelCauseFunc // of every request's context
}

// NewServer returns a Server that is not serving yet. The Options are those of New.
func NewServer(o Options) *Server {
	api := New(o)
	base, cancel := context.WithCancelCause(context.Background())
	return &Server{
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
}

// Serve answers requests on ln, which it closes, until Shutdown or an error. After a Shutdown it returns nil, at once: wait for
// Shutdown to return.
func (s *Server) Serve(ln net.Listener) error {
	err := s.http.Serve(ln)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// stopGrace is how long callers that still wait when Shutdown's ctx ends have for reading that the gateway stops.
const stopGrace = time.Second

// Shutdown ends the server and returns when no request is left. The order keeps clients from posting into a connection that is
// being closed:
//
//  1. /readyz fails, and every response says Connection: close, for Options.DrainDelay;
//  2. the listener and idle connections are closed, requests under way are waited for until ctx ends;
//  3. those that are left are answered 503, and after a second cut off; then Shutdown returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.cancel(errStopped)
	s.api.draining.Store(true)
	select {
	case <-time.After(s.api.o.DrainDelay):
	case <-ctx.Done():
	}

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

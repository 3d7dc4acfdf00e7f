package httpapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Server serves the API on listeners and ends it without failing a request that was on its way.
type Server struct {
	api   *API
	http  *http.Server
	conns *conns
	doors atomic.Pointer[[]*door] // set by Serve

	ops      *http.Server // of the operations listener
	opsConns *conns

	cancel context.CancelCauseFunc // of every request's context
}

// maxStreams is how many requests one connection may have under way with HTTP/2.
const maxStreams = 250

// maxOpsConns bounds the connections of the operations listener.
const maxOpsConns = 100

// NewServer returns a Server that is not serving yet. The Options are those of New.
func NewServer(o Options) *Server {
	api := New(o)
	base, cancel := context.WithCancelCause(context.Background())
	s := &Server{api: api, cancel: cancel, conns: newConns(api.o.MaxConnections), opsConns: newConns(maxOpsConns)}
	s.http = newHTTP(api, base, strictTransport(api), s.conns)
	s.http.Protocols.SetHTTP2(true)
	s.http.Protocols.SetUnencryptedHTTP2(api.o.H2C)
	s.http.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: maxStreams,
		SendPingTimeout:      api.o.IdleTimeout / 4, // finds out that the client of a long wait is gone, as TCP keep-alive does
		WriteByteTimeout:     api.o.WriteTimeout,
	}
	s.ops = newHTTP(api, context.Background(), api.opsRoutes(), s.opsConns)
	return s
}

// newHTTP returns a server of HTTP/1 with the timeouts of the API.
func newHTTP(api *API, base context.Context, h http.Handler, c *conns) *http.Server {
	s := &http.Server{
		Handler:     h,
		ConnState:   c.track,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    log.New(serverLog{api.o.Log}, "", 0),

		ReadHeaderTimeout: api.o.ReadHeaderTimeout, // of the TLS handshake, too
		ReadTimeout:       api.o.ReadTimeout,       // net/http lifts it when the body has been read, so it ends no wait
		IdleTimeout:       api.o.IdleTimeout,
		MaxHeaderBytes:    api.o.MaxHeaderBytes,

		DisableGeneralOptionsHandler: true, // OPTIONS * is answered, logged and bounded as everything else
		// No WriteTimeout: it would begin with the request and cut off whoever waits for a job; response has its own.

		Protocols: new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	return s
}

// serverLog logs what net/http has to say, such as of a TLS handshake that failed.
type serverLog struct{ log zerolog.Logger }

func (l serverLog) Write(line []byte) (int, error) {
	l.log.Warn().Str("from", "net/http").Msg(string(bytes.TrimSpace(line)))
	return len(line), nil
}

// strictTransport has browsers that came by HTTPS to a name come back by HTTPS, for a year (RFC 6797). They ignore that for IP addresses,
// and for localhost it would shut them out of every other program on the machine.
func strictTransport(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && isName(r.Host) {
			w.Header().Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

func isName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err != nil && !strings.EqualFold(host, "localhost")
}

// Serve answers requests on listeners, which it closes, until Shutdown or an error of one of them. TCP is wrapped into Options.TLS. After a
// Shutdown it returns nil, at once: wait for Shutdown to return. Call it once.
func (s *Server) Serve(lns ...net.Listener) error {
	doors := make([]*door, len(lns))
	for i, ln := range lns {
		doors[i] = &door{Listener: ln, conns: s.conns}
	}
	s.doors.Store(&doors)
	ended := make(chan error, len(doors))
	for _, d := range doors {
		ln := net.Listener(d)
		if s.api.o.TLS != nil && ln.Addr().Network() != "unix" {
			ln = tls.NewListener(ln, s.api.o.TLS)
		}
		go func() { ended <- s.http.Serve(ln) }()
	}
	var failed error
	for range doors {
		if err := <-ended; failed == nil && !errors.Is(err, http.ErrServerClosed) && s.api.drain.Err() == nil {
			failed = err
			for _, d := range doors {
				_ = d.Close() // one without the other is not what was asked for
			}
		}
	}
	return failed
}

// ServeOperations answers what operators ask for on a listener of its own, which it closes, until StopOperations or an error.
func (s *Server) ServeOperations(ln net.Listener) error {
	err := s.ops.Serve(&door{Listener: ln, conns: s.opsConns})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// StopOperations ends ServeOperations, and cuts off what is under way there. It may be called after Shutdown, so that an end that takes
// long can be watched.
func (s *Server) StopOperations() {
	s.opsConns.lift()
	_ = s.ops.Close() // there is nothing to be lost
	s.opsConns.wait(context.Background())
}

// stopGrace is how long callers that still wait when Shutdown's ctx ends have for reading that the gateway stops.
const stopGrace = time.Second

// Shutdown ends the server and returns when no request is left. The order keeps clients from posting into a connection that is
// being closed:
//
//  1. /readyz fails, event streams end, and every response says Connection: close, or GOAWAY with HTTP/2, for Options.DrainDelay;
//  2. no new connection is established, those that are get accepted, and the listeners are closed;
//  3. requests under way are waited for until ctx ends. net/http's own Shutdown comes only then: it drops requests that were sent while
//     it began;
//  4. those that are left are answered 503, and after a second cut off; then Shutdown returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.cancel(errStopped)
	s.api.beginDrain()
	s.conns.lift() // who waits for room is to be answered, too
	pause(ctx, s.api.o.DrainDelay)

	if doors := s.doors.Load(); doors != nil {
		var shut sync.WaitGroup
		for _, d := range *doors {
			shut.Go(func() { d.shut(ctx) })
		}
		shut.Wait()
	}
	s.conns.wait(ctx)
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

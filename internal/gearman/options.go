package gearman

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"

	"gearman-gateway/internal/gearman/wire"
)

// Options say how to reach one job server, and with what patience. Only Addr is needed.
type Options struct {
	Addr        string         // host:port
	TLS         *tls.Config    // nil: plaintext
	DialTimeout time.Duration  // to connect, to shake hands and to get a first answer; 0: 3 s
	Silence     time.Duration  // a connection that was silent this long is asked for an ECHO; 0: 5 s
	EchoTimeout time.Duration  // and given up when none came in this time; 0: 3 s
	MaxBackoff  time.Duration  // the longest pause between two attempts to connect; 0: 1 s
	MaxPending  int            // requests that may wait for their reply, beyond that ErrBusy; 0: 65,536
	MaxBuffered int            // bytes that may wait to be written, beyond that ErrBusy; 0: 128 MiB
	MaxPacket   int            // the largest packet body taken from the job server; 0: wire.DefaultMaxBody
	Log         zerolog.Logger // the zero Logger is silent
}

func (o Options) withDefaults() Options {
	o.DialTimeout = cmp.Or(o.DialTimeout, 3*time.Second)
	o.Silence = cmp.Or(o.Silence, 5*time.Second)
	o.EchoTimeout = cmp.Or(o.EchoTimeout, 3*time.Second)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, time.Second)
	o.MaxPending = cmp.Or(o.MaxPending, 1<<16)
	o.MaxBuffered = cmp.Or(o.MaxBuffered, 128<<20)
	o.MaxPacket = cmp.Or(o.MaxPacket, wire.DefaultMaxBody)
	o.Log = o.Log.With().Str("server", o.Addr).Logger()
	return o
}

// dial connects, and shakes hands where TLS is asked for. It takes DialTimeout at most.
func (o Options) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.DialTimeout, fmt.Errorf("no connection within %v", o.DialTimeout))
	defer cancel()
	d := &net.Dialer{Control: setUserTimeout(o.Silence + o.EchoTimeout)}
	if o.TLS != nil {
		return (&tls.Dialer{NetDialer: d, Config: o.TLS}).DialContext(ctx, "tcp", o.Addr)
	}
	return d.DialContext(ctx, "tcp", o.Addr)
}

// newBackoff returns the pauses between attempts to connect: 25 ms at first, growing by half to MaxBackoff, each off by up to
// half either way, so that a fleet of gateways does not come back in one wave.
func (o Options) newBackoff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 25 * time.Millisecond
	b.MaxInterval = o.MaxBackoff * 2 / 3 // the jitter adds up to half
	return b
}

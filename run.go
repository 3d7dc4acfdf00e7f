package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.yaml.in/yaml/v4"
)

// Run makes a gateway, starts it, and stops it within Config.Drain when ctx ends or SIGINT or SIGTERM comes; a second signal then ends
// the program at once. On SIGHUP it reloads what Config.Reload returns. It returns nil after an orderly end.
func Run(ctx context.Context, c Config) error {
	g, err := New(c)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	hangup := make(chan os.Signal, 1)
	if c.Reload != nil {
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
	}
	if err := g.Start(ctx); err != nil {
		return err
	}
	tell(c.Log, daemon.SdNotifyReady)
	defer watchdog(c.Log)()
	for err == nil && ctx.Err() == nil {
		select {
		case <-hangup:
			g.hangup(ctx)
		case reason := <-g.left:
			g.c.Log.Info().Str("reason", reason).Msg("the worker has reached a limit: stopping")
			return g.stopWithin(stop)
		case err = <-g.failed:
		case <-ctx.Done():
			g.c.Log.Info().Msg("stopping; a second signal ends the program at once")
		}
	}
	return errors.Join(err, g.stopWithin(stop))
}

// stopWithin stops the gateway within Config.Drain. Signals are not caught any more.
func (g *Gateway) stopWithin(uncatch func()) error {
	uncatch()
	tell(g.c.Log, daemon.SdNotifyStopping)
	end, cancel := context.WithTimeout(context.Background(), time.Duration(g.c.Drain))
	defer cancel()
	return g.Stop(end)
}

// hangup reloads the configuration. A bad one changes nothing.
func (g *Gateway) hangup(ctx context.Context) {
	tell(g.c.Log, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec())
	defer tell(g.c.Log, daemon.SdNotifyReady)
	c, err := g.c.Reload()
	if err == nil {
		err = g.Reload(ctx, c)
	}
	if err != nil {
		g.c.Log.Error().Err(err).Msg("configuration not reloaded: all is as it was")
		return
	}
	g.c.Log.Info().Msg("configuration reloaded")
}

// Reload takes the access control, the files of tls, the sinks, the callbacks, the policy of webhooks, the handlers and the limits of the
// workers from another configuration: new connections get the new certificate; functions appear on the job servers and disappear from
// them, and jobs that run go on with the handler they began with. Everything
// else needs a restart, and a change of it is logged. After an error nothing has changed. Handlers in Go stay what they were.
//
// It must not be called at the same time from several goroutines, nor after Stop.
func (g *Gateway) Reload(ctx context.Context, c Config) error {
	c.Handlers, c.Log, c.Version, c.Reload = g.c.Handlers, g.c.Log, g.c.Version, g.c.Reload
	if err := c.Check(); err != nil {
		return err
	}
	rules, err := c.rules()
	if err != nil {
		return err
	}
	serverTLS, err := c.TLS.config()
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	functions, err := c.functions()
	if err != nil {
		return err
	}
	a, err := g.nextAuth(&c)
	if err != nil {
		closeHandlers(functions)
		return err
	}
	if err := g.events.Reload(ctx, c.webhookOptions()); err != nil {
		closeHandlers(functions)
		return fmt.Errorf("sinks: %w", err)
	}
	if err := g.reloadPool(&c, functions); err != nil { // nothing that Check has let through
		return err
	}
	g.use(&c, rules)
	g.useAuth(a)
	g.noteChanges(&c)
	if serverTLS != nil && g.serverTLS.Load() != nil {
		g.serverTLS.Store(serverTLS)
		g.c.TLS = c.TLS
	}
	g.c.Auth, g.c.Sinks, g.c.Callbacks, g.c.Webhooks, g.c.Functions, g.c.Workers = c.Auth, c.Sinks, c.Callbacks, c.Webhooks, c.Functions, c.Workers
	return nil
}

// noteChanges logs that something else than what Reload takes has changed.
func (g *Gateway) noteChanges(c *Config) {
	before, after := g.c, *c
	fixed := before.Webhooks.MaxBacklog == after.Webhooks.MaxBacklog && before.Workers.Concurrency == after.Workers.Concurrency &&
		before.Workers.Grace == after.Workers.Grace && before.Workers.MaxDeaths == after.Workers.MaxDeaths
	if before.TLS != (TLS{}) && after.TLS != (TLS{}) {
		before.TLS, after.TLS = TLS{}, TLS{}
	}
	for _, x := range []*Config{&before, &after} {
		x.Auth, x.Sinks, x.Callbacks, x.Webhooks, x.Functions, x.Workers = Auth{}, nil, Callbacks{}, Webhooks{}, nil, Workers{}
	}
	a, errA := yaml.Marshal(before)
	b, errB := yaml.Marshal(after)
	if errors.Join(errA, errB) != nil || !bytes.Equal(a, b) || !fixed {
		g.c.Log.Warn().Msg("the configuration has changes that need a restart: only auth, the files of tls, sinks, callbacks, webhooks, handlers and workers are reloaded")
	}
}

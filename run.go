package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
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

// Reload takes the access control, the files of tls, the sinks, the callbacks, the policy of webhooks, the handlers, the limits of callers
// and those of the workers from another configuration: new connections get the new certificate; functions appear on the job servers and
// disappear from them, and jobs that run go on with the handler they began with. Everything
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
	g.limits.Reload(c.Limits.rules())
	g.noteChanges(&c)
	if serverTLS != nil && g.serverTLS.Load() != nil {
		g.serverTLS.Store(serverTLS)
		g.c.TLS = c.TLS
	}
	g.c.Auth, g.c.Limits, g.c.Sinks, g.c.Callbacks, g.c.Webhooks = c.Auth, c.Limits, c.Sinks, c.Callbacks, c.Webhooks
	g.c.Functions, g.c.Workers = c.Functions, c.Workers
	return nil
}

// noteChanges logs which settings have changed that Reload does not take.
func (g *Gateway) noteChanges(c *Config) {
	before, errBefore := g.c.flat()
	after, errAfter := c.flat()
	if err := errors.Join(errBefore, errAfter); err != nil {
		g.c.Log.Warn().Err(err).Msg("what has changed that needs a restart cannot be told")
		return
	}
	for key, value := range before {
		if reflect.DeepEqual(value, after[key]) {
			delete(after, key)
		} else {
			after[key] = nil
		}
	}
	changed := slices.DeleteFunc(slices.Sorted(maps.Keys(after)), func(key string) bool {
		section, _, _ := strings.Cut(key, ".")
		tlsFiles := section == "tls" && g.c.TLS != (TLS{}) && c.TLS != (TLS{})
		return (slices.Contains(reloaded, section) || tlsFiles) && !slices.Contains(notReloaded, key)
	})
	if len(changed) > 0 {
		g.c.Log.Warn().Strs("keys", changed).Msg("the configuration has changes that need a restart")
	}
}

// What Reload takes, and what of it it does not.
var (
	reloaded    = []string{"auth", "limits", "sinks", "callbacks", "webhooks", "handlers", "workers"}
	notReloaded = []string{"limits.concurrency", "webhooks.max_backlog", "workers.concurrency", "workers.grace", "workers.max_deaths"}
)

// flat returns the settings by their keys, of which those in a section have its name before a dot.
func (c *Config) flat() (map[string]any, error) {
	text, err := yaml.Marshal(c)
	if err != nil {
		return nil, err
	}
	var sections map[string]any
	if err := yaml.Unmarshal(text, &sections); err != nil {
		return nil, err
	}
	flat := map[string]any{}
	for name, value := range sections {
		section, ok := value.(map[string]any)
		if !ok {
			flat[name] = value
		}
		for key, value := range section {
			flat[name+"."+key] = value
		}
	}
	return flat, nil
}

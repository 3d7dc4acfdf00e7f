package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"gearman-gateway/internal/httpapi"
)

// serve opens every listener, and answers HTTP on them.
func (g *Gateway) serve() (err error) {
	var lns []net.Listener
	defer func() {
		if err != nil {
			for _, ln := range lns {
				_ = ln.Close() // err says more
			}
		}
	}()
	for _, d := range g.c.Listen {
		ln, err := d.listen(os.FileMode(g.c.ListenMode))
		if err != nil {
			return err
		}
		lns = append(lns, ln)
		g.addrs = append(g.addrs, addrOf(ln))
	}
	var ops net.Listener
	if g.c.OpsListen != "" {
		if ops, err = net.Listen("tcp", string(g.c.OpsListen)); err != nil {
			return portTaken(err, "ops_listen", "ops_listen")
		}
	}
	g.server = httpapi.NewServer(g.httpOptions())
	g.readMetrics()
	go func() {
		if err := g.server.Serve(lns...); err != nil {
			g.fail(fmt.Errorf("HTTP server: %w", err))
		}
	}()
	if ops != nil {
		go func() {
			if err := g.server.ServeOperations(ops); err != nil {
				g.fail(fmt.Errorf("operations listener: %w", err))
			}
		}()
		g.c.Log.Info().Str("addr", addrOf(ops)).Msg("operations listener")
	}
	g.c.Log.Info().Str("addr", g.Addr()).Strs("others", g.addrs[1:]).Bool("tls", g.c.TLS != TLS{}).
		Bool("access_control", g.auth.Load() != nil).Msg("gateway serves HTTP")
	if g.auth.Load() != nil && g.serverTLS.Load() == nil && !g.c.Listen.loopback() {
		g.c.Log.Warn().Msg("credentials come over the network in the clear, unless a proxy in front speaks TLS: see tls")
	}
	return nil
}

func (g *Gateway) httpOptions() httpapi.Options {
	o := httpapi.Options{
		Jobs: g.records, Servers: g.cluster, Webhooks: g.events, Log: g.c.Log, Tracer: g.tracer,
		Rules: func(function string) httpapi.Rules { return (*g.rules.Load())[function] }, Identify: g.identify,
		Limits: g.limits, Gate: g.c.Limits.gate(), Hosts: g.c.Hosts, MaxWorkload: int64(g.c.MaxWorkload),
		SyncTimeout: time.Duration(g.c.SyncTimeout), MaxWait: time.Duration(g.c.MaxWait),
		Meter: g.metrics, Metrics: g.metrics.Handler(),
		Pool: ownPool{&g.pool}, Audit: g.outbox,
		H2C: g.c.H2C, MaxConnections: g.maxConnections(), DrainDelay: max(time.Duration(g.c.DrainDelay), 1), // 0 there is its default
	}
	if g.serverTLS.Load() != nil {
		o.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return g.serverTLS.Load(), nil }}
	}
	return o
}

// fail tells Run of the first error that ends the gateway.
func (g *Gateway) fail(err error) {
	select {
	case g.failed <- err:
	default:
	}
}

// spareFiles are for everything but callers: job servers, the store, handlers, deliveries.
const spareFiles = 1000

// maxConnections is what is configured, or less where the limit of open files does not allow that.
func (g *Gateway) maxConnections() int {
	files := maxOpenFiles()
	room := files - min(spareFiles, files/2)
	if files == 0 || g.c.MaxConnections <= room {
		return g.c.MaxConnections
	}
	g.c.Log.Warn().Int("max_connections", g.c.MaxConnections).Int("open_files", files).Int("connections", room).
		Msg("the limit of open files (ulimit -n, LimitNOFILE) is too low for max_connections: fewer connections are let in")
	return room
}

// listen opens a door.
func (d Door) listen(mode os.FileMode) (net.Listener, error) {
	path, socket := d.socket()
	if !socket {
		ln, err := httpapi.ListenTCP(string(d))
		if err != nil {
			return nil, portTaken(err, "listen", "--listen")
		}
		return ln, nil
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	ln, err := listenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = ln.Close() // err says more
		return nil, fmt.Errorf("listen: %w", err)
	}
	return ln, nil
}

// removeStale removes the socket of a process that has died. One on which somebody answers, and what is no socket, is an error.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket", path)
	}
	c, err := net.Dial("unix", path)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("%s: another program listens there; stop it, or choose another path with --listen", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return err
	}
	return os.Remove(path)
}

// portTaken says what to do when an address cannot be listened on.
func portTaken(err error, key, flag string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s: %w: another program has that port; stop it, or choose another with %s", key, err, flag)
	}
	return fmt.Errorf("%s: %w", key, err)
}

// addrOf returns a listener's address as a Door has it.
func addrOf(ln net.Listener) string {
	if ln.Addr().Network() == "unix" {
		return "unix:" + ln.Addr().String()
	}
	return ln.Addr().String()
}

// Addr returns where HTTP is served, the first of Config.Listen, after Start: host:port, or unix:/path.
func (g *Gateway) Addr() string { return g.addrs[0] }

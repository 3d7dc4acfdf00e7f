package webhook

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"

	"gearman-gateway/internal/event"
)

// CallbacksName is the sink under which the deliveries to jobs' own callbacks are kept.
const CallbacksName = "callbacks"

// CallbackOptions say where jobs' callbacks may go. They come from callers, so they are guarded: only to Hosts, and whatever a name
// resolves to, never to an address that is not public, unless Allow has it. Redirects are not followed.
type CallbackOptions struct {
	// Hosts are names, or the end of names after "*", as in "*.example.com"; "*" is any. A port can be given, or "*" for any; without one it
	// is that of the URL's scheme.
	Hosts       []string
	Allow       []netip.Prefix // addresses that are permitted though they are not public
	Secrets     []Secret       // each signs every delivery; none: deliveries are not signed
	Timeout     time.Duration  // of one attempt; 0 means 15 s
	Concurrency int            // most deliveries at a time, of which a host gets half; 0 means 16
}

const defaultCallbackConcurrency = 16

// callbacks are the policy of Options.Callbacks. It is safe for concurrent use.
type callbacks struct {
	o     CallbackOptions
	guard *ssrf.Guardian
}

// Check returns what is wrong with the options.
func (o *CallbackOptions) Check() error {
	if o.Timeout < 0 || o.Concurrency < 0 {
		return errors.New("a timeout or concurrency is below zero")
	}
	return errors.Join(checkHosts(o.Hosts), checkSecrets(o.Secrets))
}

func newCallbacks(o CallbackOptions) (*callbacks, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.Concurrency = cmp.Or(o.Concurrency, defaultCallbackConcurrency)
	var v4, v6 []netip.Prefix
	for _, p := range o.Allow {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	guard := ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
	return &callbacks{o: o, guard: guard}, nil
}

func checkHosts(hosts []string) error {
	if len(hosts) == 0 {
		return errors.New("hosts are missing: without any, no callback is allowed")
	}
	for _, pattern := range hosts {
		host, port := splitPattern(pattern)
		rest := strings.TrimPrefix(host, "*")
		if host == "" || strings.ContainsAny(rest, "*/ @") || port != "*" && strings.Trim(port, "0123456789") != "" {
			return fmt.Errorf(`hosts: %q is not a host such as "hooks.example.com", "*.example.com" or "hooks.internal:8443"`, pattern)
		}
	}
	return nil
}

func splitPattern(pattern string) (host, port string) {
	if h, p, err := net.SplitHostPort(pattern); err == nil {
		return h, p
	}
	return strings.Trim(pattern, "[]"), ""
}

// newCallbackSink makes the sink that delivers to all callbacks. Each of their hosts has a gate of its own.
func newCallbackSink(o *Options, c *callbacks) *sink {
	k := makeSink(o, CallbacksName, &poster{
		client:  &http.Client{Transport: guarded{c, newTransport(c.perHost(), c.control)}, CheckRedirect: noRedirect},
		timeout: c.o.Timeout, secrets: c.o.Secrets, contentType: contentType,
	}, c.o.Concurrency)
	k.callbacks = c
	return k
}

// guarded is a transport to where callbacks may go. A callback is kept with its job, and may be older than the configuration.
type guarded struct {
	*callbacks
	*http.Transport
}

func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if !g.allows(r.URL) {
		_ = r.Body.Close()
		return nil, errors.New("callbacks may not go there: the configuration does not allow the host or port any more")
	}
	return g.Transport.RoundTrip(r)
}

func (c *callbacks) perHost() int { return max(1, c.o.Concurrency/2) }

// control refuses to connect to an address that callbacks may not go to. It sees the address after the name was resolved.
func (c *callbacks) control(network, address string, conn syscall.RawConn) error {
	if err := c.guard.Safe(network, address, conn); err != nil {
		return fmt.Errorf("callbacks may not go to %s: it is not a public address, and the configuration does not allow it", address)
	}
	return nil
}

// target returns where a callback goes, under which key its host's gate is, and how many deliveries the host may get at a time.
func (c *callbacks) target(callback string) (to target, key string, most int) {
	u, err := url.Parse(callback)
	if err != nil { // it was checked when the job was submitted
		return target{url: callback, shown: "a callback"}, "", c.perHost()
	}
	host, port := hostPort(u)
	return target{url: callback, shown: redacted(u)}, net.JoinHostPort(host, port), c.perHost()
}

// hostPort returns the host and port of a URL, which may be spelt in many ways, in one.
func hostPort(u *url.URL) (host, port string) {
	usual := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	return strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), cmp.Or(u.Port(), usual)
}

// check returns what is wrong with a callback, a *CallbackError, and fills in its events where it names none.
func (c *callbacks) check(cb *event.Callback) error {
	if cb.Events == nil {
		cb.Events = event.CallbackPatterns
	}
	for _, pattern := range cb.Events {
		if err := (event.Patterns{pattern}).Check(); err != nil {
			return &CallbackError{"events", err.Error()}
		}
		if !selectsJobs(pattern) {
			return &CallbackError{"events", fmt.Sprintf("%q selects no event of a job", pattern)}
		}
	}
	u, err := url.Parse(cb.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return &CallbackError{"url", "must be the URL of an http or https server"}
	case u.User != nil:
		return &CallbackError{"url", "must not have a user or a password"}
	case u.Fragment != "":
		return &CallbackError{"url", "must not have a fragment"}
	case !c.allows(u):
		return &CallbackError{"url", "is of a host or port that the gateway's configuration does not allow callbacks to"}
	}
	return c.checkAddress(u)
}

// checkAddress looks at a host that is an address; a name is looked at when it is dialled, since it may resolve to anything by then.
func (c *callbacks) checkAddress(u *url.URL) error {
	ip, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return nil
	}
	network := "tcp4"
	if ip.Is6() {
		network = "tcp6"
	}
	if c.guard.Safe(network, netip.AddrPortFrom(ip, 80).String(), nil) != nil {
		return &CallbackError{"url", "is of an address that is not public, and the gateway's configuration does not allow it"}
	}
	return nil
}

func selectsJobs(pattern string) bool {
	return slices.ContainsFunc(event.Types, func(t event.Type) bool {
		ofJob := strings.HasPrefix(string(t), "job.") || strings.HasPrefix(string(t), "worker.function.")
		return ofJob && event.Patterns{pattern}.Match(t)
	})
}

// allows reports whether any of Hosts has the host and port of a URL.
func (c *callbacks) allows(u *url.URL) bool {
	usual := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	host, port := hostPort(u)
	return slices.ContainsFunc(c.o.Hosts, func(pattern string) bool {
		allowed, at := splitPattern(strings.ToLower(pattern))
		if at != "*" && cmp.Or(at, usual) != port {
			return false
		}
		end, wild := strings.CutPrefix(allowed, "*")
		return host == allowed || wild && strings.HasSuffix(host, end)
	})
}

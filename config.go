package gateway

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"go.yaml.in/yaml/v4"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

// Config is everything that can be set. Start from DefaultConfig.
type Config struct {
	Listen               Address       `yaml:"listen"`                // where HTTP is served
	AllowUnauthenticated bool          `yaml:"allow_unauthenticated"` // permits a Listen beyond loopback, without access control
	Hosts                []string      `yaml:"hosts"`                 // names by which browsers may call, besides localhost and IP addresses
	Gearman              []Address     `yaml:"gearman"`               // job servers; none: an embedded one
	GearmanTLS           GearmanTLS    `yaml:"gearman_tls"`
	Jobserver            Jobserver     `yaml:"jobserver"`
	Data                 string        `yaml:"data"`         // directory of the durable records; "": memory only
	SyncTimeout          Duration      `yaml:"sync_timeout"` // how long a sync job is waited for when the caller does not say
	MaxWait              Duration      `yaml:"max_wait"`     // the longest wait that a caller may ask for
	MaxWorkload          Size          `yaml:"max_workload"`
	ResultTTL            Duration      `yaml:"result_ttl"` // how long results are kept
	Retention            Duration      `yaml:"retention"`  // how long Data keeps the record of a job that has ended
	Drain                Duration      `yaml:"drain"`      // at the end, how long requests, jobs and deliveries under way have to finish
	Sinks                []Sink        `yaml:"sinks"`
	Webhooks             Webhooks      `yaml:"webhooks"`
	Callbacks            Callbacks     `yaml:"callbacks"`
	Workers              Workers       `yaml:"workers"`
	LogLevel             zerolog.Level `yaml:"log_level"`

	// Handlers are functions of the program that imports this package; they are registered beside the built-in ones.
	Handlers map[string]Handler `yaml:"-"`
	// Log gets what LogLevel lets through; the zero Logger is silent.
	Log zerolog.Logger `yaml:"-"`
	// Version is what the program calls itself.
	Version string `yaml:"-"`
}

// GearmanTLS says how to reach the job servers over TLS. It is used when Enabled or any of its fields is set.
type GearmanTLS struct {
	Enabled    bool   `yaml:"enabled"`
	CA         string `yaml:"ca"`          // file of PEM certificates that are trusted; "": those of the system
	Cert       string `yaml:"cert"`        // file of the client's PEM certificate
	Key        string `yaml:"key"`         // and of its key
	ServerName string `yaml:"server_name"` // the name that job servers' certificates must have; "": the host of the address
}

// Jobserver is the embedded job server, which runs when no other is given.
type Jobserver struct {
	Listen Address `yaml:"listen"`
}

// Sink is a receiver of webhooks.
type Sink struct {
	Name        string            `yaml:"name"`                   // under which its deliveries are kept; "": the host of the URL
	URL         URL               `yaml:"url"`                    //
	Secret      Secret            `yaml:"secret"`                 // whsec_ and base64; none: deliveries are not signed
	Secrets     []Secret          `yaml:"secrets,omitempty"`      // more of them, each of which signs too: while one is changed for another
	Events      event.Patterns    `yaml:"events"`                 // types, or prefixes such as job.*; none: all but those that come without bound
	Functions   []string          `yaml:"functions,omitempty"`    // only events of these, names or prefixes such as img-*; none: all
	Timeout     Duration          `yaml:"timeout,omitempty"`      // of one attempt; 0: that of Webhooks
	Concurrency int               `yaml:"concurrency,omitempty"`  // deliveries at a time; 0: 8
	Headers     map[string]Masked `yaml:"headers,omitempty"`      // sent along
	ContentType string            `yaml:"content_type,omitempty"` // application/cloudevents+json if not given, or application/json
	Rate        float64           `yaml:"rate,omitempty"`         // most deliveries a second; 0: no limit
}

func (s Sink) headers() map[string]string {
	headers := make(map[string]string, len(s.Headers))
	for name, value := range s.Headers {
		headers[name] = string(value)
	}
	return headers
}

func (s Sink) name() string {
	if s.Name != "" {
		return s.Name
	}
	u, err := url.Parse(string(s.URL))
	if err != nil {
		return ""
	}
	return u.Host
}

// Webhooks is the policy for all sinks.
type Webhooks struct {
	Schedule     []Duration `yaml:"schedule"`      // the delay before each attempt, the first of which is 0
	Timeout      Duration   `yaml:"timeout"`       // of one attempt
	DisableAfter Duration   `yaml:"disable_after"` // a sink that has failed for so long is disabled
	// MaxBacklog bounds the events that are kept: what all sinks have goes first; beyond that, tracked and scheduled jobs are refused, and
	// the events of others are dropped. Without Data it is 64MiB at most.
	MaxBacklog Size `yaml:"max_backlog"`
}

// Callbacks says where jobs may have their own events sent. Without Hosts, nowhere.
type Callbacks struct {
	Hosts       []string       `yaml:"hosts"`                 // hooks.example.com, *.example.com, with :port or :* if it is not the usual one
	Allow       []netip.Prefix `yaml:"allow"`                 // addresses that are permitted though they are not public
	Secret      Secret         `yaml:"secret"`                // whsec_ and base64; none: callbacks are not signed
	Secrets     []Secret       `yaml:"secrets,omitempty"`     // more of them, each of which signs too
	Timeout     Duration       `yaml:"timeout,omitempty"`     // of one attempt; 0: that of Webhooks
	Concurrency int            `yaml:"concurrency,omitempty"` // deliveries at a time; 0: 16
}

// Workers is the embedded worker pool.
type Workers struct {
	Concurrency int      `yaml:"concurrency"` // jobs at a time, over all functions
	Builtin     *bool    `yaml:"builtin"`     // register the built-in functions; default: only with the embedded job server
	Grace       Duration `yaml:"grace"`       // from the end of Drain to giving a job up
}

// DefaultConfig returns what holds when nothing is set.
func DefaultConfig() Config {
	return Config{
		Listen:      "127.0.0.1:8080",
		Jobserver:   Jobserver{Listen: "127.0.0.1:4730"},
		SyncTimeout: Duration(30 * time.Second),
		MaxWait:     Duration(5 * time.Minute),
		MaxWorkload: 64 << 20,
		ResultTTL:   Duration(24 * time.Hour),
		Retention:   Duration(7 * 24 * time.Hour),
		Drain:       Duration(20 * time.Second),
		Webhooks: Webhooks{
			Schedule: []Duration{
				0, Duration(5 * time.Second), Duration(5 * time.Minute), Duration(30 * time.Minute), Duration(2 * time.Hour),
				Duration(5 * time.Hour), Duration(10 * time.Hour), Duration(14 * time.Hour), Duration(20 * time.Hour),
				Duration(24 * time.Hour),
			},
			Timeout:      Duration(15 * time.Second),
			DisableAfter: Duration(5 * 24 * time.Hour),
			MaxBacklog:   4 << 30,
		},
		Workers:  Workers{Concurrency: 8, Grace: Duration(5 * time.Second)},
		LogLevel: zerolog.InfoLevel,
	}
}

// ReadFile sets what a YAML file says. Unknown and duplicate keys and bad values are errors that name the line.
func (c *Config) ReadFile(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) { // an empty file sets nothing
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: there is a second document in it, which nothing would read", name)
	}
	return nil
}

// Check returns what is wrong with a configuration, all at once.
func (c *Config) Check() error {
	var errs []error
	wrong := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if !c.AllowUnauthenticated && !c.Listen.loopback() {
		wrong("listen", "%s can be reached from other machines and there is no access control; "+
			"say --allow-unauthenticated (allow_unauthenticated: true) if that is meant", c.Listen)
	}
	if len(c.Gearman) == 0 && !c.AllowUnauthenticated && !c.Jobserver.Listen.loopback() {
		wrong("jobserver.listen", "%s can be reached from other machines and Gearman has no access control; "+
			"say --allow-unauthenticated (allow_unauthenticated: true) if that is meant", c.Jobserver.Listen)
	}
	for i, a := range c.Gearman {
		if slices.Contains(c.Gearman[:i], a) {
			wrong("gearman", "%s is given twice", a)
		}
	}
	for key, d := range map[string]Duration{
		"sync_timeout": c.SyncTimeout, "max_wait": c.MaxWait, "result_ttl": c.ResultTTL, "retention": c.Retention, "webhooks.timeout": c.Webhooks.Timeout, "webhooks.disable_after": c.Webhooks.DisableAfter,
	} {
		if d <= 0 {
			wrong(key, "%v is not more than zero", d)
		}
	}
	if c.SyncTimeout > c.MaxWait {
		wrong("sync_timeout", "%v is more than max_wait, %v", c.SyncTimeout, c.MaxWait)
	}
	if c.MaxWorkload <= 0 || c.MaxWorkload > 1<<30 {
		wrong("max_workload", "%v is not from 1B to 1GiB", c.MaxWorkload)
	}
	if c.Drain < 0 || c.Workers.Grace < 0 {
		wrong("drain and workers.grace", "less than zero")
	}
	if c.Workers.Concurrency < 1 {
		wrong("workers.concurrency", "%d is less than 1", c.Workers.Concurrency)
	}
	c.checkWebhooks(wrong)
	if _, err := c.GearmanTLS.config(); err != nil {
		wrong("gearman_tls", "%v", err)
	}
	return errors.Join(errs...)
}

// checkWebhooks looks at what is told of sinks and callbacks.
func (c *Config) checkWebhooks(wrong func(key, format string, args ...any)) {
	if s := c.Webhooks.Schedule; len(s) == 0 || s[0] != 0 || slices.Min(s) < 0 {
		wrong("webhooks.schedule", "must begin with 0s, and no delay may be less")
	}
	if c.Webhooks.MaxBacklog <= 0 {
		wrong("webhooks.max_backlog", "%v is not more than zero", c.Webhooks.MaxBacklog)
	}
	for i, s := range c.Sinks {
		key := fmt.Sprintf("sinks[%d]", i)
		if s.URL == "" {
			wrong(key+".url", "is missing")
			continue
		}
		if slices.ContainsFunc(c.Sinks[:i], func(other Sink) bool { return other.name() == s.name() }) {
			wrong(key+".name", "%q is the name of another sink; without a name it is the host of the URL", s.name())
		}
	}
	o := c.webhookOptions()
	for i := range o.Sinks {
		if err := o.Sinks[i].Check(); err != nil && o.Sinks[i].URL != "" {
			wrong(fmt.Sprintf("sinks[%d]", i), "%v", err)
		}
	}
	if o.Callbacks != nil {
		if err := o.Callbacks.Check(); err != nil {
			wrong("callbacks", "%v", err)
		}
	} else if cb := c.Callbacks; len(cb.Allow) > 0 || cb.Secret.String() != "" || len(cb.Secrets) > 0 {
		wrong("callbacks.hosts", "is missing: without any, no callback is allowed")
	}
}

// config returns nil when TLS is not asked for.
func (t GearmanTLS) config() (*tls.Config, error) {
	if t == (GearmanTLS{}) {
		return nil, nil
	}
	c := &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate", t.CA)
		}
	}
	if t.Cert != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Address is a host:port.
type Address string

// UnmarshalText checks that there is a host and a port.
func (a *Address) UnmarshalText(b []byte) error {
	_, port, err := net.SplitHostPort(string(b))
	if err != nil {
		return fmt.Errorf("%q is not host:port", b)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has no port from 0 to 65535", b)
	}
	*a = Address(b)
	return nil
}

// loopback reports whether only this machine can reach the address.
func (a Address) loopback() bool {
	host, _, _ := net.SplitHostPort(string(a))
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Duration is a time.Duration that is written as Go does: 1h30m, 300ms.
type Duration time.Duration

// UnmarshalText reads what String writes. "0" is zero.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 1h30m or 300ms", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string { return time.Duration(d).String() }

// Size is a number of bytes, written with one of the units B, KiB, MiB and GiB.
type Size int64

var units = []struct {
	name  string
	bytes Size
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalText reads what String writes; a number alone is bytes.
func (s *Size) UnmarshalText(b []byte) error {
	text, unit := string(b), Size(1)
	for _, u := range units {
		if rest, found := strings.CutSuffix(text, u.name); found {
			text, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > int64((1<<62)/unit) {
		return fmt.Errorf("%q is not a size such as 64MiB", b)
	}
	*s = Size(n) * unit
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Size) String() string {
	for _, u := range units {
		if s != 0 && s%u.bytes == 0 {
			return fmt.Sprintf("%d%s", s/u.bytes, u.name)
		}
	}
	return "0"
}

// URL is an http or https URL. Printed, it shows neither user nor query.
type URL string

// UnmarshalText checks scheme and host. Its error does not repeat the text, which may hold a password.
func (u *URL) UnmarshalText(b []byte) error {
	parsed, err := url.Parse(string(b))
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" {
		return errors.New("this is not the URL of an http or https server")
	}
	*u = URL(b)
	return nil
}

// MarshalText masks what may be secret.
func (u URL) MarshalText() ([]byte, error) {
	parsed, err := url.Parse(string(u))
	if err != nil {
		return nil, errors.New("not a URL")
	}
	if parsed.User != nil {
		parsed.User = url.User("xxxxx")
	}
	if parsed.RawQuery != "" {
		parsed.RawQuery = "xxxxx"
	}
	return []byte(parsed.String()), nil
}

// Masked is a text that may be secret. Printed, it is masked.
type Masked string

// MarshalText returns a mask.
func (m Masked) MarshalText() ([]byte, error) {
	if m == "" {
		return nil, nil
	}
	return []byte("xxxxx"), nil
}

// UnmarshalText takes any text.
func (m *Masked) UnmarshalText(b []byte) error {
	*m = Masked(b)
	return nil
}

func (m Masked) String() string {
	b, _ := m.MarshalText() // cannot fail
	return string(b)
}

// Secret signs deliveries. Printed, it is masked.
type Secret = webhook.Secret

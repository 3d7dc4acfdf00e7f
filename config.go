package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/workerpool"
)

// Config is everything that can be set. Start from DefaultConfig.
type Config struct {
	Listen               Listen     `yaml:"listen"`                // where HTTP is served
	ListenMode           FileMode   `yaml:"listen_mode"`           // of Unix sockets
	TLS                  TLS        `yaml:"tls"`                   // of TCP listeners
	H2C                  bool       `yaml:"h2c"`                   // speak HTTP/2 without TLS too
	MaxConnections       int        `yaml:"max_connections"`       // beyond it new ones wait
	OpsListen            Address    `yaml:"ops_listen"`            // where operators find metrics, health and profiles; "": nowhere
	AllowUnauthenticated bool       `yaml:"allow_unauthenticated"` // permits a Listen beyond loopback without access control, and a Jobserver.Listen
	Hosts                []string   `yaml:"hosts"`                 // names by which browsers may call, besides localhost and IP addresses
	Gearman              []Address  `yaml:"gearman"`               // job servers; none: an embedded one
	GearmanTLS           GearmanTLS `yaml:"gearman_tls"`
	Auth                 Auth       `yaml:"auth"`           // who may call; nothing in it: everybody
	SharedUniques        bool       `yaml:"shared_uniques"` // callers' uniques of background jobs go to the job servers as they are, not by owner
	Jobserver            Jobserver  `yaml:"jobserver"`
	Data                 string     `yaml:"data"`         // directory of the durable records; "": memory only
	SyncTimeout          Duration   `yaml:"sync_timeout"` // how long a sync job is waited for when the caller does not say
	MaxWait              Duration   `yaml:"max_wait"`     // the longest wait that a caller may ask for
	MaxWorkload          Size       `yaml:"max_workload"`
	ResultTTL            Duration   `yaml:"result_ttl"`  // how long results are kept
	Retention            Duration   `yaml:"retention"`   // how long Data keeps the record of a job that has ended, or of which nobody tells the end
	Drain                Duration   `yaml:"drain"`       // at the end, how long requests, jobs and deliveries under way have to finish
	DrainDelay           Duration   `yaml:"drain_delay"` // of Drain, how long new requests are still answered
	Sinks                []Sink     `yaml:"sinks"`
	Webhooks             Webhooks   `yaml:"webhooks"`
	Callbacks            Callbacks  `yaml:"callbacks"`
	Limits               Limits     `yaml:"limits"`
	Workers              Workers    `yaml:"workers"`
	Functions            []Function `yaml:"handlers"` // what the workers run, besides the built-in functions and Handlers
	Tracing              Tracing    `yaml:"tracing"`
	LogLevel             Level      `yaml:"log_level"`

	// Handlers are functions of the program that imports this package; they are registered beside the built-in ones. One that has a
	// method Close is closed when the gateway stops.
	Handlers map[string]Handler `yaml:"-"`
	// Reload reads the configuration anew when Run gets SIGHUP; nil: then nothing happens.
	Reload func() (Config, error) `yaml:"-"`
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

// Workers is the embedded worker pool.
type Workers struct {
	Concurrency int      `yaml:"concurrency"` // jobs at a time, over all functions
	Builtin     *bool    `yaml:"builtin"`     // register the built-in functions; default: only with the embedded job server
	Grace       Duration `yaml:"grace"`       // from SIGTERM to SIGKILL of a handler's process; a second more from the end of Drain to giving a job up
	MaxDeaths   int      `yaml:"max_deaths"`  // of a tracked job's handler process; then it is not tried again

	// The limits of a worker, none of which is set by default.
	MaxRuntime  Duration           `yaml:"max_runtime"`
	MemoryLimit Size               `yaml:"memory_limit"` // it acts at 1/1.2 of it, and always ends the process
	IdleTimeout Duration           `yaml:"idle_timeout"`
	MaxJobs     int                `yaml:"max_jobs"`
	OnLimit     workerpool.OnLimit `yaml:"on_limit"` // restart, or exit: the process ends with exit code 0
}

// DefaultConfig returns what holds when nothing is set.
func DefaultConfig() Config {
	return Config{
		Listen:         Listen{"127.0.0.1:8080"},
		ListenMode:     0o660,
		Jobserver:      Jobserver{Listen: "127.0.0.1:4730"},
		SyncTimeout:    Duration(30 * time.Second),
		MaxWait:        Duration(5 * time.Minute),
		MaxWorkload:    64 << 20,
		ResultTTL:      Duration(24 * time.Hour),
		Retention:      Duration(7 * 24 * time.Hour),
		Drain:          Duration(20 * time.Second),
		DrainDelay:     Duration(time.Second),
		MaxConnections: 20_000,
		Auth:           defaultAuth(),
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
		Workers:  Workers{Concurrency: 8, Grace: Duration(5 * time.Second), MaxDeaths: 3, OnLimit: workerpool.Restart},
		Tracing:  Tracing{Sample: 1, ServiceName: "gearman-gateway"},
		LogLevel: Level(zerolog.InfoLevel),
	}
}

// Check returns what is wrong with a configuration, all at once.
func (c *Config) Check() error {
	w := c.Workers
	errs := []error{atLeastZero(
		setting{"drain", float64(c.Drain)}, setting{"drain_delay", float64(c.DrainDelay)}, setting{"limits.concurrency", float64(c.Limits.Concurrency)},
		setting{"workers.grace", float64(w.Grace)}, setting{"workers.max_deaths", float64(w.MaxDeaths)}, setting{"workers.max_runtime", float64(w.MaxRuntime)},
		setting{"workers.idle_timeout", float64(w.IdleTimeout)}, setting{"workers.max_jobs", float64(w.MaxJobs)},
	)}
	wrong := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if !c.AllowUnauthenticated && !c.Auth.configured() && !c.Listen.loopback() {
		wrong("listen", "%s can be reached from other machines and there is no access control; configure auth (--keys-file), or "+
			"say --allow-unauthenticated (allow_unauthenticated: true) if that is meant", c.Listen)
	}
	if len(c.Gearman) == 0 && !c.AllowUnauthenticated && !c.Jobserver.Listen.loopback() {
		wrong("jobserver.listen", "%s can be reached from other machines and Gearman has no access control, whatever auth says; "+
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
	if c.Workers.Concurrency < 1 {
		wrong("workers.concurrency", "%d is less than 1", c.Workers.Concurrency)
	}
	if l := c.Workers.OnLimit; l != workerpool.Restart && l != workerpool.Exit {
		wrong("workers.on_limit", "%q is neither restart nor exit", l)
	}
	c.checkListen(wrong)
	c.checkWebhooks(wrong)
	c.checkHandlers(wrong)
	if err := c.checkAuth(); err != nil {
		errs = append(errs, err)
	}
	c.checkTracing(wrong)
	c.checkLimits(wrong)
	if _, err := c.GearmanTLS.config(); err != nil {
		wrong("gearman_tls", "%v", err)
	} else if c.GearmanTLS != (GearmanTLS{}) && len(c.Gearman) == 0 {
		wrong("gearman_tls", "is of no use without gearman: the embedded job server has no TLS")
	}
	return errors.Join(errs...)
}

// MarshalYAML says that it is enabled where a field alone says so.
func (t GearmanTLS) MarshalYAML() (any, error) {
	type fields GearmanTLS
	t.Enabled = t != (GearmanTLS{})
	return fields(t), nil
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
		pair, err := keyPair(t.Cert, t.Key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

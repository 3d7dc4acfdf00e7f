package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rs/zerolog"
	"go.yaml.in/yaml/v4"

	gateway "gearman-gateway"
)

// cli is the command line.
type cli struct {
	Serve       serveCmd       `cmd:"" default:"withargs" help:"Serve until SIGINT or SIGTERM (the default)."`
	PrintConfig printConfigCmd `cmd:"" name:"config" help:"Print the configuration that would be used, with secrets masked."`
	Healthcheck healthcheckCmd `cmd:"" help:"Exit 0 if the gateway at --listen is ready, 1 if not."`
	Key         keyCmd         `cmd:"" help:"Make API keys."`
	Sink        sinkCmd        `cmd:"" help:"Receive webhooks, verify them and print them."`
	Version     versionCmd     `cmd:"" help:"Print the version."`
}

// settings are what the commands take that need a configuration. One is nil where neither a flag nor the environment has it: then
// the file's holds, or the default.
type settings struct {
	Config string `help:"YAML file with settings, which flags and the environment go before." env:"GATEWAY_CONFIG" placeholder:"FILE"`

	Listen               []gateway.Door     `help:"Where to serve HTTP (127.0.0.1:8080)." env:"GATEWAY_LISTEN" placeholder:"HOST:PORT|unix:PATH"`
	OpsListen            *gateway.Address   `help:"Where to serve metrics, health and profiles to operators (nowhere)." env:"GATEWAY_OPS_LISTEN" placeholder:"HOST:PORT"`
	TLSCert              *string            `name:"tls-cert" help:"Certificate of TCP listeners (PEM)." env:"GATEWAY_TLS_CERT" placeholder:"FILE"`
	TLSKey               *string            `name:"tls-key" help:"Key of the certificate (PEM)." env:"GATEWAY_TLS_KEY" placeholder:"FILE"`
	TLSClientCA          *string            `name:"tls-client-ca" help:"Certificates that sign those of clients (PEM)." env:"GATEWAY_TLS_CLIENT_CA" placeholder:"FILE"`
	AllowUnauthenticated *bool              `help:"Permit --listen beyond loopback without access control, and --jobserver-listen." env:"GATEWAY_ALLOW_UNAUTHENTICATED"`
	KeysFile             *string            `help:"YAML list of API keys; with one, nobody else may call." env:"GATEWAY_KEYS_FILE" placeholder:"FILE"`
	Hosts                []string           `help:"Names by which browsers may call, besides localhost and IP addresses." env:"GATEWAY_HOSTS" placeholder:"NAME"`
	Gearman              []gateway.Address  `help:"Gearman job servers; none: an embedded one." env:"GATEWAY_GEARMAN" placeholder:"HOST:PORT"`
	GearmanTLS           *bool              `name:"gearman-tls" help:"Speak TLS to the job servers." env:"GATEWAY_GEARMAN_TLS"`
	GearmanTLSCA         *string            `name:"gearman-tls-ca" help:"Trusted certificates (PEM); the system's if not given." env:"GATEWAY_GEARMAN_TLS_CA" placeholder:"FILE"`
	GearmanTLSCert       *string            `name:"gearman-tls-cert" help:"Client certificate (PEM)." env:"GATEWAY_GEARMAN_TLS_CERT" placeholder:"FILE"`
	GearmanTLSKey        *string            `name:"gearman-tls-key" help:"Key of the client certificate (PEM)." env:"GATEWAY_GEARMAN_TLS_KEY" placeholder:"FILE"`
	GearmanTLSServerName *string            `name:"gearman-tls-server-name" help:"Name in the job servers' certificates." env:"GATEWAY_GEARMAN_TLS_SERVER_NAME" placeholder:"NAME"`
	JobserverListen      *gateway.Address   `help:"Where the embedded job server listens (127.0.0.1:4730)." env:"GATEWAY_JOBSERVER_LISTEN" placeholder:"HOST:PORT"`
	Data                 *string            `help:"Directory of the durable records; without one they are in memory only." env:"GATEWAY_DATA" placeholder:"DIR"`
	SyncTimeout          *gateway.Duration  `help:"Default wait of a sync job (30s)." env:"GATEWAY_SYNC_TIMEOUT" placeholder:"DURATION"`
	MaxWait              *gateway.Duration  `help:"Longest wait that a caller may ask for (5m)." env:"GATEWAY_MAX_WAIT" placeholder:"DURATION"`
	MaxWorkload          *gateway.Size      `help:"Largest workload (64MiB)." env:"GATEWAY_MAX_WORKLOAD" placeholder:"SIZE"`
	ResultTTL            *gateway.Duration  `name:"result-ttl" help:"How long results are kept (24h)." env:"GATEWAY_RESULT_TTL" placeholder:"DURATION"`
	Retention            *gateway.Duration  `help:"How long --data keeps the record of a job that has ended (168h)." env:"GATEWAY_RETENTION" placeholder:"DURATION"`
	Drain                *gateway.Duration  `help:"How long work under way may take at the end (20s)." env:"GATEWAY_DRAIN" placeholder:"DURATION"`
	DrainDelay           *gateway.Duration  `help:"How long of --drain new requests are still answered (1s)." env:"GATEWAY_DRAIN_DELAY" placeholder:"DURATION"`
	SinkURL              *string            `name:"sink-url" help:"Webhook sink, in place of the file's." env:"GATEWAY_SINK_URL" placeholder:"URL"`
	SinkSecret           *string            `help:"Secret of --sink-url." env:"GATEWAY_SINK_SECRET" placeholder:"whsec_…"`
	WebhookSchedule      []gateway.Duration `help:"Delay before each attempt of a delivery, 0s first (0s,5s,5m,30m,2h,5h,10h,14h,20h,24h)." env:"GATEWAY_WEBHOOK_SCHEDULE" placeholder:"DURATION"`
	Concurrency          *int               `help:"Jobs that the worker pool runs at a time (8)." env:"GATEWAY_CONCURRENCY" placeholder:"N"`
	Builtin              *bool              `negatable:"" help:"Register the built-in functions (default: only with the embedded job server)." env:"GATEWAY_BUILTIN"`
	TracingEndpoint      *string            `help:"OpenTelemetry collector to send traces to, over OTLP/HTTP." env:"GATEWAY_TRACING_ENDPOINT,OTEL_EXPORTER_OTLP_ENDPOINT" placeholder:"URL"`
	TracingHeaders       *string            `help:"Headers for it, NAME=VALUE with commas between, percent-encoded." env:"GATEWAY_TRACING_HEADERS,OTEL_EXPORTER_OTLP_HEADERS" placeholder:"HEADERS"`
	TracingSample        *float64           `help:"How many of the traces that begin here are sent, from 0 to 1 (1)." env:"GATEWAY_TRACING_SAMPLE" placeholder:"0.1"`
	TracingServiceName   *string            `help:"What the gateway calls itself in traces (gearman-gateway)." env:"GATEWAY_TRACING_SERVICE_NAME,OTEL_SERVICE_NAME" placeholder:"NAME"`
	LogLevel             *gateway.Level     `help:"trace, debug, info, warn, error or disabled (info)." env:"GATEWAY_LOG_LEVEL" placeholder:"LEVEL"`
}

// usageError is a mistake in how the program was called or configured.
type usageError struct{ error }

// loggedError was told in the log, where a plain line would be none of its own.
type loggedError struct{ error }

func exitCode(err error) int {
	if errors.As(err, &usageError{}) {
		return 2
	}
	return 1
}

func run(args []string) error {
	var c cli
	parser, err := kong.New(&c, kong.Name("gateway"), kong.UsageOnError(), kong.Description(
		"An HTTP/JSON gateway for Gearman. Each setting is taken from its flag, else from the environment variable that is named "+
			"with it, else from the YAML file."))
	if err != nil {
		return err
	}
	ctx, err := parser.Parse(args)
	if err != nil {
		return usageError{err}
	}
	return ctx.Run()
}

// config puts the settings together and checks them.
func (c *settings) config() (gateway.Config, error) {
	g, err := c.unchecked()
	if err != nil {
		return g, err
	}
	if err := g.Check(); err != nil {
		return g, usageError{err}
	}
	return g, nil
}

func (c *settings) unchecked() (gateway.Config, error) {
	g := gateway.DefaultConfig()
	g.Version = version
	if c.Config != "" {
		if err := g.ReadFile(c.Config); err != nil {
			return g, usageError{err}
		}
	}
	set(&g.OpsListen, c.OpsListen)
	set(&g.TLS.Cert, c.TLSCert)
	set(&g.TLS.Key, c.TLSKey)
	set(&g.TLS.ClientCA, c.TLSClientCA)
	set(&g.AllowUnauthenticated, c.AllowUnauthenticated)
	set(&g.Auth.KeysFile, c.KeysFile)
	set(&g.GearmanTLS.Enabled, c.GearmanTLS)
	set(&g.GearmanTLS.CA, c.GearmanTLSCA)
	set(&g.GearmanTLS.Cert, c.GearmanTLSCert)
	set(&g.GearmanTLS.Key, c.GearmanTLSKey)
	set(&g.GearmanTLS.ServerName, c.GearmanTLSServerName)
	set(&g.Jobserver.Listen, c.JobserverListen)
	set(&g.Data, c.Data)
	set(&g.SyncTimeout, c.SyncTimeout)
	set(&g.MaxWait, c.MaxWait)
	set(&g.MaxWorkload, c.MaxWorkload)
	set(&g.ResultTTL, c.ResultTTL)
	set(&g.Retention, c.Retention)
	set(&g.Drain, c.Drain)
	set(&g.DrainDelay, c.DrainDelay)
	set(&g.Workers.Concurrency, c.Concurrency)
	set(&g.Tracing.Sample, c.TracingSample)
	set(&g.Tracing.ServiceName, c.TracingServiceName)
	set(&g.LogLevel, c.LogLevel)
	if len(c.Listen) > 0 {
		g.Listen = c.Listen
	}
	if len(c.Hosts) > 0 {
		g.Hosts = c.Hosts
	}
	if len(c.WebhookSchedule) > 0 {
		g.Webhooks.Schedule = c.WebhookSchedule
	}
	if v, set := os.LookupEnv("GATEWAY_LISTEN"); set && v == "" && len(c.Listen) == 0 {
		return g, usageError{errors.New("GATEWAY_LISTEN: is empty; unset it if 127.0.0.1:8080 is meant")}
	}
	if v, set := os.LookupEnv("GATEWAY_GEARMAN"); set && v == "" && len(c.Gearman) == 0 {
		return g, usageError{errors.New("GATEWAY_GEARMAN: is empty; unset it if the embedded job server is meant")}
	}
	if len(c.Gearman) > 0 {
		g.Gearman = c.Gearman
	}
	if c.Builtin != nil {
		g.Workers.Builtin = c.Builtin
	}
	if err := errors.Join(c.sink(&g), c.tracing(&g.Tracing)); err != nil {
		return g, usageError{err}
	}
	return g, nil
}

// sink sets the one sink that flags can name. kong repeats a bad value in its error, and these may be secrets: they are parsed here.
func (c *settings) sink(g *gateway.Config) error {
	switch {
	case c.SinkURL == nil && c.SinkSecret == nil:
		return nil
	case c.SinkURL == nil:
		return errors.New("--sink-secret (GATEWAY_SINK_SECRET): is of no use without --sink-url")
	}
	var sink gateway.Sink
	if err := sink.URL.UnmarshalText([]byte(*c.SinkURL)); err != nil {
		return fmt.Errorf("--sink-url (GATEWAY_SINK_URL): %w", err)
	}
	if c.SinkSecret != nil {
		if err := sink.Secret.UnmarshalText([]byte(*c.SinkSecret)); err != nil {
			return fmt.Errorf("--sink-secret (GATEWAY_SINK_SECRET): %w", err)
		}
	}
	g.Sinks = []gateway.Sink{sink}
	return nil
}

// tracing sets where traces go, which is parsed here for the same reason. The environment of OpenTelemetry is meant for every program: its
// headers alone ask for nothing, and go with its endpoint.
func (c *settings) tracing(t *gateway.Tracing) error {
	if c.TracingEndpoint != nil && *c.TracingEndpoint != "" {
		if err := t.Endpoint.UnmarshalText([]byte(*c.TracingEndpoint)); err != nil {
			return fmt.Errorf("--tracing-endpoint (GATEWAY_TRACING_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT): %w", err)
		}
	}
	if c.TracingHeaders == nil || t.Endpoint == "" {
		return nil
	}
	t.Headers = map[string]gateway.Masked{}
	for pair := range strings.SplitSeq(*c.TracingHeaders, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, found := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !found || err != nil {
			return errors.New("--tracing-headers (GATEWAY_TRACING_HEADERS, OTEL_EXPORTER_OTLP_HEADERS): is not NAME=VALUE with commas between")
		}
		t.Headers[strings.TrimSpace(name)] = gateway.Masked(value)
	}
	return nil
}

func set[T any](to, given *T) {
	if given != nil {
		*to = *given
	}
}

type serveCmd struct{ settings }

// Run serves until a signal.
func (c *serveCmd) Run() error {
	config, err := c.config()
	if err != nil {
		return err
	}
	config.Log = newLog(os.Stderr, zerolog.Level(config.LogLevel))
	config.Reload = c.config
	if err := gateway.Run(context.Background(), config); err != nil {
		config.Log.Error().Err(err).Msg("gateway ends with an error") // whatever LogLevel is
		return loggedError{err}
	}
	return nil
}

type printConfigCmd struct{ settings }

func (c *printConfigCmd) Run() error {
	config, err := c.config()
	if err != nil {
		return err
	}
	b, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(b)
	return err
}

type healthcheckCmd struct{ settings }

// Run does not ask whether the configuration is right: a file that is just being renewed makes no gateway unhealthy that runs.
func (c *healthcheckCmd) Run() error {
	config, err := c.unchecked()
	if err != nil {
		return err
	}
	url, socket := config.ProbeURL()
	// The certificate is for the name that callers use, which is not how this one calls. It asks its own machine, and sends nothing.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	if socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}
	}
	client := http.Client{Timeout: 5 * time.Second, Transport: transport}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz answers %s", resp.Status)
	}
	return nil
}

type sinkCmd struct {
	Listen  gateway.Address `help:"Where to listen (${default})." default:"127.0.0.1:9000" placeholder:"HOST:PORT"`
	Secrets []string        `name:"secret" help:"Secrets of which one must have signed; none: signatures are not asked for." env:"GATEWAY_SINK_SECRET" placeholder:"whsec_…"`

	FailRate *float64         `help:"Refuse so many of the deliveries, from 0 to 1 (0; 1 with --status)." placeholder:"0.3"`
	Status   int              `help:"Answer those that are refused with this status (500)." placeholder:"503"`
	Delay    gateway.Duration `help:"Wait so long before every answer." default:"0s" placeholder:"2s"`
}

// faults reads what is asked for to make the sink a bad one.
func (s *sinkCmd) faults() (f gateway.SinkFaults, err error) {
	f = gateway.SinkFaults{Status: s.Status, Delay: time.Duration(s.Delay)}
	switch {
	case s.FailRate != nil:
		f.Rate = *s.FailRate
	case s.Status != 0:
		f.Rate = 1
	}
	switch {
	case f.Rate < 0 || f.Rate > 1:
		return f, usageError{errors.New("--fail-rate: is not from 0 to 1")}
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return f, usageError{errors.New("--status: is not from 200 to 599")}
	case f.Delay < 0:
		return f, usageError{errors.New("--delay: is less than zero")}
	}
	return f, nil
}

func (s *sinkCmd) Run() error {
	faults, err := s.faults()
	if err != nil {
		return err
	}
	secrets := make([]gateway.Secret, len(s.Secrets))
	for i, text := range s.Secrets {
		if err := secrets[i].UnmarshalText([]byte(text)); err != nil {
			return usageError{fmt.Errorf("--secret (GATEWAY_SINK_SECRET): %w", err)}
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := newLog(os.Stderr, zerolog.InfoLevel)
	return gateway.ServeSink(ctx, s.Listen, secrets, faults, os.Stdout, log)
}

type versionCmd struct{}

func (versionCmd) Run() error {
	_, err := fmt.Println("gateway", version)
	return err
}

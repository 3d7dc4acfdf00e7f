package gateway

import (
	"net/http"
	"net/url"
	"slices"

	"golang.org/x/net/http/httpguts"

	"gearman-gateway/internal/tracing"
)

// Tracing says where OpenTelemetry traces go, over OTLP/HTTP. Without an Endpoint, nowhere.
type Tracing struct {
	Endpoint    URL               `yaml:"endpoint"`          // of the collector, such as http://127.0.0.1:4318
	Headers     map[string]Masked `yaml:"headers,omitempty"` // sent along
	Sample      float64           `yaml:"sample"`            // how many of the traces that begin here are sent, from 0 to 1
	ServiceName string            `yaml:"service_name"`      // what the gateway calls itself
}

// ownHeaders say how the body is to be read.
var ownHeaders = []string{"Content-Type", "Content-Encoding", "Content-Length", "Transfer-Encoding", "Connection", "Host"}

// checkTracing looks at what is told of traces. What is wrong with a header does not repeat its value.
func (c *Config) checkTracing(wrong func(key, format string, args ...any)) {
	t := c.Tracing
	if !(t.Sample >= 0 && t.Sample <= 1) { // NaN is neither
		wrong("tracing.sample", "%v is not from 0 to 1", t.Sample)
	}
	for name, value := range t.Headers {
		switch {
		case !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(string(value)):
			wrong("tracing.headers", "%q is no header, or its value is none", name)
		case slices.Contains(ownHeaders, http.CanonicalHeaderKey(name)):
			wrong("tracing.headers", "%s is set by the gateway", name)
		}
	}
	if t.Endpoint == "" {
		if len(t.Headers) > 0 {
			wrong("tracing.headers", "are of no use without tracing.endpoint")
		}
		return
	}
	u, err := url.Parse(string(t.Endpoint))
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		wrong("tracing.endpoint", "has more than a host, a port and a path; credentials go to tracing.headers")
		return
	}
	if u.Scheme == "http" && len(t.Headers) > 0 && !isLoopback(u.Hostname()) {
		wrong("tracing.headers", "would be sent to %s in the clear; use https", u.Host)
	}
}

// tracer returns nil where there are to be no traces.
func (c *Config) tracer() (*tracing.Tracer, error) {
	t := c.Tracing
	if t.Endpoint == "" {
		return nil, nil
	}
	headers := make(map[string]string, len(t.Headers))
	for name, value := range t.Headers {
		headers[name] = string(value)
	}
	return tracing.New(tracing.Options{
		Endpoint: string(t.Endpoint), Headers: headers, Sample: t.Sample, Service: t.ServiceName, Version: c.Version, Log: c.Log,
	})
}

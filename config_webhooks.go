package gateway

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

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
		if s.name() == webhook.CallbacksName {
			wrong(key+".name", "%q is that of the deliveries of callbacks", s.name())
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

func (c *Config) webhookOptions() webhook.Options {
	o := webhook.Options{Log: c.Log, DisableAfter: time.Duration(c.Webhooks.DisableAfter)}
	for _, d := range c.Webhooks.Schedule {
		o.Schedule = append(o.Schedule, time.Duration(d))
	}
	for _, s := range c.Sinks {
		o.Sinks = append(o.Sinks, webhook.SinkOptions{
			Name: s.Name, URL: string(s.URL), Secrets: secrets(s.Secret, s.Secrets), Events: s.Events, Functions: s.Functions,
			Timeout: time.Duration(cmp.Or(s.Timeout, c.Webhooks.Timeout)), Concurrency: s.Concurrency, Headers: s.headers(),
			ContentType: s.ContentType, Rate: s.Rate,
		})
	}
	if cb := c.Callbacks; len(cb.Hosts) > 0 {
		o.Callbacks = &webhook.CallbackOptions{
			Hosts: cb.Hosts, Allow: cb.Allow, Secrets: secrets(cb.Secret, cb.Secrets), Concurrency: cb.Concurrency,
			Timeout: time.Duration(cmp.Or(cb.Timeout, c.Webhooks.Timeout)),
		}
	}
	return o
}

// secrets returns the one and the others, of which any may be missing.
func secrets(one Secret, more []Secret) []Secret {
	if one.String() == "" {
		return more
	}
	return append([]Secret{one}, more...)
}

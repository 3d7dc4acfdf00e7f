package httpapi

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

// Bounds of a callback, which is stored with its job. Where it may lead is for Webhooks to say.
const (
	maxCallbackURL    = 2048 // bytes
	maxCallbackEvents = 32
)

// callback reads the member of that name. What has a mistake is not kept: the rules have nothing to say of it.
func (e *envelope) callback(s *submission) error {
	var c event.Callback
	known := len(e.mistakes)
	err := e.members(func(name string) error {
		switch name {
		case "url":
			return e.callbackURL(&c)
		case "events":
			return e.callbackEvents(&c)
		}
		e.mistake("is not a member of callback", "callback", name)
		return e.dec.SkipValue()
	}, "callback")
	switch {
	case err != nil:
		return err
	case len(e.mistakes) > known:
	case c.URL == "":
		e.mistake("is missing", "callback", "url")
	default:
		s.callback = &c
	}
	return nil
}

func (e *envelope) callbackURL(c *event.Callback) error {
	value, err := e.value()
	if err != nil {
		return err
	}
	if value.Kind() != jsontext.KindString {
		e.mistake("must be a string", "callback", "url")
		return nil
	}
	c.URL = string(unquote(value))
	if err := checkCallbackURL(c.URL); err != nil {
		e.mistake(err.Error(), "callback", "url")
	}
	return nil
}

func (e *envelope) callbackEvents(c *event.Callback) error {
	if e.dec.PeekKind() != jsontext.KindBeginArray {
		e.mistake("must be an array of types of events", "callback", "events")
		return e.dec.SkipValue()
	}
	if _, err := e.dec.ReadToken(); err != nil {
		return err
	}
	c.Events = event.Patterns{}
	n := 0
	for ; e.dec.PeekKind() != jsontext.KindEndArray; n++ {
		value, err := e.value()
		switch {
		case err != nil:
			return err
		case n >= maxCallbackEvents: // they are counted, and no more
		case value.Kind() != jsontext.KindString:
			e.mistake("must be a string", "callback", "events", strconv.Itoa(n))
		default:
			c.Events = append(c.Events, string(unquote(value)))
			if err := c.Events[len(c.Events)-1:].Check(); err != nil {
				e.mistake("is no type of event, nor a prefix of any such as job.*", "callback", "events", strconv.Itoa(n))
			}
		}
	}
	if n == 0 || n > maxCallbackEvents {
		e.mistake(fmt.Sprintf("must have from 1 to %d members", maxCallbackEvents), "callback", "events")
	}
	_, err := e.dec.ReadToken()
	return err
}

func checkCallbackURL(s string) error {
	switch {
	case s == "":
		return errors.New("must not be empty")
	case len(s) > maxCallbackURL:
		return fmt.Errorf("must have at most %d bytes", maxCallbackURL)
	}
	return nil
}

// callbackOf reads the callback that the parameters of a query are, and takes them out of it.
func callbackOf(q url.Values) (c *event.Callback, m mistakes) {
	if q.Has("callback") {
		c = &event.Callback{URL: q.Get("callback")}
		if err := checkCallbackURL(c.URL); err != nil {
			m = m.note("callback", err.Error())
		}
	}
	if q.Has("callback_events") {
		patterns, err := parsePatterns(q.Get("callback_events"))
		switch {
		case err != nil:
			m = m.note("callback_events", err.Error())
		case len(patterns) > maxCallbackEvents:
			m = m.note("callback_events", fmt.Sprintf("must be at most %d", maxCallbackEvents))
		case c == nil:
			m = m.note("callback_events", "is nothing without callback")
		default:
			c.Events = patterns
		}
	}
	q.Del("callback")
	q.Del("callback_events")
	if m != nil {
		return nil, m
	}
	return c, nil
}

// parsePatterns reads a list of types of events, or of prefixes, with commas between.
func parsePatterns(s string) (event.Patterns, error) {
	patterns := event.Patterns(strings.Split(s, ","))
	return patterns, patterns.Check()
}

// checkCallback asks whether the callback of s is allowed, and completes it. What is wrong is a mistake of its member.
func (a *API) checkCallback(s *submission) *webhook.CallbackError {
	if s.callback == nil {
		return nil
	}
	whole := *s.callback // the fingerprint is of what was written
	if err := a.o.Webhooks.CheckCallback(&whole); err != nil {
		if wrong, ok := errors.AsType[*webhook.CallbackError](err); ok {
			return wrong
		}
		return &webhook.CallbackError{Member: "url", Detail: "cannot be used"} // Webhooks has no other error
	}
	s.notify = &whole
	return nil
}

// appendCallback appends a job's callback. Its URL may hold secrets, as what a receiver knows its callers by.
func appendCallback(b []byte, c *event.Callback) []byte {
	if c == nil {
		return append(b, "null"...)
	}
	b = append(b, `{"url":`...)
	b = appendString(b, maskURL(c.URL))
	b = append(b, `,"events":[`...)
	for i, pattern := range c.Events {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, pattern)
	}
	return append(b, "]}"...)
}

// mask stands where something is not shown.
const mask = "xxxxx"

// maskURL returns an absolute URL without the user, the query and the fragment that it may have.
func maskURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" {
		return mask
	}
	if u.User != nil {
		u.User = url.User(mask)
	}
	if u.RawQuery != "" {
		u.RawQuery = mask
	}
	u.Fragment, u.RawFragment = "", ""
	return u.String()
}

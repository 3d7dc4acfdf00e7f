package handler

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gearman-gateway/internal/workerpool"
)

// HTTPOptions say where a handler posts its jobs. Only URL is needed.
type HTTPOptions struct {
	URL         string      // http or https; user and password in it are sent as basic authentication
	ContentType string      // of workloads; "": application/octet-stream
	Header      http.Header // added to each request, which those of the job replace
	// Sign returns headers that prove where a request comes from, such as those of Standard Webhooks. id is the job's ID, or its
	// handle if it has none; body must not be changed. nil: requests are not signed.
	Sign      func(id string, at time.Time, body []byte) http.Header
	Timeout   time.Duration // for the whole answer; 0: as long as the job may run
	MaxResult int64         // bytes of an answer's body; 0: 64 MiB
	MaxIdle   int           // connections kept open between jobs; 0: 16
	TLS       *tls.Config   // may be nil
}

const (
	maxPause  = time.Hour   // however much patience an answer asks for
	maxDrain  = 64 << 10    // bytes of a refusal that are read, so that its connection can be used again
	maxReason = 1 << 10     // bytes of a refusal that are kept in the error
	dialTime  = time.Minute // to connect, TLS included, twice; a job without a timeout must not wait forever for that
)

// HTTP is a handler that posts each job's workload to a URL and takes the body of the answer for the result.
type HTTP struct {
	o     HTTPOptions
	url   *url.URL
	shown string // the URL without what may be secret
	// No http.Client: it would follow redirects, or at least read where they lead, and write the URL into its errors.
	client *http.Transport
}

// StatusError is an answer that is no result.
type StatusError struct {
	Code int
	url  string
	body string
}

func (e *StatusError) Error() string {
	return lastWords(strings.TrimSpace(fmt.Sprintf("POST %s: answered %d %s", e.url, e.Code, http.StatusText(e.Code))), e.body)
}

// NewHTTP returns a handler that posts to a URL, with the headers X-Job-Id, X-Job-Handle, X-Job-Unique, X-Job-Function, X-Job-Attempt,
// X-Job-Deadline (RFC 3339, UTC) and traceparent, as far as they are known and a header can have them. It keeps connections open until Close; it does
// not follow redirects, and does not look for a proxy in the environment.
//
// A body with a 2xx status is the result. 429 and 503, and a connection that is not made or breaks, are a RetryError with the pause
// that Retry-After asks for, at most an hour; other 4xx are a NeverRetryError; everything else, redirects included, is a
// StatusError. An answer that takes longer than Timeout is an error of kind "timeout". A request whose connection broke may have been
// run all the same: so it is never sent twice by itself.
func NewHTTP(o HTTPOptions) (*HTTP, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("the URL cannot be read") // why would repeat it
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not an absolute http or https URL", redacted(u))
	}
	for key, values := range o.Header {
		if key == "" || strings.ContainsFunc(key, notInToken) || !printable(strings.Join(values, "")) {
			return nil, fmt.Errorf("%q is no header, or its value has line ends or control characters", key)
		}
	}
	if o.MaxResult < 0 || o.Timeout < 0 || o.MaxIdle < 0 {
		return nil, errors.New("a limit is negative")
	}
	o.ContentType = cmp.Or(o.ContentType, "application/octet-stream")
	o.MaxResult = cmp.Or(o.MaxResult, defaultMaxResult)
	o.MaxIdle = cmp.Or(o.MaxIdle, 16)
	h := &HTTP{o: o, url: u, shown: redacted(u)}
	h.client = &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTime}).DialContext,
		TLSClientConfig:     o.TLS,
		TLSHandshakeTimeout: dialTime,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true, // the result is what was sent
		MaxIdleConns:        o.MaxIdle,
		MaxIdleConnsPerHost: o.MaxIdle,
		IdleConnTimeout:     time.Minute,
	}
	return h, nil
}

// notInToken says that a header's name cannot have the character.
func notInToken(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
}

// Close closes the connections that are kept open. Jobs that run go on.
func (h *HTTP) Close() { h.client.CloseIdleConnections() }

// Run posts one job.
func (h *HTTP) Run(ctx context.Context, j *workerpool.Job) ([]byte, error) {
	if h.o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, h.o.Timeout, &noAnswer{h.o.Timeout})
		defer cancel()
	}
	req, err := h.request(ctx, j)
	if err != nil {
		return nil, h.explain(err)
	}
	resp, err := h.client.RoundTrip(req)
	if err != nil {
		return nil, h.broken(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return nil, h.refused(resp)
	}
	result, err := io.ReadAll(io.LimitReader(resp.Body, h.o.MaxResult+1))
	if int64(len(result)) > h.o.MaxResult {
		return nil, tooLarge(h.o.MaxResult)
	}
	if err != nil {
		return nil, h.broken(ctx, err)
	}
	return result, nil
}

// noAnswer is the cause of a context that ended after Timeout.
type noAnswer struct{ after time.Duration }

func (e *noAnswer) Error() string { return fmt.Sprintf("no answer within %v", e.after) }

// Kind is the kind of the failure in the job's record.
func (e *noAnswer) Kind() string { return "timeout" }

// Unwrap makes it a timeout for whoever asks with errors.Is.
func (e *noAnswer) Unwrap() error { return context.DeadlineExceeded }

func (h *HTTP) request(ctx context.Context, j *workerpool.Job) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url.String(), bytes.NewReader(j.Workload))
	if err != nil {
		return nil, err
	}
	set := func(key, value string) {
		if value != "" && printable(value) {
			req.Header.Set(key, value)
		}
	}
	if u := h.url.User; u != nil {
		password, _ := u.Password()
		req.SetBasicAuth(u.Username(), password)
	}
	set("User-Agent", "gearman-gateway")
	for key, values := range h.o.Header {
		req.Header[http.CanonicalHeaderKey(key)] = values
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	set("Content-Type", h.o.ContentType)
	set("X-Job-Id", j.ID)
	set("X-Job-Handle", j.Handle)
	set("X-Job-Unique", j.Unique)
	set("X-Job-Function", j.Function)
	if j.Attempt > 0 {
		set("X-Job-Attempt", strconv.Itoa(j.Attempt))
	}
	set("X-Job-Deadline", deadline(ctx, j))
	set("Traceparent", j.Traceparent)
	if h.o.Sign != nil {
		for key, values := range h.o.Sign(cmp.Or(j.ID, j.Handle), time.Now(), j.Workload) {
			req.Header[http.CanonicalHeaderKey(key)] = values
		}
	}
	return req, nil
}

// printable says whether a header can have the value: job servers let a unique be almost anything.
func printable(value string) bool {
	return !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// broken says what it means that there was no whole answer.
func (h *HTTP) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return h.explain(context.Cause(ctx))
	}
	return retry(0, h.explain(err))
}

// explain says where err happened.
func (h *HTTP) explain(err error) error { return fmt.Errorf("POST %s: %w", h.shown, err) }

// refused says what an answer that is no result means for the job.
func (h *HTTP) refused(resp *http.Response) error {
	var body []byte
	if resp.StatusCode != http.StatusSwitchingProtocols { // whose body is the connection itself, and does not end with the job's context
		body, _ = io.ReadAll(io.LimitReader(resp.Body, maxReason))
		_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
	}
	err := &StatusError{Code: resp.StatusCode, url: h.shown, body: reason(body)}
	switch {
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusServiceUnavailable:
		return retry(retryAfter(resp.Header.Get("Retry-After"), time.Now()), err)
	case resp.StatusCode/100 == 4:
		return &workerpool.NeverRetryError{Err: err}
	}
	return err
}

// reason returns the beginning of a body if it is text.
func reason(body []byte) string {
	for cut := 0; cut < utf8.UTFMax && !utf8.Valid(body) && len(body) > 0; cut++ {
		body = body[:len(body)-1] // the last character may have been cut
	}
	if !utf8.Valid(body) || bytes.ContainsRune(body, 0) {
		return ""
	}
	return strings.TrimSpace(string(body))
}

// retryAfter reads the header, seconds or a date; 0 where it says nothing.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(seconds, uint64(maxPause/time.Second))) * time.Second
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxPause)
}

// redacted returns u without what may be secret: the user, the password, the query and the fragment.
func redacted(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

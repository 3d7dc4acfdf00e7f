package webhook

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"gearman-gateway/internal/tracing"
)

const (
	minPause  = time.Second // after an answer that asks for patience without saying how much
	maxPause  = time.Hour   // however much it asks for
	maxAnswer = 4 << 10     // bytes of an answer that are kept
	maxDrain  = 64 << 10    // bytes of an answer that are read, so that its connection can be used again
)

// poster makes attempts. It is safe for concurrent use.
type poster struct {
	sink        string          // whose they are
	tracer      *tracing.Tracer // may be nil
	client      *http.Client
	timeout     time.Duration
	secrets     []Secret
	headers     map[string]string
	contentType string
}

// target is where an attempt goes.
type target struct {
	url   string // with its secrets
	shown string // without
	scrub scrubber
}

// outcome is an attempt and what follows from it. Its Error is "" if the letter is delivered.
type outcome struct {
	Attempt
	gone  bool          // there is no point in sending anything there any more
	after time.Duration // for how long it wants to be left alone, all deliveries included
}

// send makes one attempt.
//
// 2xx is success. 410 Gone is the end of the sink. 429, 502, 503 and 504 ask for patience. Everything else, other refusals and
// redirects included, may be mended by the sink's owner before the schedule is through.
func (p *poster) send(ctx context.Context, to target, l Letter) outcome {
	o := outcome{Attempt: Attempt{At: time.Now()}}
	span := p.tracer.Deliver(l.Traceparent, tracing.Delivery{
		Sink: p.sink, EventType: string(l.Type), EventID: l.EventID, URL: to.url, Attempts: l.Attempts,
	})
	l.Traceparent = cmp.Or(span.Traceparent(), l.Traceparent)
	err := p.post(ctx, to, l, &o)
	o.Duration = time.Since(o.At)
	if err != nil {
		o.Error = to.scrub.text(err.Error())
	}
	span.Delivered(o.Status, o.Error)
	return o
}

func (p *poster) post(ctx context.Context, to target, l Letter, o *outcome) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, fmt.Errorf("no answer within %v", p.timeout))
	defer cancel()
	req, err := p.request(ctx, to, l, o.At)
	if err != nil {
		return explain(ctx, to, err)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return explain(ctx, to, err)
	}
	o.Status = resp.StatusCode
	o.Answer = to.scrub.beginning(read(resp, to.scrub.needs(maxAnswer)), maxAnswer)
	switch resp.StatusCode {
	case http.StatusGone:
		o.gone = true
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		o.after = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	switch resp.StatusCode / 100 {
	case 2:
		return nil
	case 3:
		return fmt.Errorf("POST %s: answered %d %s, and redirects are not followed", to.shown, resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return fmt.Errorf("POST %s: answered %d %s", to.shown, resp.StatusCode, http.StatusText(resp.StatusCode))
}

// request makes the POST of one attempt: timestamp and signature are of this moment, the rest is the same every time.
func (p *poster) request(ctx context.Context, to target, l Letter, now time.Time) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.url, bytes.NewReader(l.Body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "gearman-gateway")
	for name, value := range p.headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", p.contentType)
	maps.Copy(req.Header, Sign(p.secrets, l.EventID, now, l.Body))
	if l.Traceparent != "" {
		req.Header.Set("Traceparent", l.Traceparent)
	}
	// Nil is not sent. It allows the transport to send again at once when the sink closed a kept connection in the same moment.
	if _, configured := req.Header["Idempotency-Key"]; !configured {
		req.Header["Idempotency-Key"] = nil
	}
	return req, nil
}

// explain returns err with the cause of a timeout, and without the URL, which http.Client puts into it with its query.
func explain(ctx context.Context, to target, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return fmt.Errorf("POST %s: %w", to.shown, err)
}

// noRedirect makes a redirect the answer: following it could lead anywhere, and drop the body on the way.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// read returns the beginning of an answer's body, reads the rest if there is little, and closes it. Errors are of no interest: the status
// has said what counts. After 101 there would be no end, since the connection is no longer the client's, nor the timeout on it.
func read(resp *http.Response, most int) (answer []byte) {
	if resp.StatusCode != http.StatusSwitchingProtocols {
		answer, _ = io.ReadAll(io.LimitReader(resp.Body, int64(most)))
		_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
	}
	_ = resp.Body.Close()
	return answer
}

// retryAfter reads the header, seconds or a date, and keeps it between minPause and maxPause.
func retryAfter(header string, now time.Time) time.Duration {
	pause := minPause
	if seconds, err := strconv.ParseUint(header, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		pause = time.Duration(min(seconds, uint64(maxPause/time.Second))) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		pause = at.Sub(now)
	}
	return min(max(pause, minPause), maxPause)
}

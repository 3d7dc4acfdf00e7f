package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	minPause = time.Second // after an answer that asks for patience without saying how much
	maxPause = time.Hour   // however much it asks for
	maxDrain = 64 << 10    // bytes of an answer that are read, so that its connection can be used again
)

// attempt sends m once and decides what follows. No error: m is delivered. Otherwise, retry says whether there is any point
// in sending to the sink again, and after for how long it wants to be left alone, all deliveries included.
//
// 2xx is success. 410 Gone is the end of the sink. 429, 502, 503 and 504 ask for patience. Everything else, other refusals and
// redirects included, may be mended by the sink's owner before the schedule is through.
func (k *sink) attempt(ctx context.Context, m *message) (retry bool, after time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, k.timeout, fmt.Errorf("no answer within %v", k.timeout))
	defer cancel()
	req, err := k.request(ctx, m)
	if err != nil {
		return true, 0, k.explain(ctx, err)
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return true, 0, k.explain(ctx, err)
	}
	defer drain(resp.Body)
	if resp.StatusCode/100 == 2 {
		return false, 0, nil
	}
	err = fmt.Errorf("POST %s: answered %d %s", k.shown, resp.StatusCode, http.StatusText(resp.StatusCode))
	switch resp.StatusCode {
	case http.StatusGone:
		return false, 0, err
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true, retryAfter(resp.Header.Get("Retry-After"), time.Now()), err
	}
	return true, 0, err
}

// request makes the POST of one attempt: timestamp and signature are of this moment, the rest is the same every time.
func (k *sink) request(ctx context.Context, m *message) (*http.Request, error) {
	body := m.bytes()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, k.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", "gearman-gateway")
	req.Header.Set(headerID, m.id)
	req.Header.Set(headerTimestamp, timestamp)
	if len(k.secrets) > 0 {
		req.Header.Set(headerSignature, signAll(k.secrets, m.id, timestamp, body))
	}
	// Not sent. It allows the transport to send again at once when the sink closed a kept connection in the same moment.
	req.Header["Idempotency-Key"] = nil
	return req, nil
}

// explain returns err with the cause of a timeout, and without the URL, which http.Client puts into it with its query.
func (k *sink) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return fmt.Errorf("POST %s: %w", k.shown, err)
}

// redacted returns u without what may be secret: the user, the password, the query and the fragment.
func redacted(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, maxDrain)
	_ = body.Close()
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

package handler_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/handler"
	"gearman-gateway/internal/workerpool"
)

func newHTTP(t *testing.T, o handler.HTTPOptions) *handler.HTTP {
	t.Helper()
	h, err := handler.NewHTTP(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// serve starts a server that is closed after the handlers that use it.
func serve(t *testing.T, f http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s
}

func TestAJobIsPosted(t *testing.T) {
	var got *http.Request
	var body []byte
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte("result\x00\xff"))
	})
	h := newHTTP(t, handler.HTTPOptions{
		URL: strings.Replace(s.URL, "://", "://user:pass@", 1) + "/path?token=x", ContentType: "image/png",
		Header: http.Header{"x-extra": {"a", "b"}, "User-Agent": {"mine"}, "X-Job-Id": {"not this"}, "Host": {"inside.example"}},
		Sign: func(id string, at time.Time, body []byte) http.Header {
			return http.Header{"webhook-id": {id}, "Webhook-Signature": {fmt.Sprintf("of %q: %t", body, time.Since(at) < deadline)}}
		},
	})
	at := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	result, err := h.Run(t.Context(), &workerpool.Job{
		ID: "id", Handle: "H:x:1", Unique: "u", Function: "f", Workload: []byte("w\x00\xff"), Attempt: 2, Deadline: at, Traceparent: "00-1-2-01",
	})
	if err != nil || string(result) != "result\x00\xff" || string(body) != "w\x00\xff" || got.Method != http.MethodPost || got.RequestURI != "/path?token=x" {
		t.Fatalf("%q, %v; %+v %q", result, err, got, body)
	}
	want := http.Header{
		"Content-Type": {"image/png"}, "Content-Length": {"3"}, "X-Extra": {"a", "b"}, "User-Agent": {"mine"},
		"X-Job-Id": {"id"}, "X-Job-Handle": {"H:x:1"}, "X-Job-Unique": {"u"}, "X-Job-Function": {"f"}, "X-Job-Attempt": {"2"},
		"X-Job-Deadline": {"2027-01-02T03:04:05Z"}, "Traceparent": {"00-1-2-01"},
		"Webhook-Id": {"id"}, "Webhook-Signature": {`of "w\x00\xff": true`}, "Authorization": {"Basic dXNlcjpwYXNz"},
	}
	if diff := cmp.Diff(want, got.Header); diff != "" || got.Host != "inside.example" {
		t.Errorf("%s; host %s", diff, got.Host)
	}
}

func TestAForeignClientsJobIsPosted(t *testing.T) {
	var got http.Header
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header })
	h := newHTTP(t, handler.HTTPOptions{URL: s.URL, Sign: func(id string, _ time.Time, _ []byte) http.Header {
		return http.Header{"Webhook-Id": {id}}
	}})
	result, err := h.Run(t.Context(), &workerpool.Job{Handle: "H:x:1", Function: "f", Unique: "not\na header"})
	if err != nil || len(result) > 0 {
		t.Errorf("%q, %v", result, err)
	}
	want := http.Header{
		"Content-Type": {"application/octet-stream"}, "Content-Length": {"0"}, "User-Agent": {"gearman-gateway"},
		"X-Job-Handle": {"H:x:1"}, "X-Job-Function": {"f"}, "Webhook-Id": {"H:x:1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What an error means for the job.
const (
	fails = iota
	retries
	never
)

func verdictOf(err error) (verdict int, after time.Duration) {
	if r, ok := errors.AsType[*workerpool.RetryError](err); ok {
		return retries, r.After
	}
	if errors.As(err, new(*workerpool.NeverRetryError)) {
		return never, 0
	}
	return fails, 0
}

func TestAnswersThatAreNoResult(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if after := q.Get("after"); after != "" {
			w.Header().Set("Retry-After", after)
		}
		w.Header().Set("Location", q.Get("to"))
		var code int
		_, _ = fmt.Sscan(q.Get("code"), &code)
		w.WriteHeader(code)
		_, _ = w.Write([]byte(q.Get("body")))
	})
	inAMinute := strings.ReplaceAll(time.Now().Add(time.Minute).UTC().Format(http.TimeFormat), " ", "+")
	for _, test := range []struct {
		query       string
		verdict     int
		least, most time.Duration
		text        string
	}{
		{"code=400&body=no+such+image%0a", never, 0, 0, "answered 400 Bad Request: no such image"},
		{"code=404", never, 0, 0, "answered 404 Not Found"},
		{"code=410", never, 0, 0, "answered 410 Gone"},
		{"code=429", retries, 0, 0, "answered 429 Too Many Requests"},
		{"code=429&after=7", retries, 7 * time.Second, 7 * time.Second, "answered 429 Too Many Requests"},
		{"code=503&after=99999999999999999999999", retries, time.Hour, time.Hour, "answered 503 Service Unavailable"},
		{"code=503&after=soon", retries, 0, 0, "answered 503 Service Unavailable"},
		{"code=503&after=" + inAMinute, retries, 20 * time.Second, time.Minute, "answered 503 Service Unavailable"},
		{"code=503&after=Sun,+06+Nov+1994+08:49:37+GMT", retries, 0, 0, "answered 503 Service Unavailable"},
		{"code=500&body=%ff%00", fails, 0, 0, "answered 500 Internal Server Error"},
		{"code=502", fails, 0, 0, "answered 502 Bad Gateway"},
		{"code=302&to=/elsewhere", fails, 0, 0, "answered 302 Found"},
		{"code=307&to=%25zz://", fails, 0, 0, "answered 307 Temporary Redirect"},
		{"code=599&body=" + strings.Repeat("%c3%a9", 5000), fails, 0, 0, "answered 599: " + strings.Repeat("é", 512)},
	} {
		secret := "user:secret@"
		h := newHTTP(t, handler.HTTPOptions{URL: strings.Replace(s.URL, "://", "://"+secret, 1) + "/p?" + test.query})
		result, err := h.Run(t.Context(), &workerpool.Job{})
		if err == nil || result != nil {
			t.Fatalf("%s: %q, %v", test.query, result, err)
		}
		if want := "POST " + s.URL + "/p: " + test.text; err.Error() != want {
			t.Errorf("%s: %.200q, want %.200q", test.query, err, want)
		}
		if v, after := verdictOf(err); v != test.verdict || after < test.least || after > test.most {
			t.Errorf("%s: %d after %v", test.query, v, after)
		}
		status, ok := errors.AsType[*handler.StatusError](err)
		if !ok || !strings.HasPrefix(test.query, fmt.Sprint("code=", status.Code)) {
			t.Errorf("%s: %v", test.query, status)
		}
	}
}

func TestConnectionsThatBreakAskForARetry(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := ln.Addr().String()
	ln.Close()
	var requests atomic.Int32
	hijack := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			requests.Add(1)
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = c.Write([]byte(answer))
			_ = c.Close()
		}
	}
	for what, url := range map[string]string{
		"refused":         "http://" + closed + "/p?secret",
		"no answer":       serve(t, hijack("")).URL + "/p?secret",
		"no HTTP":         serve(t, hijack("SSH-2.0-OpenSSH\r\n\r\n")).URL + "/p?secret",
		"half a result":   serve(t, hijack("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")).URL + "/p?secret",
		"a broken header": serve(t, hijack("HTTP/1.1 200 OK\r\nContent-Le")).URL + "/p?secret",
	} {
		requests.Store(0)
		_, err := newHTTP(t, handler.HTTPOptions{URL: url}).Run(t.Context(), &workerpool.Job{Workload: []byte("w")})
		if v, _ := verdictOf(err); v != retries || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", what, err)
		}
		if requests.Load() > 1 {
			t.Errorf("%s: sent %d times", what, requests.Load())
		}
	}
}

func TestAnAnswerThatDoesNotCome(t *testing.T) {
	stop := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			_, _ = w.Write([]byte("half"))
			_ = http.NewResponseController(w).Flush()
		}
		<-stop
	})
	t.Cleanup(func() { close(stop) })
	for _, path := range []string{"/head", "/body"} {
		h := newHTTP(t, handler.HTTPOptions{URL: s.URL + path + "?secret", Timeout: 50 * time.Millisecond})
		_, err := h.Run(t.Context(), &workerpool.Job{})
		kind, ok := errors.AsType[interface {
			error
			Kind() string
		}](err)
		if want := "POST " + s.URL + path + ": no answer within 50ms"; err == nil || err.Error() != want || !ok || kind.Kind() != "timeout" {
			t.Errorf("%v, want %s", err, want)
		}
		if v, _ := verdictOf(err); v != fails || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, workerpool.ErrDeadline)
		_, err = newHTTP(t, handler.HTTPOptions{URL: s.URL + path}).Run(ctx, &workerpool.Job{})
		cancel()
		if v, _ := verdictOf(err); v != fails || !errors.Is(err, workerpool.ErrDeadline) {
			t.Errorf("%v", err)
		}
	}
}

func TestASwitchOfProtocolsIsNotWaitedFor(t *testing.T) {
	stop := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n"))
		<-stop
	})
	t.Cleanup(func() { close(stop) })
	ended := make(chan error, 1)
	go func() {
		_, err := newHTTP(t, handler.HTTPOptions{URL: s.URL, Timeout: 50 * time.Millisecond}).Run(t.Context(), &workerpool.Job{})
		ended <- err
	}()
	select {
	case err := <-ended:
		if status, ok := errors.AsType[*handler.StatusError](err); !ok || status.Code != http.StatusSwitchingProtocols {
			t.Errorf("%v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the job does not end")
	}
}

func TestABodyIsBounded(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		chunk := make([]byte, 1<<10)
		for sent := 0; sent < 1<<10 || r.URL.Path == "/flood"; sent += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	if got, err := newHTTP(t, handler.HTTPOptions{URL: s.URL, MaxResult: 1 << 10}).Run(t.Context(), &workerpool.Job{}); err != nil || len(got) != 1<<10 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	got, err := newHTTP(t, handler.HTTPOptions{URL: s.URL + "/flood", MaxResult: 1 << 10}).Run(t.Context(), &workerpool.Job{})
	if !errors.Is(err, handler.ErrTooLarge) || got != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	var connections atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fails" {
			http.Error(w, "no", http.StatusBadRequest)
		}
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	for _, path := range []string{"", "/fails"} {
		connections.Store(0)
		h := newHTTP(t, handler.HTTPOptions{URL: s.URL + path})
		for range 10 {
			_, _ = h.Run(t.Context(), &workerpool.Job{Workload: []byte("w")})
		}
		if connections.Load() != 1 {
			t.Errorf("%q: %d connections", path, connections.Load())
		}
	}
}

func TestTheEnvironmentsProxyIsNotAsked(t *testing.T) {
	proxied := make(chan string, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			line, _ := bufio.NewReader(c).ReadString('\n')
			proxied <- line
			_ = c.Close()
		}
	}()
	t.Setenv("HTTP_PROXY", "http://"+ln.Addr().String())
	h := newHTTP(t, handler.HTTPOptions{URL: "http://host.invalid/"})
	_, err = h.Run(t.Context(), &workerpool.Job{})
	if v, _ := verdictOf(err); v != retries {
		t.Errorf("%v", err)
	}
	select {
	case line := <-proxied:
		t.Errorf("the proxy was asked for %q", line)
	default:
	}
}

func TestHTTPOptionsThatMakeNoSense(t *testing.T) {
	for _, o := range []handler.HTTPOptions{
		{},
		{URL: "ftp://secret@x/"},
		{URL: "/path"},
		{URL: "http://"},
		{URL: "http://secret:x%zz@host/"},
		{URL: "http://x/", MaxResult: -1},
		{URL: "http://x/", Timeout: -1},
		{URL: "http://x/", Header: http.Header{"a b": {"c"}}},
		{URL: "http://x/", Header: http.Header{"a": {"secret\r\nb: c"}}},
	} {
		if _, err := handler.NewHTTP(o); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

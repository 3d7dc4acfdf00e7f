package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gearman-gateway/internal/ledger"
)

func TestPathsAndMethods(t *testing.T) {
	c := newClient(t, Options{})
	c.has(completed(ledger.Task{Function: "f"}, nil))
	for _, path := range []string{"/", "/job", "/jobs/", "/jobs/x/", "/jobs/x/y", "/functions/", "/functions/a/b", "/livez/", "//jobs"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodOptions, "FOO"} {
			wantProblem(t, c.do(method, path, ""), notFound)
		}
	}
	for target, allow := range map[string]string{
		"DELETE /jobs":       "GET, HEAD, POST, OPTIONS",
		"POST /jobs/x":       "GET, HEAD, DELETE, OPTIONS",
		"FOO /jobs/x":        "GET, HEAD, DELETE, OPTIONS",
		"GET /jobs/x/retry":  "POST, OPTIONS",
		"PUT /jobs/x/events": "GET, HEAD, OPTIONS",
		"GET /functions/a":   "POST, OPTIONS",
		"PUT /functions/a":   "POST, OPTIONS",
		"POST /functions":    "GET, HEAD, OPTIONS",
		"OPTIONS /jobs":      "GET, HEAD, POST, OPTIONS",
		"OPTIONS /jobs/a%2F": "GET, HEAD, DELETE, OPTIONS",
	} {
		method, path, _ := strings.Cut(target, " ")
		res := c.do(method, path, "")
		if got := res.Header().Get("Allow"); got != allow {
			t.Errorf("%s: Allow: got %q, want %q", target, got, allow)
		}
		if method == http.MethodOptions {
			if res.Code != http.StatusNoContent {
				t.Errorf("%s: got %d", target, res.Code)
			}
			continue
		}
		wantProblem(t, res, methodNotAllowed)
	}
	for _, path := range []string{"/jobs", "/jobs/x", "/jobs/x/events", "/functions", "/workers", "/servers", "/livez", "/readyz", "/openapi.yaml"} {
		if res := c.do(http.MethodHead, path, ""); res.Code != http.StatusOK {
			t.Errorf("HEAD %s: got %d", path, res.Code)
		}
	}
}

func TestBrowsers(t *testing.T) {
	for _, tt := range []struct {
		name, method, host string
		headers            []string
		want               int
	}{
		{"curl, any name", "POST", "gateway.example", nil, 202},
		{"cross-site post", "POST", "localhost:8080", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"other origin", "POST", "localhost:8080", []string{"Origin", "https://evil.example"}, 403},
		{"own origin", "POST", "localhost:8080", []string{"Origin", "http://localhost:8080"}, 202},
		{"same-origin on IPv4", "POST", "127.0.0.1:8080", []string{"Sec-Fetch-Site", "same-origin"}, 202},
		{"same-origin on IPv6", "POST", "[::1]:8080", []string{"Sec-Fetch-Site", "same-origin"}, 202},
		{"same-origin on IPv6 without port", "POST", "[::1]", []string{"Sec-Fetch-Site", "same-origin"}, 202},
		{"rebound name", "POST", "evil.example:8080", []string{"Sec-Fetch-Site", "same-origin"}, 403},
		{"rebound name, old browser", "POST", "evil.example", []string{"Origin", "http://evil.example"}, 403},
		{"rebound name, reading", "GET", "evil.example", []string{"Sec-Fetch-Site", "same-origin"}, 403},
		{"rebound name, reading over plain HTTP", "GET", "evil.example", []string{"User-Agent", "Mozilla/5.0 (X11; Linux x86_64)"}, 403},
		{"a program by a name", "GET", "gateway:8080", []string{"User-Agent", "curl/8.5.0"}, 200},
		{"listed name", "POST", "Gateway.Example.:8080", []string{"Sec-Fetch-Site", "same-origin"}, 202},
		{"cross-site link", "GET", "localhost", []string{"Sec-Fetch-Site", "cross-site"}, 200},
		{"cross-site link, as it is sent", "GET", "localhost", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Dest", "document"}, 200},
		{"cross-site image", "GET", "localhost", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Dest", "image"}, 403},
		{"cross-site fetch", "GET", "localhost", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Dest", "empty"}, 403},
		{"fetch from another port", "GET", "localhost", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Dest", "empty"}, 403},
		{"fetch of its own", "GET", "localhost", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Dest", "empty"}, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{}
			if strings.HasPrefix(tt.name, "listed") {
				o.Hosts = []string{"gateway.example"}
			}
			c := newClient(t, o)
			c.has(completed(ledger.Task{Function: "f"}, nil))
			target, body := "http://"+tt.host+"/jobs", `{"function":"f"}`
			if tt.method == "GET" {
				target, body = target+"/x", ""
			}
			if res := c.do(tt.method, target, body, tt.headers...); res.Code != tt.want {
				t.Errorf("got %d, want %d: %s", res.Code, tt.want, res.Body)
			}
		})
	}
}

func TestRequestIDs(t *testing.T) {
	c := newClient(t, Options{})
	for given, keep := range map[string]bool{
		"abc-1.2_Z": true, "": false, "a b": false, "a\"b": false, "é": false, strings.Repeat("x", 64): true, strings.Repeat("x", 65): false,
	} {
		got := c.do(http.MethodGet, "/livez", "", "X-Request-Id", given).Header().Get("X-Request-Id")
		if (got == given) != keep {
			t.Errorf("%q: got %q", given, got)
		}
	}
}

func TestAccessLog(t *testing.T) {
	c := newClient(t, Options{})
	c.post(http.StatusOK, `{"function":"echo","workload":"a secret","mode":"sync"}`, "X-Request-Id", "r1")
	c.do(http.MethodPost, "/functions/echo?unique=hidden", "a secret")
	c.do(http.MethodPost, "/jobs", `{"function":"f","workload":{"a secret":x}}`)
	if strings.Contains(c.log.String(), "secret") || strings.Contains(c.log.String(), "hidden") {
		t.Errorf("the log says too much: %s", &c.log)
	}
	var line map[string]any
	if err := json.NewDecoder(strings.NewReader(c.log.String())).Decode(&line); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"level": "info", "method": "POST", "route": "/jobs", "path": "/jobs", "status": 200.0, "request_id": "r1", "job": jobID,
		"remote": "192.0.2.1:1234", "message": "request",
	} {
		if line[key] != want {
			t.Errorf("%s: got %v, want %v", key, line[key], want)
		}
	}
	if _, ok := line["duration_ms"].(float64); !ok || line["bytes"].(float64) < 100 {
		t.Errorf("line: %v", line)
	}
}

func TestPanic(t *testing.T) {
	c := newClient(t, Options{})
	c.job = func(context.Context, string, time.Duration) (ledger.Record, error) { panic("oh no") }
	res := c.do(http.MethodGet, "/jobs/x", "")
	wantProblem(t, res, internalError)
	if strings.Contains(res.Body.String(), "oh no") {
		t.Errorf("the problem says too much: %s", res.Body)
	}
	for _, want := range []string{`"level":"error"`, `"error":"panic: oh no"`, `"stack":"`, `"status":500`} {
		if !strings.Contains(c.log.String(), want) {
			t.Errorf("no %s in %s", want, &c.log)
		}
	}
}

func BenchmarkSubmit(b *testing.B) {
	a := New(Options{Jobs: &quiet{}, Servers: &fake{}})
	body := `{"function":"echo","workload":{"id":7,"text":"` + strings.Repeat("x", 100) + `"}}`
	b.ReportAllocs()
	for b.Loop() {
		res := httptest.NewRecorder()
		a.ServeHTTP(res, httptest.NewRequest(http.MethodPost, "/jobs", strings.NewReader(body)))
		if res.Code != http.StatusAccepted {
			b.Fatal(res.Code)
		}
	}
}

// quiet takes every job and remembers none.
type quiet struct{ fake }

func (*quiet) Submit(_ context.Context, t *ledger.Task) (*ledger.Record, error) {
	return new(queued(*t)), nil
}

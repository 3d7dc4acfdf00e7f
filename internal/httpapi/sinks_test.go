package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

func TestSinks(t *testing.T) {
	c := newClient(t, Options{})
	c.hooks.status = webhook.SinkStatus{
		Name: "audit", URL: "https://audit.example/hooks", Events: event.Patterns{"job.*"}, Functions: []string{"resize"}, State: webhook.Disabled,
		Standing: webhook.Standing{
			Disabled: "answered 410 Gone", FailingSince: submitted, LastError: "answered 410 Gone", LastErrorAt: submitted.Add(time.Second),
			LastSuccess: submitted.Add(-time.Millisecond),
		},
		Backlog: webhook.Backlog{Behind: 1, Pending: 2, Dead: 3, Oldest: submitted},
	}
	audit := `{"name":"audit","url":"https://audit.example/hooks","events":["job.*"],"functions":["resize"],"state":"disabled",` +
		`"reason":"answered 410 Gone","behind":1,"pending":2,"dead":3,"oldest_undelivered":"2027-01-01T00:00:00.000Z",` +
		`"failing_since":"2027-01-01T00:00:00.000Z","last_error":{"message":"answered 410 Gone","at":"2027-01-01T00:00:01.000Z"},` +
		`"last_success_at":"2026-12-31T23:59:59.999Z"}`
	callbacks := `{"name":"callbacks","url":null,"events":null,"functions":null,"state":"active","reason":null,"behind":0,"pending":0,"dead":0,` +
		`"oldest_undelivered":null,"failing_since":null,"last_error":null,"last_success_at":null}`
	for path, want := range map[string]string{"/sinks": `{"items":[` + audit + `,` + callbacks + `]}`, "/sinks/audit": audit} {
		if diff := cmp.Diff(want+"\n", c.do(http.MethodGet, path, "").Body.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
		if res := c.do(http.MethodHead, path, ""); res.Code != http.StatusOK {
			t.Errorf("HEAD %s: got %d", path, res.Code)
		}
		wantProblem(t, c.do(http.MethodGet, path, "", "Accept", "text/html"), notAcceptable)
	}
	for verb, call := range map[string]string{"pause": "pause", "resume": "resume"} {
		for _, body := range []string{"", "{}", " { }\n"} {
			res := c.do(http.MethodPost, "/sinks/audit/"+verb, body)
			if res.Code != http.StatusOK || res.Body.String() != audit+"\n" {
				t.Errorf("%s: got %d %s", verb, res.Code, res.Body)
			}
			c.hooks.wantCalls(t, call)
		}
	}
}

func TestTestASink(t *testing.T) {
	c := newClient(t, Options{})
	for want, attempt := range map[string]webhook.Attempt{
		`"duration_ms":12.5,"ok":true,"status":204,"error":null,"answer":"","answer_encoding":"text"`: {
			At: submitted, Duration: 12500 * time.Microsecond, Status: 204,
		},
		`"duration_ms":0.001,"ok":false,"status":500,"error":"answered 500","answer":"{\"a\":1}","answer_encoding":"text"`: {
			At: submitted, Duration: 1999, Status: 500, Error: "answered 500", Answer: []byte(`{"a":1}`),
		},
		`"duration_ms":15000,"ok":false,"status":null,"error":"no answer within 15s","answer":null,"answer_encoding":null`: {
			At: submitted, Duration: 15 * time.Second, Error: "no answer within 15s",
		},
	} {
		c.hooks.test = func(context.Context) (webhook.Attempt, error) { return attempt, nil }
		res := c.do(http.MethodPost, "/sinks/audit/test", "")
		if want := `{"at":"2027-01-01T00:00:00.000Z",` + want + "}\n"; res.Code != http.StatusOK || res.Body.String() != want {
			t.Errorf("got %d %s, want %s", res.Code, res.Body, want)
		}
	}
	c.hooks.wantCalls(t, "test", "test", "test")
}

func TestSinksThatAreNotFound(t *testing.T) {
	c := newClient(t, Options{})
	for _, name := range []string{"nobody", "a%2Fb", "a%00b", "%FF", "audit%20", "%2561udit"} {
		wantProblem(t, c.do(http.MethodGet, "/sinks/"+name, ""), sinkNotFound)
		for _, verb := range []string{"test", "pause", "resume", "replay"} {
			wantProblem(t, c.do(http.MethodPost, "/sinks/"+name+"/"+verb, ""), sinkNotFound)
		}
	}
	c.hooks.status = webhook.SinkStatus{Name: "audit", State: webhook.Active}
	if res := c.do(http.MethodGet, "/sinks/%61udit", ""); res.Code != http.StatusOK {
		t.Errorf("got %d", res.Code)
	}
	c.hooks.broken = errors.New("disk of /var/lib")
	for _, verb := range []string{"test", "pause", "resume", "replay"} {
		res := c.do(http.MethodPost, "/sinks/audit/"+verb, "")
		if wantProblem(t, res, internalError); strings.Contains(res.Body.String(), "/var/lib") {
			t.Errorf("the problem says too much: %s", res.Body)
		}
	}
	wantProblem(t, c.do(http.MethodGet, "/sinks", ""), internalError)
}

func TestReplay(t *testing.T) {
	c := newClient(t, Options{})
	const never = "0001-01-01T00:00:00Z"
	for body, want := range map[string]string{
		"":                                      never + " " + never,
		"{}":                                    never + " " + never,
		`{"since":"2027-01-01T01:00:00+01:00"}`: "2027-01-01T01:00:00+01:00 " + never,
		`{"until":"2027-01-01T00:00:00Z"}`:      never + " 2027-01-01T00:00:00Z",
		` {"until":"2027-01-01T00:00:01Z","since":"2027-01-01T00:00:00Z"}`: "2027-01-01T00:00:00Z 2027-01-01T00:00:01Z",
	} {
		res := c.do(http.MethodPost, "/sinks/audit/replay", body)
		if res.Code != http.StatusOK || res.Body.String() != `{"replayed":12}`+"\n" {
			t.Errorf("%s: got %d %s", body, res.Code, res.Body)
		}
		c.hooks.wantCalls(t, "replay "+want)
	}
}

func TestBodiesThatAreRefused(t *testing.T) {
	c := newClient(t, Options{})
	c.hooks.delivery = func() (webhook.Delivery, error) { return aDelivery(1, "audit"), nil }
	c.hooks.status = webhook.SinkStatus{Name: "audit", State: webhook.Active}
	none := []string{"/sinks/audit/test", "/sinks/audit/pause", "/sinks/audit/resume", "/deliveries/evt_1:audit/redeliver"}
	all := append([]string{"/sinks/audit/replay"}, none...)
	for _, tt := range []struct {
		paths []string
		body  string
		want  kind
		where string
	}{
		{all, "[]", validationError, "#"},
		{all, "null", validationError, "#"},
		{all, `"for 1h"`, validationError, "#"},
		{all, `{"for":"1h","a/b":{"c":[]}}`, validationError, "#/a~1b #/for"},
		{all, `{"x":1,"x":1}`, invalidJSON, "#/x"},
		{all, "for=1h", invalidJSON, ""},
		{all, " ", invalidJSON, ""},
		{all, "{}{}", invalidJSON, ""},
		{all, `{"x":`, invalidJSON, ""},
		{all, "{\"\xff\":1}", invalidJSON, ""},
		{all, `{"x":"` + strings.Repeat("x", maxSmallBody) + `"}`, payloadTooLarge, ""},
		{none, `{"since":"2027-01-01T00:00:00Z"}`, validationError, "#/since"},
		{all[:1], `{"since":null}`, validationError, "#/since"},
		{all[:1], `{"since":1767225600,"until":true}`, validationError, "#/since #/until"},
		{all[:1], `{"since":"","until":""}`, validationError, "#/since #/until"},
		{all[:1], `{"since":"2027-01-01"}`, validationError, "#/since"},
		{all[:1], `{"since":"2027-01-01T00:00:00Z","until":"2027-01-01T01:00:00+01:00"}`, validationError, "#/until"},
		{all[:1], `{"since":"2027-01-02T00:00:00Z","until":"2027-01-01T00:00:00Z"}`, validationError, "#/until"},
	} {
		for _, path := range tt.paths {
			wantProblem(t, c.do(http.MethodPost, path, tt.body), tt.want, strings.Fields(tt.where)...)
		}
	}
	for _, path := range all {
		wantProblem(t, c.do(http.MethodPost, path, "<a/>", "Content-Type", "application/xml"), unsupportedMediaType)
		wantProblem(t, c.do(http.MethodPost, path, "", "Content-Encoding", "gzip"), unsupportedMediaType)
		wantProblem(t, c.do(http.MethodPost, path, "", "Accept", "text/html"), notAcceptable)
	}
	c.hooks.wantCalls(t)
	for _, path := range all { // what is empty is of no type
		if res := c.do(http.MethodPost, path, "", "Content-Type", "application/xml"); res.Code >= 300 {
			t.Errorf("%s: got %d %s", path, res.Code, res.Body)
		}
	}
	if got := c.api.inflight.used.Load(); got != 0 {
		t.Errorf("%d bytes were not given back", got)
	}
}

func TestMethodsOfTheWebhooksPaths(t *testing.T) {
	c := newClient(t, Options{})
	for path, want := range map[string]string{
		"/events": "GET, HEAD, OPTIONS", "/sinks": "GET, HEAD, OPTIONS", "/sinks/audit": "GET, HEAD, OPTIONS", "/deliveries": "GET, HEAD, OPTIONS",
		"/deliveries/x": "GET, HEAD, OPTIONS", "/sinks/audit/test": "POST, OPTIONS", "/sinks/audit/pause": "POST, OPTIONS",
		"/sinks/audit/resume": "POST, OPTIONS", "/sinks/audit/replay": "POST, OPTIONS", "/deliveries/x/redeliver": "POST, OPTIONS",
	} {
		for method, status := range map[string]int{http.MethodDelete: http.StatusMethodNotAllowed, http.MethodOptions: http.StatusNoContent} {
			if res := c.do(method, path, ""); res.Code != status || res.Header().Get("Allow") != want {
				t.Errorf("%s %s: got %d, Allow %q", method, path, res.Code, res.Header().Get("Allow"))
			}
		}
	}
	for _, path := range []string{"/events/x", "/sinks/", "/sinks/audit/delete", "/deliveries/x/y"} {
		wantProblem(t, c.do(http.MethodPost, path, ""), notFound)
	}
	c.hooks.wantCalls(t)
}

package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	gateway "gearman-gateway"
)

const (
	sinkSecret     = "whsec_YzRuNHJ5YzRuNHJ5YzRuNHJ5YzRuNHJ5"
	callbackSecret = "whsec_a2FuYXJpZWthbmFyaWVrYW5hcmlla2FuYXJpZQ=="
)

func parseSecret(t testing.TB, text string) (s gateway.Secret) {
	t.Helper()
	if err := s.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return s
}

// journal is a log that can be read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// A job's own callback gets what it asked for, signed with the secret of callbacks, and the sinks' events are none of its.
func TestACallbackHearsOfItsJob(t *testing.T) {
	verifier, err := standardwebhooks.NewWebhook(callbackSecret)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := verifier.Verify(body, r.Header); err != nil {
			t.Errorf("the official verifier: %v", err)
		}
		heard <- r.URL.Path + " " + string(body)
	}))
	defer receiver.Close()
	for _, data := range []string{"", t.TempDir()} {
		gw := start(t, func(c *gateway.Config) {
			c.Data = data
			c.Callbacks = gateway.Callbacks{
				Hosts: []string{"127.0.0.1:*"}, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Secret: parseSecret(t, callbackSecret),
			}
		})
		a := submit(t, gw, fmt.Sprintf(`{"function":"reverse","workload":"abc","mode":"tracked","callback":{"url":"%s/mine?k=v"}}`, receiver.URL))
		id, _ := a.field(t, "id").(string)
		if a.status != http.StatusAccepted || strings.Contains(a.body, "k=v") {
			t.Fatalf("%d %s", a.status, a.body)
		}
		got := <-heard
		if !strings.HasPrefix(got, "/mine ") || !strings.Contains(got, `"type":"job.completed"`) || !strings.Contains(got, id) {
			t.Errorf("the callback heard %s", got)
		}
		poll(t, "the delivery", func() bool {
			return strings.Contains(get(t, gw+"/deliveries?sink=callbacks").body, `"state":"delivered"`)
		})
		for _, to := range []string{"http://127.0.0.2:99999999/", "ftp://127.0.0.1/", "http://u:p@127.0.0.1:1/", "http://10.0.0.1/", "http://example.com/"} {
			a := submit(t, gw, fmt.Sprintf(`{"function":"reverse","callback":{"url":%q}}`, to))
			if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `"#/callback/url"`) {
				t.Errorf("callback to %s: %d %s", to, a.status, a.body)
			}
		}
	}
}

// What is told in confidence stays so, even when the sink repeats all that it is sent.
func TestNothingShowsASecretOfASink(t *testing.T) {
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintln(w, r.URL, r.Header)
	}))
	defer echo.Close()
	to, err := url.Parse(echo.URL)
	if err != nil {
		t.Fatal(err)
	}
	to.User, to.RawQuery = url.UserPassword("user", "p4ssw0rd!"), "token=t0ken&x=1"
	var log journal
	gw := start(t, func(c *gateway.Config) {
		c.Data, c.LogLevel, c.Log = t.TempDir(), gateway.Level(zerolog.TraceLevel), zerolog.New(&log)
		c.Webhooks.Schedule = []gateway.Duration{0, 0}
		c.Sinks = []gateway.Sink{{
			Name: "echo", URL: gateway.URL(to.String()), Secret: parseSecret(t, sinkSecret), Headers: map[string]gateway.Masked{"X-Key": "h3ader"},
		}}
		c.Callbacks = gateway.Callbacks{Hosts: []string{"*"}, Secret: parseSecret(t, callbackSecret)}
	})
	a := submit(t, gw, `{"function":"reverse","workload":"w0rkload","mode":"tracked","callback":{"url":"http://10.0.0.1/?cb=s3cret"}}`)
	shown := []string{a.body}
	poll(t, "a dead letter", func() bool { return strings.Contains(get(t, gw+"/deliveries?state=dead").body, "evt_") })
	shown = append(shown, submit(t, gw, `{"function":"reverse","callback":{"url":"http://u:cbp4ss@example.com/"}}`).body)
	shown = append(shown, post(t, gw+"/sinks/echo/test", "", "").body)
	for _, path := range []string{"/sinks", "/deliveries?limit=200", "/events", "/jobs"} {
		shown = append(shown, get(t, gw+path).body)
	}
	dead := get(t, gw+"/deliveries?state=dead&limit=1")
	id := dead.field(t, "items").([]any)[0].(map[string]any)["id"].(string)
	record := get(t, gw+"/deliveries/"+id).body
	if !strings.Contains(record, "X-Key") {
		t.Errorf("the record has no answer: %s", record)
	}
	shown = append(shown, record, log.String())
	for _, canary := range []string{
		"p4ssw0rd", "t0ken", "h3ader", "s3cret", "cbp4ss", sinkSecret, strings.TrimPrefix(sinkSecret, "whsec_"), callbackSecret, "kanarie",
		"dXNlcjpwNHNzdzByZCE", // the basic authentication
	} {
		for _, text := range shown {
			if at := strings.Index(text, canary); at >= 0 {
				t.Errorf("%q is shown: …%s…", canary, text[max(0, at-200):min(len(text), at+100)])
			}
		}
	}
}

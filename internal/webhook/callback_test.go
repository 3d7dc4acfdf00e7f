package webhook

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"gearman-gateway/internal/event"
)

func calling(url, subject string) event.Event {
	e := ev(subject, 1)
	e.Type, e.Callback = event.JobCompleted, url
	return e
}

func TestCallbacksAreCheckedWhenTheyAreGiven(t *testing.T) {
	s := start(t, nil, Options{Callbacks: &CallbackOptions{
		Hosts: []string{"hooks.example.com", "*.partner.example", "inside.example:8443", "*:*"}, Allow: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
	}})
	only := start(t, nil, Options{Callbacks: &CallbackOptions{Hosts: []string{"hooks.example.com", "*.partner.example", "inside.example:8443"}}})
	none := start(t, nil, Options{})
	for _, row := range []struct {
		s    *desk
		url  string
		want string // of the detail; "": it is taken
	}{
		{only, "https://hooks.example.com/x?y=z", ""},
		{only, "http://HOOKS.example.com./", ""},
		{only, "https://a.b.partner.example/", ""},
		{only, "https://inside.example:8443/", ""},
		{only, "https://hooks.example.com:8443/", "does not allow"},
		{only, "https://inside.example/", "does not allow"},
		{only, "https://partner.example/", "does not allow"},
		{only, "https://hooks.example.com.evil.example/", "does not allow"},
		{only, "https://evil.example/?hooks.example.com", "does not allow"},
		{only, "https://u:p@hooks.example.com/", "user or a password"},
		{only, "https://hooks.example.com/#x", "fragment"},
		{only, "ftp://hooks.example.com/", "http or https"},
		{only, "//hooks.example.com/", "http or https"},
		{only, "https://", "http or https"},
		{none, "https://hooks.example.com/", "allows no callbacks"},
		{s, "http://8.8.8.8/", ""},
		{s, "http://10.1.2.3:99/", ""},
		{s, "http://127.0.0.1/", "not public"},
		{s, "http://127.1.2.3:8080/", "not public"},
		{s, "http://10.2.0.1/", "not public"},
		{s, "http://172.16.0.1/", "not public"},
		{s, "http://192.168.1.1/", "not public"},
		{s, "http://169.254.169.254/latest/meta-data", "not public"},
		{s, "http://100.64.0.1/", "not public"},
		{s, "http://224.0.0.1/", "not public"},
		{s, "http://0.0.0.0/", "not public"},
		{s, "http://[::1]/", "not public"},
		{s, "http://[::]/", "not public"},
		{s, "http://[::ffff:10.0.0.1]/", "not public"},
		{s, "http://[fd00::1]/", "not public"},
		{s, "http://[fe80::1]/", "not public"},
		{s, "http://[64:ff9b::a00:1]/", "not public"},
		{s, "http://[2002:a00:1::]/", "not public"},
		{s, "http://[2001:0:a00:1::]/", "not public"},
	} {
		err := row.s.CheckCallback(&event.Callback{URL: row.url})
		bad, _ := errors.AsType[*CallbackError](err)
		if row.want == "" && err != nil || row.want != "" && (bad == nil || bad.Member != "url" || !strings.Contains(bad.Detail, row.want)) {
			t.Errorf("%s: got %v, want %q", row.url, err, row.want)
		}
	}
	for pattern, want := range map[string]bool{"job.*": true, "job.completed": true, "worker.function.*": true, "*": true, "worker.on_work": false, "sink.*": false, "jobs": false} {
		err := s.CheckCallback(&event.Callback{URL: "http://8.8.8.8/", Events: event.Patterns{pattern}})
		if bad, _ := errors.AsType[*CallbackError](err); (err == nil) != want || err != nil && bad.Member != "events" {
			t.Errorf("%s: got %v", pattern, err)
		}
	}
}

// A name may resolve to anything by the time it is dialled, and a proxy may not be asked to do it.
func TestCallbacksAreGuardedWhenTheyAreDialled(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1/")
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was reached") }))
	defer server.Close()
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	s := start(t, nil, Options{Schedule: []time.Duration{0}, Callbacks: &CallbackOptions{Hosts: []string{"*:*"}}})
	url := "http://localhost" + port + "/"
	if err := s.CheckCallback(&event.Callback{URL: url}); err != nil {
		t.Fatal(err) // what it resolves to is not known yet
	}
	s.publish(calling(url, "a"))
	await(t, "dead letter", func() bool { return s.count(CallbacksName, Dead) == 1 })
	d, err := s.Delivery(t.Context(), CallbacksName, "a1")
	if err != nil || !strings.Contains(d.Log[0].Error, "not a public address") {
		t.Errorf("%v, %+v", err, d)
	}
}

// What is allowed is delivered, signed, and a redirect is followed nowhere. Each host has its own circuit.
func TestCallbacksToAllowedAddresses(t *testing.T) {
	key := secret(t, vectorSecret)
	verifier, err := standardwebhooks.NewWebhookRaw(key.key())
	if err != nil {
		t.Fatal(err)
	}
	private := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer private.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, private.URL, http.StatusFound)
			return
		}
		body := make([]byte, r.ContentLength)
		_, _ = r.Body.Read(body)
		if err := verifier.Verify(body, r.Header); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer hanging.Close()
	defer close(release)
	s := start(t, nil, Options{Schedule: []time.Duration{0}, Callbacks: &CallbackOptions{
		Hosts: []string{"127.0.0.1:*"}, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Secrets: []Secret{key}, Concurrency: 2,
	}})
	for i := range 20 {
		s.publish(calling(hanging.URL, "h"+string(rune('a'+i))))
	}
	s.publish(calling(server.URL+"/redirect", "redirected"))
	for i := range 20 {
		s.publish(calling(server.URL, string(rune('a'+i))))
	}
	s.publish(ev("z", 1)) // which nobody calls back for
	await(t, "deliveries", func() bool { return s.count(CallbacksName, Delivered) == 20 && s.count(CallbacksName, Dead) == 1 })
	d, err := s.Delivery(t.Context(), CallbacksName, "redirected1")
	if err != nil || d.State != Dead || !strings.Contains(d.Log[0].Error, "redirects are not followed") {
		t.Errorf("%v, %+v", err, d)
	}
}

// A job keeps its callback, and may be run again or be delivered when the configuration has changed.
func TestACallbackMayGoWhereTheConfigurationOfTheDayAllows(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was reached") }))
	defer server.Close()
	s := start(t, nil, Options{Schedule: []time.Duration{0}, Callbacks: &CallbackOptions{
		Hosts: []string{"hooks.example.com", "127.0.0.1:1"}, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}})
	s.publish(calling(server.URL, "a"))
	await(t, "dead letter", func() bool { return s.count(CallbacksName, Dead) == 1 })
	d, err := s.Delivery(t.Context(), CallbacksName, "a1")
	if err != nil || !strings.Contains(d.Log[0].Error, "does not allow the host or port") {
		t.Errorf("%v, %+v", err, d)
	}
}

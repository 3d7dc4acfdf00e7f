package httpapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/webhook"
)

const hook = "https://shop.example/hooks/7?token=s3cret"

func TestSubmitWithACallback(t *testing.T) {
	named := event.Patterns{"job.completed", "job.*"}
	for _, mode := range []string{"background", "tracked", "sync"} {
		for _, tt := range []struct {
			events, query string
			want          event.Patterns
		}{
			{"", "", event.CallbackPatterns},
			{`,"events":["job.completed","job.\u002a"]`, "&callback_events=job.completed,job.*", named},
		} {
			c := newClient(t, Options{})
			want := &event.Callback{URL: hook, Events: tt.want}
			body := fmt.Sprintf(`{"function":"f","mode":%q,"callback":{"url":%q%s}}`, mode, hook, tt.events)
			for _, res := range []*httptest.ResponseRecorder{
				c.do(http.MethodPost, "/jobs", body),
				c.do(http.MethodPost, "/functions/f?mode="+mode+"&callback="+url.QueryEscape(hook)+tt.query, ""),
			} {
				if res.Code >= 300 {
					t.Fatalf("%s: got %d %s", body, res.Code, res.Body)
				}
			}
			if mode != "sync" {
				if got := c.batch("[" + body + "]"); got[0].Status != http.StatusAccepted {
					t.Fatalf("batch: %+v", got[0])
				}
			}
			for _, task := range c.tasks {
				if diff := cmp.Diff(want, task.Callback); diff != "" {
					t.Errorf("%s: callback (-want +got):\n%s", body, diff)
				}
			}
			if strings.Contains(c.log.String(), "s3cret") {
				t.Errorf("log: %s", &c.log)
			}
		}
	}
	c := newClient(t, Options{})
	if c.post(http.StatusAccepted, `{"function":"f"}`); c.lastTask().Callback != nil {
		t.Errorf("a callback out of nothing: %v", c.lastTask().Callback)
	}
}

func TestCallbacksThatAreRefused(t *testing.T) {
	const ok = `"url":"https://shop.example/"`
	long := "https://shop.example/" + strings.Repeat("x", 2048)
	for callback, where := range map[string]string{
		`null`:                                 "#/callback",
		`"https://shop.example/"`:              "#/callback",
		`[]`:                                   "#/callback",
		`{}`:                                   "#/callback/url",
		`{"events":["job.*"]}`:                 "#/callback/url",
		`{"url":null}`:                         "#/callback/url",
		`{"url":""}`:                           "#/callback/url",
		`{"url":{"a":[]}}`:                     "#/callback/url",
		`{"url":"` + long + `"}`:               "#/callback/url",
		`{"url":"https://elsewhere.example/"}`: "#/callback/url",
		`{` + ok + `,"events":null}`:           "#/callback/events",
		`{` + ok + `,"events":"job.*"}`:        "#/callback/events",
		`{` + ok + `,"events":{}}`:             "#/callback/events",
		`{` + ok + `,"events":[]}`:             "#/callback/events",
		`{` + ok + `,"events":["job.done"]}`:   "#/callback/events/0",
		`{` + ok + `,"events":["job.*",7,"job.lost",["job.*"]]}`:                "#/callback/events/1 #/callback/events/3",
		`{` + ok + `,"events":["job.*"` + strings.Repeat(`,"job.*"`, 32) + `]}`: "#/callback/events",
		`{` + ok + `,"secret":"x","a/b":{}}`:                                    "#/callback/a~1b #/callback/secret",
		`{"url":1,"events":[1],"x":1}`:                                          "#/callback/events/0 #/callback/url #/callback/x",
	} {
		c := newClient(t, Options{})
		body := `{"function":"f","callback":` + callback + `}`
		wantProblem(t, c.do(http.MethodPost, "/jobs", body), validationError, strings.Fields(where)...)
		var got []string
		for _, e := range c.batch("[" + body + "]")[0].Problem.Errors {
			got = append(got, e.Pointer)
		}
		if strings.Join(got, " ") != where {
			t.Errorf("%s in a batch: mistakes at %q, want %q", callback, got, where)
		}
		if len(c.tasks) > 0 {
			t.Errorf("%s: was submitted", callback)
		}
	}
	c := newClient(t, Options{})
	for body, where := range map[string]string{
		`{"function":"f","callback":{` + ok + `,"url":"https://shop.example/"}}`:       "#/callback/url",
		`{"function":"f","callback":{` + ok + `,"events":["job.*"],"\u0065vents":[]}}`: "#/callback/events",
		`{"function":"f","callback":{` + ok + `},"callback":{}}`:                       "#/callback",
	} {
		wantProblem(t, c.do(http.MethodPost, "/jobs", body), invalidJSON, where)
	}
	for _, body := range []string{`{"callback":{`, `{"callback":{"url"`, `{"callback":{"events":[`, `{"callback":{"events":["a"`, `{"callback":{"events":[1 2]}}`, `{"callback":{"events":[}}`} {
		wantProblem(t, c.do(http.MethodPost, "/jobs", body), invalidJSON)
	}
	c.hooks.refuse = &webhook.CallbackError{Member: "events", Detail: "must be of jobs"}
	wantProblem(t, c.do(http.MethodPost, "/jobs", `{"function":"f","priority":"x","callback":{`+ok+`}}`), validationError, "#/callback/events", "#/priority")
	wantProblem(t, c.do(http.MethodPost, "/functions/f?callback=https://shop.example/", ""), validationError, "callback_events")
}

func TestCallbacksOfCallsThatAreRefused(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat("job.*,", 33), ",")
	for query, where := range map[string]string{
		"callback=":                                                      "callback",
		"callback=https://elsewhere.example/":                            "callback",
		"callback=" + strings.Repeat("x", 2049):                          "callback",
		"callback_events=job.*":                                          "callback_events",
		"callback=https://shop.example/&callback=x":                      "callback",
		"callback=https://shop.example/&callback_events=":                "callback_events",
		"callback=https://shop.example/&callback_events=job.done":        "callback_events",
		"callback=https://shop.example/&callback_events=job.*,":          "callback_events",
		"callback=https://shop.example/&callback_events=job.*,%20job.*":  "callback_events",
		"callback=https://shop.example/&callback_events=" + many:         "callback_events",
		"callback=https://elsewhere.example/&callback_events=x&mode=odd": "callback_events mode",
	} {
		c := newClient(t, Options{})
		wantProblem(t, c.do(http.MethodPost, "/functions/f?"+query, "w"), validationError, strings.Fields(where)...)
		if len(c.tasks) > 0 {
			t.Errorf("%s: was submitted", query)
		}
	}
}

// TestFingerprintsOfBefore has one that was stored before there were callbacks.
func TestFingerprintsOfBefore(t *testing.T) {
	c := newClient(t, Options{})
	of := func(callback string) string {
		t.Helper()
		c.post(http.StatusAccepted, `{"function":"resize","workload":{"id":7},"unique":"img-7","mode":"tracked","delay":"1h","retry":{"max":3}`+callback+`}`,
			"Idempotency-Key", "k", "Traceparent", trace)
		return fmt.Sprintf("%x", c.lastTask().Key.Fingerprint)
	}
	if got, want := of(""), "f4e00ad2d36707bf6b144975c51b03a839e8e039ed04a8311184968f4bd2e86d"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	seen := map[string]string{of(""): "none"}
	for _, callback := range []string{
		`{"url":"https://shop.example/1"}`, `{"url":"https://shop.example/2"}`, `{"url":"https://shop.example/1","events":["job.*"]}`,
		`{"url":"https://shop.example/1","events":["job.*","job.lost"]}`,
		`{"url":"https://shop.example/1","events":["job.completed","job.failed","job.cancelled","job.lost"]}`, // as written
	} {
		got := of(`,"callback":` + callback)
		if other, there := seen[got]; there {
			t.Errorf("%s and %s have one fingerprint", callback, other)
		}
		seen[got] = callback
	}
}

func TestACallbackIsShownWithoutSecrets(t *testing.T) {
	for given, want := range map[string]string{
		"https://shop.example/hooks/7": "https://shop.example/hooks/7",
		hook:                           "https://shop.example/hooks/7?xxxxx",
		"https://me:pass@shop.example:8443/a%2Fb?x=1#top": "https://xxxxx@shop.example:8443/a%2Fb?xxxxx",
		"https://me@shop.example?":                        "https://xxxxx@shop.example?",
		"https://shop.example/#token=s3cret":              "https://shop.example/",
		"mailto:pass@shop.example":                        "xxxxx",
		"https://shop.example:pass/":                      "xxxxx",
	} {
		c := newClient(t, Options{})
		rec := queued(ledger.Task{Function: "f", Mode: ledger.Tracked})
		rec.Callback = &event.Callback{URL: given, Events: event.Patterns{"job.*", "job.lost"}}
		c.has(rec)
		c.list = func(ledger.Query) ([]ledger.Record, string, error) { return []ledger.Record{rec}, "", nil }
		c.returns(rec, nil)
		for _, res := range []*httptest.ResponseRecorder{
			c.do(http.MethodGet, "/jobs/x", ""), c.do(http.MethodGet, "/jobs", ""), c.post(http.StatusAccepted, `{"function":"f"}`),
			c.do(http.MethodPost, "/jobs/batch", `[{"function":"f"}]`),
		} {
			if want := `"callback":{"url":"` + want + `","events":["job.*","job.lost"]}`; !strings.Contains(res.Body.String(), want) {
				t.Errorf("%s: no %s in %s", given, want, res.Body)
			}
		}
	}
}

const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestTraceparents(t *testing.T) {
	for given, want := range map[string]string{
		trace:                     trace,
		trace[:53] + "00":         trace[:53] + "00",
		trace[:53] + "ff":         trace[:53] + "ff",
		"01" + trace[2:]:          trace,
		"cc" + trace[2:53] + "fe": trace[:53] + "00",
		"cc" + trace[2:53] + "03-what the-future-is": trace,
		"cc" + trace[2:] + "-":                       trace,

		"": "", trace[:54]: "", trace + "-": "", trace + "-00": "", trace + "0": "", " " + trace[1:]: "",
		"ff" + trace[2:]: "", "01" + trace[2:] + "x": "", "0x" + trace[2:]: "", strings.ToUpper(trace): "",
		"00-" + strings.Repeat("0", 32) + trace[35:]: "", trace[:36] + strings.Repeat("0", 16) + trace[52:]: "",
		strings.Replace(trace, "4bf9", "4bg9", 1): "", strings.Replace(trace, "-00f", "_00f", 1): "", trace[:53] + "0g": "",
		"00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01": "", strings.Repeat("-", 55): "", trace + "," + trace: "",
	} {
		c := newClient(t, Options{})
		for _, res := range []*httptest.ResponseRecorder{
			c.post(http.StatusAccepted, `{"function":"f"}`, "Traceparent", given),
			c.do(http.MethodPost, "/functions/f", "", "traceparent", given),
			c.do(http.MethodPost, "/jobs/batch", `[{"function":"f"},{"function":"f"}]`, "TraceParent", given),
		} {
			if res.Code >= 300 {
				t.Errorf("%q: got %d %s", given, res.Code, res.Body)
			}
		}
		for _, task := range c.tasks {
			if task.Traceparent != want {
				t.Errorf("%q: got %q, want %q", given, task.Traceparent, want)
			}
		}
		rec := queued(c.lastTask())
		rec.Traceparent = want
		c.has(rec)
		shown := "null"
		if want != "" {
			shown = `"` + want + `"`
		}
		if body := c.do(http.MethodGet, "/jobs/x", "").Body.String(); !strings.Contains(body, `"traceparent":`+shown) {
			t.Errorf("%q: %s", given, body)
		}
	}
	c := newClient(t, Options{})
	if c.post(http.StatusAccepted, `{"function":"f"}`, "Traceparent", trace, "Traceparent", trace); c.lastTask().Traceparent != "" {
		t.Error("two headers are one")
	}
}

func TestNoRoomForEvents(t *testing.T) {
	c := newClient(t, Options{})
	c.returns(ledger.Record{}, fmt.Errorf("submit: %w", ledger.ErrEventsFull))
	for _, res := range []*httptest.ResponseRecorder{
		c.do(http.MethodPost, "/jobs", `{"function":"f","mode":"tracked"}`),
		c.do(http.MethodPost, "/functions/f?mode=tracked", ""),
	} {
		wantProblem(t, res, eventsFull)
		if got := res.Header().Get("Retry-After"); got != "5" {
			t.Errorf("Retry-After: %q", got)
		}
	}
	if got := c.batch(`[{"function":"f"}]`)[0].Problem.Type; got != problemType+"events-full" {
		t.Errorf("batch: %s", got)
	}
}

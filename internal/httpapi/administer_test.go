package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/auth"
	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/webhook"
)

// trail is what was published.
type trail []event.Event

func (tr *trail) Publish(events ...event.Event) { *tr = append(*tr, events...) }

// want checks what was published since the last time, by its type, subject and data.
func (tr *trail) want(t *testing.T, want ...event.Event) {
	t.Helper()
	got := *tr
	*tr = nil
	for i, e := range got {
		if e.ID == "" || e.Seq == 0 || e.Time.IsZero() {
			t.Errorf("got %+v", e)
		}
		got[i] = event.Event{Type: e.Type, Subject: e.Subject, Data: e.Data}
	}
	if diff := cmp.Diff(want, []event.Event(got)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestPauseAndResume(t *testing.T) {
	var tr trail
	c := newClient(t, Options{Audit: &tr})
	for _, step := range []struct {
		verb   string
		paused bool
		done   event.Type
	}{
		{"pause", true, event.FunctionPaused},
		{"pause", true, event.FunctionPaused},
		{"resume", false, event.FunctionResumed},
		{"resume", false, event.FunctionResumed},
	} {
		for _, body := range []string{"", "{}"} {
			res := c.do(http.MethodPost, "/functions/%65cho/"+step.verb, body)
			if want := fmt.Sprintf(`{"function":"echo","paused":%v}`+"\n", step.paused); res.Code != http.StatusOK || res.Body.String() != want {
				t.Errorf("%s: got %d %s", step.verb, res.Code, res.Body)
			}
			tr.want(t, event.Event{Type: step.done, Subject: "echo", Data: event.Data{Function: "echo", Rest: new(event.Rest)}})
		}
		want := fmt.Sprintf(`"function":"echo","queued":3,"running":1,"workers":2,"paused":%v,`, step.paused)
		if got := c.do(http.MethodGet, "/functions", "").Body.String(); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	wantProblem(t, c.do(http.MethodPost, "/functions/not-ours/pause", ""), functionNotFound)
	wantProblem(t, c.do(http.MethodPost, "/functions/not-ours/resume", ""), functionNotFound)
	tr.want(t)
	c.functions = func() ([]gearman.FunctionInfo, error) { return []gearman.FunctionInfo{{Function: "not-ours"}}, nil }
	if got := c.do(http.MethodGet, "/functions", "").Body.String(); !strings.Contains(got, `"paused":null`) {
		t.Errorf("got %s", got)
	}
}

func TestMaxQueue(t *testing.T) {
	var tr trail
	c := newClient(t, Options{Audit: &tr})
	c.answers = []gearman.Answer{{Server: "g1:4730"}, {Server: "g2:4730"}}
	for body, want := range map[string]gearman.MaxQueue{
		`{"max":0}`:                        {},
		` {"max":12} `:                     {High: 12, Normal: 12, Low: 12},
		`{"max":2147483647}`:               {High: gearman.MaxMaxQueue, Normal: gearman.MaxMaxQueue, Low: gearman.MaxMaxQueue},
		`{"low":1,"high":3,"normal":2}`:    {High: 3, Normal: 2, Low: 1},
		`{"high":0,"normal":1000,"low":0}`: {Normal: 1000},
	} {
		res := c.do(http.MethodPut, "/functions/a%2Fb/maxqueue", body)
		told := fmt.Sprintf(`{"function":"a/b","max_queue":{"high":%d,"normal":%d,"low":%d},"servers":["g1:4730","g2:4730"]}`+"\n",
			want.High, want.Normal, want.Low)
		if res.Code != http.StatusOK || res.Body.String() != told {
			t.Errorf("%s: got %d %s", body, res.Code, res.Body)
		}
		m := event.MaxQueue(want)
		tr.want(t, event.Event{Type: event.FunctionMaxQueue, Subject: "a/b", Data: event.Data{
			Function: "a/b", Rest: &event.Rest{MaxQueue: &m, Servers: []string{"g1:4730", "g2:4730"}},
		}})
		if got := c.bounds[len(c.bounds)-1]; got != want || c.asked[len(c.asked)-1] != "a/b" {
			t.Errorf("%s: set %+v of %s", body, got, c.asked)
		}
	}
}

func TestMaxQueueThatNotAllJobServersHave(t *testing.T) {
	down := gearman.Answer{Server: "g2:4730", Err: fmt.Errorf("dial 10.0.0.2: %w", gearman.ErrUnavailable)}
	refused := gearman.Answer{Server: "g3:4730", Err: fmt.Errorf("10.0.0.3: %w", &gearman.ServerError{Code: "UNKNOWN_COMMAND"})}
	late := gearman.Answer{Server: "g4:4730", Err: errors.New("i/o timeout of 10.0.0.4")}
	up := gearman.Answer{Server: "g1:4730"}
	for _, tt := range []struct {
		answers []gearman.Answer
		want    kind
		says    string
	}{
		{[]gearman.Answer{up, down}, gearmanUnavailable, "1 of 2 job servers took the bound, which holds there; others did not answer."},
		{[]gearman.Answer{up, refused}, gearmanError, "1 of 2 job servers took the bound, which holds there; others refused it."},
		{[]gearman.Answer{up, refused, up, late}, gearmanUnavailable, "2 of 4 "},
		{[]gearman.Answer{down}, gearmanUnavailable, "No job server took the bound: they did not answer."},
		{[]gearman.Answer{refused, refused}, gearmanError, "No job server took the bound: they refused it."},
	} {
		var tr trail
		c := newClient(t, Options{Audit: &tr})
		c.answers = tt.answers
		res := c.do(http.MethodPut, "/functions/echo/maxqueue", `{"max":1}`)
		wantProblem(t, res, tt.want)
		if got := res.Body.String(); !strings.Contains(got, tt.says) || strings.Contains(got, "10.0.0.") {
			t.Errorf("got %s, want %q", got, tt.says)
		}
		var told []string
		for _, a := range tt.answers {
			if a.Err == nil {
				told = append(told, a.Server)
			} else if !strings.Contains(c.log.String(), a.Err.Error()) {
				t.Errorf("the log does not say %v: %s", a.Err, &c.log)
			}
		}
		if told == nil {
			tr.want(t)
			continue
		}
		tr.want(t, event.Event{Type: event.FunctionMaxQueue, Subject: "echo", Data: event.Data{
			Function: "echo", Rest: &event.Rest{MaxQueue: &event.MaxQueue{High: 1, Normal: 1, Low: 1}, Servers: told},
		}})
	}
}

func TestAdministrationThatIsRefused(t *testing.T) {
	var tr trail
	c := newClient(t, Options{Audit: &tr})
	all := []string{"POST /functions/echo/pause", "POST /functions/echo/resume", "PUT /functions/echo/maxqueue"}
	none, bound := all[:2], all[2:]
	for _, tt := range []struct {
		routes []string
		body   string
		want   kind
		where  string
	}{
		{all, "[]", validationError, "#"},
		{all, "null", validationError, "#"},
		{all, `"for 1h"`, validationError, "#"},
		{all, `{"for":"1h","a/b":{"c":[]}}`, validationError, "#/a~1b #/for"},
		{all, `{"max":1,"max":1}`, invalidJSON, "#/max"},
		{all, "max=1", invalidJSON, ""},
		{all, "{}{}", invalidJSON, ""},
		{all, `{"max":`, invalidJSON, ""},
		{all, `{"x":"` + strings.Repeat("x", maxSmallBody) + `"}`, payloadTooLarge, ""},
		{none, `{"max":1}`, validationError, "#/max"},
		{bound, "", validationError, "#"},
		{bound, "{}", validationError, "#"},
		{bound, `{"high":1,"normal":1}`, validationError, "#"},
		{bound, `{"max":1,"high":1,"normal":1,"low":1}`, validationError, "#"},
		{bound, `{"max":1,"low":1}`, validationError, "#"},
		{bound, `{"max":-1}`, validationError, "#/max"},
		{bound, `{"max":2147483648}`, validationError, "#/max"},
		{bound, `{"max":1e99}`, validationError, "#/max"},
		{bound, `{"max":1.5}`, validationError, "#/max"},
		{bound, `{"max":"1"}`, validationError, "#/max"},
		{bound, `{"max":null}`, validationError, "#/max"},
		{bound, `{"max":[1]}`, validationError, "#/max"},
		{bound, `{"high":"1\r\nshutdown","normal":1,"low":true}`, validationError, "#/high #/low"},
	} {
		for _, route := range tt.routes {
			method, path, _ := strings.Cut(route, " ")
			wantProblem(t, c.do(method, path, tt.body), tt.want, strings.Fields(tt.where)...)
		}
	}
	for _, route := range all {
		method, path, _ := strings.Cut(route, " ")
		wantProblem(t, c.do(method, path, "<a/>", "Content-Type", "application/xml"), unsupportedMediaType)
		wantProblem(t, c.do(method, path, "{}", "Content-Encoding", "gzip"), unsupportedMediaType)
		wantProblem(t, c.do(method, path, "{}", "Accept", "text/html"), notAcceptable)
		wantProblem(t, c.do(method, path, "{}", "Sec-Fetch-Site", "cross-site"), forbidden)
		for _, name := range []string{
			"f 1", "f\r\nshutdown", "f\nshutdown", "f\rmaxqueue g 1", "f\x00", "\t", " f", "f ", strings.Repeat("f", gearman.MaxFunction+1),
		} {
			path := strings.Replace(path, "echo", url.PathEscape(name), 1)
			wantProblem(t, c.do(method, path, `{"max":1}`), validationError, "function")
		}
	}
	if c.asked != nil {
		t.Errorf("asked: %q", c.asked)
	}
	tr.want(t)
	if got := c.api.inflight.used.Load(); got != 0 {
		t.Errorf("%d bytes were not given back", got)
	}
}

func TestMethodsOfAdministration(t *testing.T) {
	c := newClient(t, Options{})
	for path, want := range map[string]string{
		"/functions/echo/pause": "POST, OPTIONS", "/functions/echo/resume": "POST, OPTIONS", "/functions/echo/maxqueue": "PUT, OPTIONS",
	} {
		for method, status := range map[string]int{http.MethodDelete: http.StatusMethodNotAllowed, http.MethodOptions: http.StatusNoContent} {
			if res := c.do(method, path, ""); res.Code != status || res.Header().Get("Allow") != want {
				t.Errorf("%s %s: got %d, Allow %q", method, path, res.Code, res.Header().Get("Allow"))
			}
		}
	}
	for _, verb := range []string{"drop", "shutdown", "create", "cancel", "maxqueue/1"} { // what job servers can do besides is not for HTTP
		wantProblem(t, c.do(http.MethodPost, "/functions/echo/"+verb, ""), notFound)
	}
}

func TestWhatAdministratorsDoIsAudited(t *testing.T) {
	var tr trail
	who := &auth.Identity{Name: "ops\nteam", Credential: "key 3f9a", Scopes: auth.Admin, Functions: []string{"ec*"}}
	c := newClient(t, Options{Audit: &tr, Identify: func(*http.Request) (*auth.Identity, error) { return who, nil }})
	c.answers = []gearman.Answer{{Server: "g1:4730"}}
	c.hooks.status = webhook.SinkStatus{Name: "audit", State: webhook.Active}
	for _, tt := range []struct {
		method, path, body string
		want               event.Event
	}{
		{"POST", "/functions/echo/pause", "", event.Event{Type: event.FunctionPaused, Subject: "echo", Data: event.Data{Function: "echo", Rest: new(event.Rest)}}},
		{"POST", "/functions/echo/resume", "", event.Event{Type: event.FunctionResumed, Subject: "echo", Data: event.Data{Function: "echo", Rest: new(event.Rest)}}},
		{"PUT", "/functions/echo/maxqueue", `{"max":7}`, event.Event{Type: event.FunctionMaxQueue, Subject: "echo", Data: event.Data{
			Function: "echo", Rest: &event.Rest{MaxQueue: &event.MaxQueue{High: 7, Normal: 7, Low: 7}, Servers: []string{"g1:4730"}},
		}}},
		{"POST", "/sinks/audit/pause", "", event.Event{Type: event.SinkPaused, Subject: "audit", Data: event.Data{Rest: &event.Rest{Sink: "audit"}}}},
		{"POST", "/sinks/audit/resume", "", event.Event{Type: event.SinkResumed, Subject: "audit", Data: event.Data{Rest: &event.Rest{Sink: "audit"}}}},
		{"POST", "/sinks/audit/replay", "", event.Event{Type: event.SinkReplayed, Subject: "audit", Data: event.Data{Rest: &event.Rest{Sink: "audit", Replayed: new(12)}}}},
	} {
		c.log.Reset()
		if res := c.do(tt.method, tt.path, tt.body, "X-Request-Id", "r-1"); res.Code != http.StatusOK {
			t.Errorf("%s: got %d %s", tt.path, res.Code, res.Body)
		}
		tt.want.Data.By = "ops\nteam"
		tr.want(t, tt.want)
		line, _, _ := strings.Cut(c.log.String(), "\n")
		want := fmt.Sprintf(`{"level":"info","action":"%s","subject":"%s","request_id":"r-1","identity":"ops\nteam","credential":"key 3f9a"`,
			tt.want.Type, tt.want.Subject)
		if !strings.HasPrefix(line, want) || !strings.HasSuffix(line, `"message":"administration"}`) {
			t.Errorf("logged %s, want %s", line, want)
		}
	}
	c.asked = nil
	for _, route := range []string{"POST /functions/other/pause", "POST /functions/other/resume", "PUT /functions/other/maxqueue"} {
		method, path, _ := strings.Cut(route, " ")
		wantProblem(t, c.do(method, path, "{}"), forbidden)
	}
	who = &auth.Identity{Name: "app", Scopes: auth.Submit | auth.Read | auth.Cancel}
	for _, route := range []string{"POST /functions/echo/pause", "POST /functions/echo/resume", "PUT /functions/echo/maxqueue"} {
		method, path, _ := strings.Cut(route, " ")
		wantProblem(t, c.do(method, path, "{}"), forbidden)
	}
	if c.asked != nil {
		t.Errorf("asked: %q", c.asked)
	}
	tr.want(t)
	for _, path := range []string{"/sinks/nobody/pause", "/sinks/nobody/resume", "/sinks/nobody/replay"} {
		c.do("POST", path, "")
	}
	tr.want(t)
}

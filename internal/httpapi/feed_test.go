package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

// body is that of an event, as sinks get it.
func body(n int) string {
	e := event.New(event.JobCompleted, jobID, uint64(n), submitted, event.Data{Function: "f", Result: []byte(`{"a": 1, "a":"<&>"}`)})
	return string(webhook.Encode("/gateway", e))
}

type feedPage struct {
	Items []struct{ Data struct{ Seq int } }
	Next  string `json:"next_cursor"`
}

func (p feedPage) String() string {
	s := ""
	for _, e := range p.Items {
		s += fmt.Sprint(e.Data.Seq, " ")
	}
	return s + "next " + p.Next
}

// feed gets a page, and where Link says that there is more.
func (c *client) feed(target string, headers ...string) (page feedPage, link string) {
	c.t.Helper()
	res := c.do(http.MethodGet, target, "", headers...)
	if res.Code != http.StatusOK {
		c.t.Errorf("%s: got %d %s", target, res.Code, res.Body)
		return page, ""
	}
	if got := res.Header().Get("Vary"); got != "Prefer" {
		c.t.Errorf("Vary: %q", got)
	}
	decode(c.t, res, &page)
	link, _ = strings.CutSuffix(strings.TrimPrefix(res.Header().Get("Link"), "<"), `>; rel="next"`)
	return page, link
}

func TestEventsAreThoseOfTheSinks(t *testing.T) {
	c := newClient(t, Options{})
	one, two := body(1), body(2)
	c.hooks.happen(one, two)
	res := c.do(http.MethodGet, "/events", "")
	if got, want := res.Body.String(), `{"items":[`+one+`,`+two+`],"next_cursor":"2"}`+"\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if res := c.do(http.MethodHead, "/events", ""); res.Code != http.StatusOK || res.Header().Get("Content-Type") != "application/json" {
		t.Errorf("HEAD: got %d %v", res.Code, res.Header())
	}
	wantProblem(t, c.do(http.MethodGet, "/events", "", "Accept", "text/event-stream"), notAcceptable)
}

func TestEventsInPages(t *testing.T) {
	c := newClient(t, Options{})
	for n := range 5 {
		c.hooks.happen(body(n + 1))
	}
	var got []string
	target := "/events?limit=2&type=job.*"
	for range 3 {
		page, link := c.feed(target)
		got = append(got, page.String())
		if link == "" {
			target = "/events?limit=2&after=" + page.Next
			continue
		}
		next, err := url.Parse(link)
		if err != nil || next.Query().Get("after") != page.Next || next.Query().Get("type") != "job.*" {
			t.Fatalf("Link: %s", link)
		}
		target = link
	}
	if diff := cmp.Diff([]string{"1 2 next 2", "3 4 next 4", "5 next 5"}, got); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
	page, link := c.feed("/events?after=5")
	if page.String() != "next 5" || link != "" {
		t.Errorf("at the end: %s, %s", page, link)
	}
	// It goes on from the cursor of an empty page.
	c.hooks.happen(body(6))
	if page, _ := c.feed("/events?after=" + page.Next); page.String() != "6 next 6" {
		t.Errorf("after the end: %s", page)
	}
}

func TestWhichEventsAreAskedFor(t *testing.T) {
	const id = "evt_0193d8a0-5b5c-7c3e-8f4e-2f1d3c5b7a90"
	for query, want := range map[string]webhook.EventQuery{
		"":                                   {Limit: 100},
		"?after=0":                           {Limit: 100},
		"?after=7&limit=1000":                {After: 7, Limit: 1000},
		"?after=" + id:                       {AfterID: id, Limit: 100},
		"?job=" + jobID:                      {Subject: jobID, Limit: 100},
		"?job=H:a/b:7&limit=1":               {Subject: "H:a/b:7", Limit: 1},
		"?type=job.completed":                {Types: event.Patterns{"job.completed"}, Limit: 100},
		"?type=worker.*,job.lost":            {Types: event.Patterns{"job.lost", "worker.*"}, Limit: 100},
		"?type=*,job.*,*,job.*":              {Types: event.Patterns{"*", "job.*"}, Limit: 100},
		"?wait=0s&after=9223372036854775807": {After: 1<<63 - 1, Limit: 100},
	} {
		c := newClient(t, Options{})
		c.hooks.events = func(q webhook.EventQuery) (webhook.EventPage, error) {
			return webhook.EventPage{Next: q.After, End: true}, nil
		}
		c.feed("/events" + query)
		if diff := cmp.Diff([]webhook.EventQuery{want}, c.hooks.asked); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
}

func TestEventQueriesThatAreRefused(t *testing.T) {
	c := newClient(t, Options{})
	for query, where := range map[string]string{
		"after=": "after", "after=-1": "after", "after=%2B1": "after", "after=x": "after", "after=9223372036854775808": "after", "after=1.0": "after",
		"after=evt_" + strings.Repeat("0", 61): "after", "after=" + jobID: "after",
		"type=": "type", "type=job": "type", "type=job.done": "type", "type=job.*,": "type", "type=sink.test": "type",
		"job=": "job", "job=a%20b": "job", "job=a%00": "job", "job=" + strings.Repeat("x", 64): "job",
		"limit=0": "limit", "limit=1001": "limit", "limit=": "limit", "limit=ten": "limit",
		"wait=": "wait", "wait=30": "wait", "wait=-1s": "wait", "wait=5m1s": "wait",
		"cursor=1": "cursor", "after=1&after=2": "after", "subject=x": "subject",
		"after=x&type=x&job=&limit=x&wait=x": "after job limit type wait",
	} {
		wantProblem(t, c.do(http.MethodGet, "/events?"+query, ""), validationError, strings.Fields(where)...)
	}
	if len(c.hooks.asked) > 0 {
		t.Errorf("asked for %v", c.hooks.asked)
	}
}

func TestEventsThatAreGone(t *testing.T) {
	for name, events := range map[string]func(webhook.EventQuery) (webhook.EventPage, error){
		"expired": func(webhook.EventQuery) (webhook.EventPage, error) {
			return webhook.EventPage{}, fmt.Errorf("events: %w", webhook.ErrEventsExpired)
		},
		"no event": func(webhook.EventQuery) (webhook.EventPage, error) {
			return webhook.EventPage{}, fmt.Errorf("events: %w", webhook.ErrNoEvent)
		},
		"beyond the end": func(webhook.EventQuery) (webhook.EventPage, error) { return webhook.EventPage{Next: 3, End: true}, nil },
	} {
		c := newClient(t, Options{})
		c.hooks.events = events
		res := c.do(http.MethodGet, "/events?after=7&wait=1m", "")
		wantProblem(t, res, eventsExpired)
		if !strings.Contains(res.Body.String(), "Begin without after") {
			t.Errorf("%s: %s", name, res.Body)
		}
	}
	c := newClient(t, Options{})
	c.hooks.events = func(webhook.EventQuery) (webhook.EventPage, error) {
		return webhook.EventPage{}, errors.New("disk of /var/lib")
	}
	res := c.do(http.MethodGet, "/events", "")
	wantProblem(t, res, internalError)
	if strings.Contains(res.Body.String(), "/var/lib") {
		t.Errorf("the problem says too much: %s", res.Body)
	}
}

// TestPagesWithoutEventsArePassedOver has a log of which a page is 10 events, and the one that is asked for far away.
func TestPagesWithoutEventsArePassedOver(t *testing.T) {
	const at = 10 * maxLooks
	c := newClient(t, Options{})
	c.hooks.events = func(q webhook.EventQuery) (webhook.EventPage, error) {
		switch {
		case q.After == 0 && q.AfterID == "":
			t.Error("it begins at the beginning once more")
		case q.AfterID != "":
			q.After = 10
		case q.After == at:
			return webhook.EventPage{Bodies: [][]byte{[]byte(body(1))}, Next: at + 1, End: true}, nil
		}
		return webhook.EventPage{Next: q.After + 10}, nil
	}
	if page, link := c.feed("/events?after=evt_1"); page.String() != fmt.Sprint("1 next ", at+1) || link != "" {
		t.Errorf("got %s, %s", page, link)
	}
	// One page more, and the answer is empty, and says where to go on.
	c.hooks.asked = nil
	c.hooks.events = func(q webhook.EventQuery) (webhook.EventPage, error) {
		return webhook.EventPage{Next: q.After + 10}, nil
	}
	page, link := c.feed("/events?after=3")
	if want := fmt.Sprint("next ", 3+at); page.String() != want || len(c.hooks.asked) != maxLooks || !strings.HasSuffix(link, fmt.Sprint("after=", 3+at)) {
		t.Errorf("got %s, %s after %d pages", page, link, len(c.hooks.asked))
	}
	// Who waits, waits for an event.
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Options{})
		far := time.Now().Add(20 * time.Second)
		c.hooks.events = func(q webhook.EventQuery) (webhook.EventPage, error) {
			if time.Now().Before(far) {
				return webhook.EventPage{Next: q.After + 10}, nil
			}
			return webhook.EventPage{Bodies: [][]byte{[]byte(body(1))}, Next: q.After + 1, End: true}, nil
		}
		if page, _ := c.feed("/events?wait=1m"); len(page.Items) != 1 || time.Since(far) > time.Second {
			t.Errorf("got %s after %v", page, time.Since(far))
		}
	})
}

func TestEventsAreWaitedFor(t *testing.T) {
	for _, tt := range []struct {
		query, prefer, applied string
		happens, want          time.Duration
	}{
		{"wait=30s", "", "", 20 * time.Second, 20 * time.Second},
		{"wait=30s", "", "", 40 * time.Second, 30 * time.Second},
		{"", "wait=30", "wait=30", 20 * time.Second, 20 * time.Second},
		{"", "wait=9999", "wait=300", time.Hour, 5 * time.Minute},
		{"wait=10s", "wait=30", "", 20 * time.Second, 10 * time.Second},
		{"wait=30s&after=0", "", "", 0, 0},
		{"", "", "", time.Second, 0},
		{"wait=0s", "wait=5", "", time.Second, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, Options{})
			if tt.happens == 0 {
				c.hooks.happen(body(1))
			} else {
				defer time.AfterFunc(tt.happens, func() { c.hooks.happen(body(1)) }).Stop()
			}
			begun := time.Now()
			res := c.do(http.MethodGet, "/events?"+tt.query, "", "Prefer", tt.prefer)
			if got := time.Since(begun); res.Code != http.StatusOK || got != tt.want {
				t.Errorf("%v: got %d after %v", tt, res.Code, got)
			}
			want := "next 0"
			if tt.happens <= tt.want {
				want = "1 next 1"
			}
			var page feedPage
			if decode(t, res, &page); page.String() != want {
				t.Errorf("%v: got %s, want %s", tt, page, want)
			}
			if got := res.Header().Get("Preference-Applied"); got != tt.applied {
				t.Errorf("%v: Preference-Applied %q", tt, got)
			}
			if got := c.api.waiting.used.Load(); got != 0 {
				t.Errorf("%d waits were not given back", got)
			}
		})
	}
}

// TestEventsOfOthersAreLookedAtTogether has a waiter for something that never happens, while much else does.
func TestEventsOfOthersAreLookedAtTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Options{})
		begun := time.Now()
		last := time.Duration(-1)
		c.hooks.events = func(q webhook.EventQuery) (webhook.EventPage, error) {
			at := time.Since(begun)
			if last >= 0 && at-last < feedPause && at != 10*time.Second {
				t.Errorf("looked at %v and %v", last, at)
			}
			if at > 10*time.Second {
				t.Error("looked after the end")
			}
			last = at
			return webhook.EventPage{Next: q.After + 1, End: true}, nil
		}
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.feed("/events?wait=10s&type=job.lost")
		}()
		for {
			select {
			case <-ticker.C:
				c.hooks.happen("{}")
				continue
			case <-done:
			}
			break
		}
		if n := len(c.hooks.asked); n < 100 || n > 201 {
			t.Errorf("looked %d times in 10 s", n)
		}
	})
}

func TestDrainEndsTheWaitForEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Options{})
		answers := make(chan *httptest.ResponseRecorder)
		go func() { answers <- c.do(http.MethodGet, "/events?wait=5m", "") }()
		synctest.Wait()
		begun := time.Now()
		c.api.beginDrain()
		res := <-answers
		if res.Code != http.StatusOK || res.Body.String() != `{"items":[],"next_cursor":"0"}`+"\n" || res.Header().Get("Connection") != "close" {
			t.Errorf("got %d %v %s", res.Code, res.Header(), res.Body)
		}
		c.hooks.happen(body(1))
		if page, _ := c.feed("/events?wait=5m"); page.String() != "1 next 1" { // what there is, there is
			t.Errorf("while draining: %s", page)
		}
		c.feed("/events?wait=5m&after=1")
		if time.Since(begun) != 0 {
			t.Errorf("waited for %v while draining", time.Since(begun))
		}
	})
}

func TestShutdownEndsTheWaitForEvents(t *testing.T) {
	f := &fake{}
	looked := make(chan struct{}, 9)
	f.hooks.events = func(webhook.EventQuery) (webhook.EventPage, error) {
		looked <- struct{}{}
		return webhook.EventPage{End: true}, nil
	}
	s, url := serve(t, f, Options{DrainDelay: time.Millisecond})
	answer := make(chan string, 1)
	go func() {
		res, err := http.Get(url + "/events?wait=5m")
		if err != nil {
			answer <- err.Error()
			return
		}
		res.Body.Close()
		answer <- res.Status
	}()
	<-looked
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if got := <-answer; got != "200 OK" {
		t.Errorf("the waiter got %s", got)
	}
}

func TestAClientThatLeavesTheWaitForEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Options{})
		ctx, leave := context.WithCancel(t.Context())
		defer time.AfterFunc(time.Second, leave).Stop()
		if res := c.send(ctx, http.MethodGet, "/events?wait=5m", ""); res.Body.Len() > 0 {
			t.Errorf("answered %s", res.Body)
		}
		if !strings.Contains(c.log.String(), `"status":499`) || c.api.waiting.used.Load() != 0 {
			t.Errorf("log: %s", &c.log)
		}
	})
}

func TestWaitersForEventsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Options{MaxWaiting: 1})
		first := make(chan int)
		go func() { first <- c.do(http.MethodGet, "/events?wait=5m", "").Code }()
		synctest.Wait()
		wantProblem(t, c.do(http.MethodGet, "/events?wait=1s", ""), queueFull)
		wantProblem(t, c.do(http.MethodGet, "/jobs/x?wait=1s", ""), queueFull)
		c.feed("/events") // waits for nothing
		c.hooks.happen(body(1))
		if got := <-first; got != http.StatusOK {
			t.Errorf("first: got %d", got)
		}
		c.feed("/events?after=1&wait=1s")
	})
}

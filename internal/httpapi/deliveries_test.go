package httpapi

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

func aDelivery(n int64, sink string) webhook.Delivery {
	return webhook.Delivery{
		N: n, Sink: sink, EventID: fmt.Sprint("evt_", n), Type: event.JobCompleted, Subject: jobID, Time: submitted, State: webhook.Pending,
		Attempts: 1, Due: submitted.Add(5 * time.Second),
	}
}

func TestDeliveriesInPages(t *testing.T) {
	c := newClient(t, Options{})
	all := []webhook.Delivery{aDelivery(7, "a:b"), aDelivery(7, "audit"), aDelivery(6, "größe/"), aDelivery(5, "audit")}
	var asked []webhook.DeliveryQuery
	c.hooks.deliveries = func(q webhook.DeliveryQuery) (found []webhook.Delivery, err error) {
		asked = append(asked, q)
		for _, d := range all {
			if q.Before == 0 || d.N < q.Before || d.N == q.Before && d.Sink > q.BeforeSink {
				found = append(found, d)
			}
		}
		return found[:min(q.Limit, len(found))], nil
	}
	var got []string
	for target := "/deliveries?limit=1&state=pending"; target != ""; {
		var page struct {
			Items []struct{ ID string }
			Next  *string `json:"next_cursor"`
		}
		res := c.do(http.MethodGet, target, "")
		decode(t, res, &page)
		for _, d := range page.Items {
			got = append(got, d.ID)
		}
		link, _ := strings.CutSuffix(strings.TrimPrefix(res.Header().Get("Link"), "<"), `>; rel="next"`)
		next, err := url.Parse(link)
		if err != nil || (page.Next == nil) != (link == "") || page.Next != nil && next.Query().Get("cursor") != *page.Next {
			t.Fatalf("Link %s of %s", link, res.Body)
		}
		target = link
	}
	if diff := cmp.Diff([]string{"evt_7:a:b", "evt_7:audit", "evt_6:größe/", "evt_5:audit"}, got); diff != "" {
		t.Errorf("deliveries (-want +got):\n%s", diff)
	}
	want := webhook.DeliveryQuery{State: webhook.Pending, Before: 7, BeforeSink: "a:b", Limit: 2}
	if diff := cmp.Diff(want, asked[1]); diff != "" {
		t.Errorf("the second page (-want +got):\n%s", diff)
	}
	asked = nil
	c.do(http.MethodGet, "/deliveries?sink=audit&limit=200", "")
	if res := c.do(http.MethodHead, "/deliveries", ""); res.Code != http.StatusOK || res.Header().Get("Link") != "" {
		t.Errorf("HEAD: got %d %v", res.Code, res.Header())
	}
	if diff := cmp.Diff([]webhook.DeliveryQuery{{Sink: "audit", Limit: 201}, {Limit: 51}}, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestDeliveriesThatAreRefused(t *testing.T) {
	c := newClient(t, Options{})
	cursor := base64.RawURLEncoding.EncodeToString
	for query, where := range map[string]string{
		"limit=201": "limit", "limit=0": "limit", "limit=x": "limit", "state=lost": "state", "state=": "state", "sink=": "sink", "event=x": "event",
		"cursor=": "cursor", "cursor=7": "cursor", "cursor=%3D": "cursor", "cursor=" + cursor([]byte("7")): "cursor", "cursor=" + cursor([]byte("7:")): "cursor",
		"cursor=" + cursor([]byte("0:audit")): "cursor", "cursor=" + cursor([]byte("-7:audit")): "cursor", "cursor=" + cursor([]byte("x:audit")): "cursor",
		"sink=&state=x&limit=x&cursor=x": "cursor limit sink state",
	} {
		wantProblem(t, c.do(http.MethodGet, "/deliveries?"+query, ""), validationError, strings.Fields(where)...)
	}
	if got := c.do(http.MethodGet, "/deliveries", "").Body.String(); got != `{"items":[],"next_cursor":null}`+"\n" {
		t.Errorf("none: %s", got)
	}
}

func TestADelivery(t *testing.T) {
	c := newClient(t, Options{})
	d := aDelivery(7, "a:b")
	d.Log = []webhook.Attempt{{At: submitted, Duration: time.Millisecond, Status: 500, Error: "answered 500", Answer: []byte("\xff")}}
	c.hooks.delivery = func() (webhook.Delivery, error) { return d, nil }
	want := `{"id":"evt_7:a:b","sink":"a:b","event":{"id":"evt_7","type":"job.completed","subject":"` + jobID + `","time":"2027-01-01T00:00:00.000Z"},` +
		`"state":"pending","attempts":1,"next_attempt_at":"2027-01-01T00:00:05.000Z","log":[{"at":"2027-01-01T00:00:00.000Z","duration_ms":1,` +
		`"ok":false,"status":500,"error":"answered 500","answer":"/w==","answer_encoding":"base64"}]}` + "\n"
	for _, path := range []string{"/deliveries/evt_7:a:b", "/deliveries/evt_7%3Aa%3ab"} {
		if diff := cmp.Diff(want, c.do(http.MethodGet, path, "").Body.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
		c.hooks.wantCalls(t, "delivery a:b evt_7")
	}
	res := c.do(http.MethodPost, "/deliveries/evt_7:a:b/redeliver", "")
	if diff := cmp.Diff(want, res.Body.String()); diff != "" || res.Code != http.StatusAccepted || res.Header().Get("Location") != "/deliveries/evt_7:a:b" {
		t.Errorf("got %d %v (-want +got):\n%s", res.Code, res.Header(), diff)
	}
	c.hooks.wantCalls(t, "redeliver a:b evt_7", "delivery a:b evt_7")
	d.Sink = "a/b c"
	res = c.do(http.MethodPost, "/deliveries/evt_7:a%2Fb%20c/redeliver", "")
	if got := res.Header().Get("Location"); got != "/deliveries/evt_7:a%2Fb%20c" {
		t.Errorf("Location: %s", got)
	}
	c.hooks.wantCalls(t, "redeliver a/b c evt_7", "delivery a/b c evt_7")
	d.Sink = "a:b"

	d.State, d.Due, d.Log, d.Subject = webhook.Dead, time.Time{}, nil, ""
	body := c.do(http.MethodGet, "/deliveries/evt_7:a", "").Body.String()
	if !strings.Contains(body, `"subject":null`) || !strings.Contains(body, `"state":"dead","attempts":1,"next_attempt_at":null,"log":[]}`) {
		t.Errorf("dead: %s", body)
	}
	if res := c.do(http.MethodHead, "/deliveries/evt_7:a", ""); res.Code != http.StatusOK {
		t.Errorf("HEAD: got %d", res.Code)
	}
}

func TestDeliveriesThatAreNotFound(t *testing.T) {
	c := newClient(t, Options{})
	for _, id := range []string{"evt_7", "evt_7:", ":audit", ":", "a%00b"} {
		for _, res := range []*httptest.ResponseRecorder{
			c.do(http.MethodGet, "/deliveries/"+id, ""), c.do(http.MethodPost, "/deliveries/"+id+"/redeliver", ""),
		} {
			wantProblem(t, res, deliveryNotFound)
		}
	}
	c.hooks.wantCalls(t) // nobody was asked
	wantProblem(t, c.do(http.MethodGet, "/deliveries/evt_7:audit", ""), deliveryNotFound)
	for err, want := range map[error]kind{
		webhook.ErrNoDelivery: deliveryNotFound, webhook.ErrNoSink: sinkNotFound, webhook.ErrPending: deliveryPending,
	} {
		c.hooks.redeliver = fmt.Errorf("redeliver: %w", err)
		res := c.do(http.MethodPost, "/deliveries/evt_7:audit/redeliver", "")
		wantProblem(t, res, want)
		if res.Header().Get("Location") != "" {
			t.Errorf("%v: Location %s", err, res.Header().Get("Location"))
		}
	}
}

func TestAnswersOfSinks(t *testing.T) {
	full := strings.Repeat("x", maxAnswer-1)
	for _, tt := range []struct{ name, answer, want, encoding string }{
		{"text", "größe", "größe", "text"},
		{"an object", `{"a":1}`, `{"a":1}`, "text"},
		{"bytes", "\xff\x00", "/wA=", "base64"},
		{"all there is", full + "x", full + "x", "text"},
		{"more than there should be", full + "xyz", full + "x", "text"},
		{"cut within two bytes", full + "\xc3", full, "text"},
		{"cut within four bytes", full[2:] + "\xf0\x9f\x8e", full[2:], "text"},
		{"cut behind a character", full[1:] + "é", full[1:] + "é", "text"},
		{"cut off by the sink", "gr\xc3", base64.StdEncoding.EncodeToString([]byte("gr\xc3")), "base64"},
		{"bytes at the end", full + "\xff", base64.StdEncoding.EncodeToString([]byte(full + "\xff")), "base64"},
		{"bytes at the end that begin nothing", full[3:] + "\x80\x80\x80\x80", base64.StdEncoding.EncodeToString([]byte(full[3:] + "\x80\x80\x80\x80")), "base64"},
		{"bytes before the cut", "\xff" + full[1:] + "\xc3", base64.StdEncoding.EncodeToString([]byte("\xff" + full[1:])), "base64"},
	} {
		if got, encoding := answerText([]byte(tt.answer)); got != tt.want || encoding != tt.encoding {
			t.Errorf("%s: got %d bytes of %s, want %d of %s", tt.name, len(got), encoding, len(tt.want), tt.encoding)
		}
	}
}

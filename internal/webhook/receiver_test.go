package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/event"
)

// deliver gives rc a body, signed with the secrets if there are any, and returns the answer.
func deliver(rc *Receiver, body string, secrets ...Secret) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	timestamp := fmt.Sprint(time.Now().Unix())
	r.Header.Set("webhook-id", "evt_1")
	r.Header.Set("webhook-timestamp", timestamp)
	if len(secrets) > 0 {
		r.Header.Set("webhook-signature", signAll(secrets, "evt_1", timestamp, []byte(body)))
	}
	w := httptest.NewRecorder()
	rc.ServeHTTP(w, r)
	return w
}

func TestReceiverPrintsALineForAnEvent(t *testing.T) {
	mine, other := secret(t, vectorSecret), otherSecret(t)
	told := event.New(event.JobCompleted, "0193", 4, noon, event.Data{Function: "f", Result: []byte("a\nb")})
	told.ID = "evt_1"
	sent := string(body(told))
	const data = `{"function":"f","seq":4,"result":"a\nb","result_encoding":"text"}`
	for name, row := range map[string]struct {
		known, signed []Secret
		body, want    string
	}{
		"signed":          {[]Secret{other, mine}, []Secret{mine}, sent, "2027-01-01T11:00:00.5Z verified job.completed 0193 seq=4 id=evt_1 " + data},
		"not signed":      {nil, nil, sent, "2027-01-01T11:00:00.5Z unsigned job.completed 0193 seq=4 id=evt_1 " + data},
		"cannot be known": {nil, []Secret{mine}, sent, "2027-01-01T11:00:00.5Z unverified job.completed 0193 seq=4 id=evt_1 " + data},
		"another's event": {nil, nil, `{"specversion":"1.0","type":"x","time":"2027-01-01T00:00:00Z"}`, "2027-01-01T00:00:00Z unsigned x - seq=- id=- "},
		"tricks": {
			nil, nil, `{"specversion":"1.0","type":"a b","subject":"x\n2027 verified","time":"2027-01-01T00:00:00Z","data":` + "[\n1,\"\u009b\x7f\"]}",
			`2027-01-01T00:00:00Z unsigned a\u0020b x\u000a2027\u0020verified seq=- id=- [1,"\u009b\u007f"]`,
		},
	} {
		var out bytes.Buffer
		w := deliver(&Receiver{Secrets: row.known, Out: &out}, row.body, row.signed...)
		if w.Code != 204 || out.String() != row.want+"\n" {
			t.Errorf("%s: got %d %s\n%s\nwant 204\n%s", name, w.Code, w.Body, &out, row.want)
		}
	}
}

func TestReceiverRefusesAndSaysWhy(t *testing.T) {
	mine, other := secret(t, vectorSecret), otherSecret(t)
	var out, log bytes.Buffer
	rc := &Receiver{Secrets: []Secret{mine}, Out: &out, Log: zerolog.New(&log)}
	for name, row := range map[string]struct {
		body   string
		signed []Secret
		status int
		want   string
	}{
		"not signed":     {"{}", nil, 401, "not signed"},
		"another secret": {"{}", []Secret{other}, 401, "no signature matches"},
		"not JSON":       {"hello", []Secret{mine}, 400, "not a CloudEvent"},
		"no event":       {"{}", []Secret{mine}, 400, "specversion or type is missing"},
		"large":          {strings.Repeat(" ", maxReceived+1), []Secret{mine}, 413, "1048576"},
	} {
		log.Reset()
		w := deliver(rc, row.body, row.signed...)
		if w.Code != row.status || !strings.Contains(w.Body.String(), row.want) || !strings.Contains(log.String(), row.want) {
			t.Errorf("%s: got %d %s, logged %s, want %d %s", name, w.Code, w.Body, &log, row.status, row.want)
		}
	}
	w := httptest.NewRecorder()
	rc.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != 405 || w.Header().Get("Allow") != "POST" {
		t.Errorf("GET: got %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
	if out.Len() > 0 {
		t.Errorf("printed %s", &out)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestReceiverThatCannotPrintAsksForARetry(t *testing.T) {
	if w := deliver(&Receiver{Out: fullDisk{}}, string(body(ev("a", 1)))); w.Code != 500 {
		t.Errorf("got %d, want 500", w.Code)
	}
}

func TestAReceiverMisbehavesAsItIsAsked(t *testing.T) {
	var out bytes.Buffer
	rc := &Receiver{Out: &out, Faults: Faults{Rate: 1, Status: 503}}
	if w := deliver(rc, string(body(ev("a", 1)))); w.Code != 503 || out.Len() > 0 {
		t.Errorf("got %d, and printed %q", w.Code, &out)
	}
	rc.Faults = Faults{Rate: 0.5}
	refused := 0
	for range 1000 {
		if w := deliver(rc, string(body(ev("a", 1)))); w.Code == 500 {
			refused++
		}
	}
	if refused < 300 || refused > 700 || strings.Count(out.String(), "\n") != 1000-refused {
		t.Errorf("%d of 1000 were refused, and %d printed", refused, strings.Count(out.String(), "\n"))
	}
}

package webhook

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	cloudevent "github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
)

var noon = time.Date(2027, 1, 1, 12, 0, 0, 500_000_000, time.FixedZone("", 3600))

// decode checks a body with the CloudEvents SDK and returns it with its data.
func decode(t *testing.T, body []byte) (e cloudevent.Event, data map[string]any) {
	t.Helper()
	if err := json.Unmarshal(body, &e); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if err := e.Validate(); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if err := json.Unmarshal(e.Data(), &data); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if len(body) >= 20_000 {
		t.Errorf("a body of %d bytes, want less than 20,000", len(body))
	}
	return e, data
}

func body(e event.Event) []byte { return Encode("/gateway", e) }

func TestBodyIsTheDocumentedOne(t *testing.T) {
	e := event.New(event.JobCompleted, "0193", 4, noon, event.Data{ID: "0193", Function: "resize", Result: []byte("{\"w\": 10,\n \"h\":\"<5>\"}")})
	got := string(body(e))
	want := `{"specversion":"1.0","id":"` + e.ID + `","source":"/gateway","type":"job.completed","subject":"0193",` +
		`"time":"2027-01-01T11:00:00.5Z","timestamp":"2027-01-01T11:00:00.5Z","datacontenttype":"application/json",` +
		`"data":{"id":"0193","function":"resize","seq":4,"result":{"w":10,"h":"<5>"},"result_encoding":"json"}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEveryTypeIsAValidCloudEvent(t *testing.T) {
	for _, typ := range event.Types {
		want := event.New(typ, "0193", 7, noon, event.Data{
			ID: "0193", Handle: "H:g1:42", Server: "g1:4730", Function: "resize", Unique: "img-7", Mode: "sync", Priority: "high",
			State: "completed", Progress: &event.Progress{Numerator: 1, Denominator: 2}, Chunk: []byte("chunk"), Result: []byte("result"),
			Error: &event.Error{Kind: "failed", Message: "no"}, Worker: "w", DurationMS: 1.5,
			Rest: &event.Rest{Servers: []string{"g1"}, Functions: []string{"f"}},
		})
		got, data := decode(t, body(want))
		if got.ID() != want.ID || got.Type() != string(typ) || got.Subject() != "0193" || got.Source() != "/gateway" || !got.Time().Equal(noon) {
			t.Errorf("%s: got %v", typ, got)
		}
		if data["seq"] != 7.0 || data["function"] != "resize" || data["duration_ms"] != 1.5 {
			t.Errorf("%s: data is %v", typ, data)
		}
		for member, of := range map[string]event.Type{"result": event.JobCompleted, "data": event.JobData, "warning": event.JobWarning} {
			if _, has := data[member]; has != (typ == of) {
				t.Errorf("%s: data has member %s: %v", typ, member, has)
			}
		}
	}
}

func TestPayloads(t *testing.T) {
	for name, row := range map[string]struct {
		typ     event.Type
		payload []byte
		want    map[string]any
	}{
		"object":        {event.JobCompleted, []byte(` {"w":10}`), map[string]any{"result": map[string]any{"w": 10.0}, "result_encoding": "json"}},
		"text":          {event.JobCompleted, []byte("a\nb"), map[string]any{"result": "a\nb", "result_encoding": "text"}},
		"binary":        {event.JobCompleted, []byte{0xff, 0x00}, map[string]any{"result": "/wA=", "result_encoding": "base64"}},
		"empty result":  {event.JobCompleted, []byte{}, map[string]any{"result": "", "result_encoding": "text"}},
		"no result":     {event.JobCompleted, nil, map[string]any{}},
		"empty chunk":   {event.JobData, nil, map[string]any{"data": "", "data_encoding": "text"}},
		"binary chunk":  {event.JobData, []byte{0xff}, map[string]any{"data": "/w==", "data_encoding": "base64"}},
		"warning":       {event.JobWarning, []byte("hm"), map[string]any{"warning": "hm", "warning_encoding": "text"}},
		"large result":  {event.JobCompleted, []byte(strings.Repeat("x", 1<<20)), map[string]any{"result_omitted": true, "links": map[string]any{"result": "/jobs/H:g%2F1/result"}}},
		"large chunk":   {event.JobData, make([]byte, 20_000), map[string]any{"data_omitted": true, "links": map[string]any{"self": "/jobs/H:g%2F1"}}},
		"large warning": {event.JobWarning, make([]byte, 19_000), map[string]any{"warning_omitted": true, "links": map[string]any{"self": "/jobs/H:g%2F1"}}},
		"large when escaped": {event.JobCompleted, []byte(strings.Repeat("\x01", 5000)), map[string]any{
			"result_omitted": true, "links": map[string]any{"result": "/jobs/H:g%2F1/result"},
		}},
	} {
		d := event.Data{Chunk: row.payload}
		if row.typ == event.JobCompleted {
			d = event.Data{Result: row.payload}
		}
		_, got := decode(t, body(event.New(row.typ, "H:g/1", 1, noon, d)))
		delete(got, "seq")
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestPayloadThatJustFits(t *testing.T) {
	e := event.New(event.JobCompleted, "0193", 1, noon, event.Data{Result: []byte{}})
	room := maxBody - 1 - len(body(e))
	e.Data.Result = []byte(strings.Repeat("x", room))
	if got := body(e); len(got) != maxBody-1 {
		t.Errorf("a body of %d bytes, want the largest of %d", len(got), maxBody-1)
	}
	e.Data.Result = append(e.Data.Result, 'x')
	if _, data := decode(t, body(e)); data["result_omitted"] != true {
		t.Error("one byte more was not left out")
	}
}

func TestWaitingMessageHoldsNoLargePayload(t *testing.T) {
	var m message
	m.take(new(event.New(event.JobFailed, "0193", 1, noon, event.Data{
		Result: make([]byte, 1<<20), Error: &event.Error{Kind: "failed", Message: strings.Repeat("é", 1<<20)},
	})))
	if m.event.Data.Result != nil || len(m.event.Data.Error.Message) > maxText+len("…") {
		t.Error("the message holds what it will not send")
	}
	if m.size > eventSize+maxText+10 {
		t.Errorf("it counts as %d bytes", m.size)
	}
	m = message{}
	m.take(new(event.New(event.WorkerOnFailure, "w", 1, noon, event.Data{
		Function: "f", Owner: "o", Result: []byte("r"), Chunk: []byte("c"), Error: &event.Error{}, Reason: "why", Rest: &event.Rest{Sink: "s"},
	})))
	m.bytes("/gateway")
	if diff := cmp.Diff(event.Data{Function: "f", Owner: "o"}, m.event.Data); diff != "" {
		t.Errorf("the message holds what its body says: %s", diff)
	}
}

func TestLongTextsAndListsAreCut(t *testing.T) {
	long := "x" + strings.Repeat("é", 5000)
	list := make([]string, 1000)
	for i := range list {
		list[i] = strings.Repeat("f", 100)
	}
	published := &event.Error{Kind: "exception", Message: long}
	_, data := decode(t, body(event.New(event.JobFailed, "0193", 1, noon, event.Data{Error: published})))
	if msg := data["error"].(map[string]any)["message"].(string); len(msg) != maxText-1+len("…") || !utf8.ValidString(msg) || strings.ContainsRune(msg, utf8.RuneError) {
		t.Errorf("error.message has %d bytes", len(msg))
	}
	if published.Message != long {
		t.Error("the published event was changed")
	}
	_, data = decode(t, body(event.New(event.WorkerOnFailure, "w", 1, noon, event.Data{
		Error: &event.Error{Kind: "failed", Message: strings.Repeat("\x01", 5000)}, Reason: strings.Repeat("\x02", 5000),
		Rest: &event.Rest{Functions: list, Servers: list, Sink: "s"},
	})))
	if data["truncated"] != true || data["functions"] != nil || data["sink"] != "s" || !strings.HasSuffix(data["reason"].(string), "…") {
		t.Errorf("data is %v", data)
	}
}

func TestOddEventsStayValid(t *testing.T) {
	e, data := decode(t, body(event.New(event.JobProgress, "H:\x01\u0085\xff:1", 1, noon, event.Data{
		Handle: "H:\x01\xff", Progress: &event.Progress{Numerator: math.NaN(), Denominator: 1}, DurationMS: math.Inf(1),
	})))
	if want := "H:\ufffd\ufffd\ufffd:1"; e.Subject() != want {
		t.Errorf("subject is %q, want %q", e.Subject(), want)
	}
	if data["progress"] != nil || data["duration_ms"] != nil {
		t.Errorf("data is %v, want no numbers that JSON does not have", data)
	}
	if raw := string(body(event.New(event.WorkerAfterRun, "", 1, time.Time{}, event.Data{}))); strings.Contains(raw, `"subject"`) {
		t.Errorf("an empty subject is not left out: %s", raw)
	}
	decode(t, body(event.New(event.WorkerAfterRun, "", 1, time.Time{}, event.Data{})))
}

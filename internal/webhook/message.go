// Package webhook sends lifecycle events to HTTP receivers, signed, and receives them.
//
// A delivery is one POST that is at once a Standard Webhooks 1.0 message and a CloudEvents 1.0 structured event:
//
//	Content-Type: application/cloudevents+json
//	webhook-id: evt_…                   the event's id, the same on every attempt
//	webhook-timestamp: 1614265330       of the attempt
//	webhook-signature: v1,… v1,…        one for each secret
//	traceparent: 00-…                   of the attempt where there are traces, else of the request that submitted the job, where it had one
//
//	{"specversion":"1.0","id":"evt_…","source":"…","type":"job.completed","subject":"<job id>","time":"…Z","timestamp":"…Z",
//	 "datacontenttype":"application/json","data":{"id":"<job id>","function":"…",…,"seq":4,"result":{…},"result_encoding":"json"}}
package webhook

import (
	"bytes"
	"encoding/json"
	"math"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"gearman-gateway/internal/event"
)

const contentType = "application/cloudevents+json"

const (
	maxBody = 20_000 // bytes; bodies are smaller. Standard Webhooks advises it: receivers refuse what is large
	maxText = 8_000  // bytes of an error's or a reason's text
	cutText = 1_000  // the same in a body that would otherwise be too large; JSON makes at most six bytes of one
)

// Encode returns the body of an event's deliveries, which source names as the one it comes from. It is at most 20 kB: payloads and texts
// that are larger are left out or cut.
func Encode(source string, e event.Event) []byte {
	var m message
	m.take(&e)
	return m.bytes(source)
}

// A message is one event, and its body once a sink needed it. It is shared by the sinks and safe for concurrent use.
type message struct {
	event   event.Event // without its payload and texts after encode
	size    int64       // what it counts against a queue's bytes
	encode  sync.Once
	omitted bool   // the payload was too large to keep
	body    []byte // after encode
}

// eventSize is what an event costs in memory besides its payload, roughly.
const eventSize = 1 << 10

// take makes m that of e: of what may be sent, and of no more, so that a waiting message pins no large result. It is cheap: the body is
// made later, off the publisher's path.
func (m *message) take(e *event.Event) {
	m.event = *e
	d := &m.event.Data
	if len(d.Result) >= maxBody || len(d.Chunk) >= maxBody {
		d.Result, d.Chunk, m.omitted = nil, nil, true
	}
	if d.Error != nil && len(d.Error.Message) > maxText {
		d.Error = &event.Error{Kind: d.Error.Kind, Message: cut(d.Error.Message, maxText)}
	}
	if len(d.Reason) > maxText {
		d.Reason = cut(d.Reason, maxText)
	}
	m.size = eventSize + int64(len(d.Result)+len(d.Chunk)+len(d.Reason))
	if d.Error != nil {
		m.size += int64(len(d.Error.Message))
	}
}

// bytes returns the body, and makes it when it is asked for the first time.
func (m *message) bytes(source string) []byte {
	m.encode.Do(func() {
		m.body = encode(source, &m.event, m.omitted)
		d := &m.event.Data // of which function and owner are asked for, meanwhile too
		d.Result, d.Chunk, d.Error, d.Reason, d.Rest = nil, nil, nil, "", nil
	})
	return m.body
}

// envelope is the body. Subject is left out when empty, as CloudEvents demands; timestamp is Standard Webhooks' name for time.
type envelope struct {
	SpecVersion     string     `json:"specversion"`
	ID              string     `json:"id"`
	Source          string     `json:"source"`
	Type            event.Type `json:"type"`
	Subject         string     `json:"subject,omitempty"`
	Time            time.Time  `json:"time"`
	Timestamp       time.Time  `json:"timestamp"`
	DataContentType string     `json:"datacontenttype"`
	Traceparent     string     `json:"traceparent,omitempty"` // CloudEvents' distributed tracing extension
	Data            data       `json:"data"`
}

// data is what the event tells, and what its worker sent: the result of job.completed, the data of job.data or the warning of
// job.warning, each with its encoding as event.EncodePayload names it.
//
// A payload that would make the body too large is left out, *_omitted is true, and links say where to look: result is the
// raw result, self the job; both are relative to the gateway's own address. Truncated says that error.message or
// reason was shortened to make the body fit, and servers and functions left out.
type data struct {
	event.Data
	Seq uint64 `json:"seq"`

	Result          json.RawMessage `json:"result,omitempty"`
	ResultEncoding  string          `json:"result_encoding,omitempty"`
	ResultOmitted   bool            `json:"result_omitted,omitempty"`
	Chunk           json.RawMessage `json:"data,omitempty"`
	ChunkEncoding   string          `json:"data_encoding,omitempty"`
	ChunkOmitted    bool            `json:"data_omitted,omitempty"`
	Warning         json.RawMessage `json:"warning,omitempty"`
	WarningEncoding string          `json:"warning_encoding,omitempty"`
	WarningOmitted  bool            `json:"warning_omitted,omitempty"`

	Links     *links `json:"links,omitempty"`
	Truncated bool   `json:"truncated,omitempty"`
}

type links struct {
	Self   string `json:"self,omitempty"`
	Result string `json:"result,omitempty"`
}

// encode makes the body. The payload is first to go when it is too large, then the long texts and lists.
func encode(source string, e *event.Event, omitted bool) []byte {
	env := envelope{
		SpecVersion: "1.0", ID: e.ID, Source: source, Type: e.Type, Subject: attribute(e.Subject),
		Time: e.Time.UTC(), Timestamp: e.Time.UTC(), DataContentType: "application/json",
		Traceparent: e.Traceparent, Data: data{Data: finite(e.Data), Seq: e.Seq},
	}
	if omitted {
		env.Data.omitPayload(e)
	} else {
		env.Data.setPayload(e)
	}
	body := env.marshal()
	if len(body) >= maxBody && !omitted {
		env.Data.omitPayload(e)
		body = env.marshal()
	}
	if len(body) >= maxBody {
		env.Data.truncate()
		body = env.marshal()
	}
	return body
}

func (d *data) setPayload(e *event.Event) {
	switch {
	case e.Type == event.JobCompleted && e.Data.Result != nil:
		d.Result, d.ResultEncoding = event.EncodePayload(e.Data.Result)
	case e.Type == event.JobData:
		d.Chunk, d.ChunkEncoding = event.EncodePayload(e.Data.Chunk)
	case e.Type == event.JobWarning:
		d.Warning, d.WarningEncoding = event.EncodePayload(e.Data.Chunk)
	}
}

// omitPayload takes the payload out again, and links to where the job is told of.
func (d *data) omitPayload(e *event.Event) {
	d.Result, d.Chunk, d.Warning = nil, nil, nil
	d.ResultEncoding, d.ChunkEncoding, d.WarningEncoding = "", "", ""
	job := "/jobs/" + url.PathEscape(e.Subject)
	switch e.Type {
	case event.JobCompleted:
		d.ResultOmitted, d.Links = true, &links{Result: job + "/result"}
	case event.JobData:
		d.ChunkOmitted, d.Links = true, &links{Self: job}
	case event.JobWarning:
		d.WarningOmitted, d.Links = true, &links{Self: job}
	}
}

func (d *data) truncate() {
	d.Truncated = true
	if d.Rest != nil {
		rest := *d.Rest
		rest.Servers, rest.Functions = nil, nil
		d.Rest = &rest
	}
	d.Reason = cut(d.Reason, cutText)
	if d.Error != nil {
		d.Error = &event.Error{Kind: d.Error.Kind, Message: cut(d.Error.Message, cutText)}
	}
}

// marshal cannot fail: every field is a string, a number that finite checked, a time, or a payload that is valid JSON.
func (env *envelope) marshal() []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(env)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

// finite leaves out numbers that JSON does not have: a worker may well report a progress of NaN.
func finite(d event.Data) event.Data {
	bad := func(f float64) bool { return math.IsNaN(f) || math.IsInf(f, 0) }
	if d.Progress != nil && (bad(d.Progress.Numerator) || bad(d.Progress.Denominator)) {
		d.Progress = nil
	}
	if bad(d.DurationMS) {
		d.DurationMS = 0
	}
	return d
}

// attribute replaces control characters: CloudEvents refuses them in attributes, and a foreign client's handle may hold any.
func attribute(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

// cut returns at most n bytes of s, whole characters, in memory of their own.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.Clone(s[:n]) + "…"
}

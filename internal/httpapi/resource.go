package httpapi

import (
	"cmp"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
)

// The notes of a job's resource: what its state leaves open.
const (
	noteUnknown = "No job server knows this job any more and nobody reported its end: it may have completed or not."
	noteExpired = "The job completed; its result was kept for a time, which is over."
	noteNoWord  = "The job completed, but its result was not told to the gateway or is no longer kept."
)

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

// A view is a record, and how its resource is shown.
type view struct {
	*ledger.Record
	load   *load // of the function, shown to who has just submitted the job; nil: not shown
	listed bool  // among others, without its result and warnings
}

// A load is what the job servers said of a function a moment ago, if they did.
type load struct {
	workers, queued int
	known           bool
}

// writeJob answers with the job's resource.
func (a *API) writeJob(w *response, status int, v view) error {
	buf := buffers.Get().(*[]byte)
	*buf = append(appendJob((*buf)[:0], v), '\n')
	w.write(status, "application/json", *buf)
	if cap(*buf) <= 64<<10 { // one large result must not stay in memory
		buffers.Put(buf)
	}
	return nil
}

// appendJob appends the job's resource. It is written by hand because an encoder would lay out and check again the JSON that
// a worker sent, and refuse its duplicate keys.
func appendJob(b []byte, v view) []byte {
	rec := v.Record
	b = append(b, `{"id":`...)
	b = appendKnown(b, rec.ID)
	b = append(b, `,"owner":`...)
	b = appendKnown(b, rec.Owner)
	b = append(b, `,"handle":`...)
	b = appendKnown(b, rec.Handle)
	b = append(b, `,"server":`...)
	b = appendKnown(b, rec.Server)
	b = append(b, `,"function":`...)
	b = appendKnown(b, rec.Function)
	b = append(b, `,"mode":`...)
	b = appendKnown(b, string(rec.Mode))
	b = append(b, `,"priority":`...)
	if rec.Mode == "" { // a stranger's job: its priority is as unknown as its mode
		b = append(b, "null"...)
	} else {
		b = appendString(b, rec.Priority.String())
	}
	b = append(b, `,"unique":`...)
	b = appendKnown(b, rec.Unique)
	b = append(b, `,"state":`...)
	b = appendString(b, string(rec.State))

	b = append(b, `,"gearman":`...)
	b = appendGearman(b, rec)
	b = append(b, `,"progress":`...)
	b = appendProgress(b, rec.Progress)

	if rec.State == ledger.Completed && rec.Kept && !v.listed {
		value, encoding := event.EncodePayload(rec.Result)
		b = append(b, `,"result":`...)
		b = append(b, value...)
		b = append(b, `,"result_encoding":"`...)
		b = append(b, encoding...)
		b = append(b, '"')
	} else {
		b = append(b, `,"result":null,"result_encoding":null`...)
	}
	b = append(b, `,"error":`...)
	b = appendError(b, rec.Error)
	b = append(b, `,"warnings":[`...)
	for i, warning := range rec.Warnings {
		if v.listed {
			break
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = appendWarning(b, warning)
	}

	b = append(b, ']')
	b = appendTracking(b, rec)
	b = appendOrigin(b, rec)
	b = appendTimes(b, rec)
	if n := note(rec); n != "" {
		b = append(b, `,"note":`...)
		b = appendString(b, n)
	}
	if v.load != nil {
		b = appendLoad(b, v.load)
	}
	return append(appendLinks(b, rec), '}')
}

// appendTracking appends what the gateway does about a tracked job that fails or gets lost; null of another.
func appendTracking(b []byte, rec *ledger.Record) []byte {
	if rec.Mode == ledger.Tracked {
		b = append(b, `,"attempt":`...)
		b = strconv.AppendInt(b, int64(rec.Attempt)+1, 10)
		b = append(b, `,"on_lost":`...)
		b = appendString(b, string(cmp.Or(rec.OnLost, ledger.Resubmit)))
	} else {
		b = append(b, `,"attempt":null,"on_lost":null`...)
	}
	b = append(b, `,"retry":`...)
	if rec.Mode == ledger.Tracked && rec.Retry.Max > 0 {
		b = fmt.Appendf(b, `{"max":%d,"backoff":"%s"}`, rec.Retry.Max, rec.Retry.Backoff)
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"retry_of":`...)
	if rec.RetryOf == "" {
		return append(b, "null"...)
	}
	b = append(b, `{"id":`...)
	b = appendString(b, rec.RetryOf)
	b = append(b, `,"self":`...)
	b = appendString(b, "/jobs/"+rec.RetryOf)
	return append(b, '}')
}

// appendOrigin appends what the caller wants to hear of the job and where, and of which trace its request was a part.
func appendOrigin(b []byte, rec *ledger.Record) []byte {
	b = append(b, `,"callback":`...)
	b = appendCallback(b, rec.Callback)
	b = append(b, `,"traceparent":`...)
	return appendKnown(b, rec.Traceparent)
}

func appendTimes(b []byte, rec *ledger.Record) []byte {
	b = append(b, `,"submitted_at":`...)
	b = appendTime(b, rec.SubmittedAt)
	b = append(b, `,"run_at":`...)
	b = appendTime(b, rec.RunAt)
	b = append(b, `,"started_at":`...)
	b = appendTime(b, rec.StartedAt)
	b = append(b, `,"ended_at":`...)
	b = appendTime(b, rec.EndedAt)
	b = append(b, `,"deadline":`...)
	return appendTime(b, rec.Deadline)
}

func appendLoad(b []byte, l *load) []byte {
	if !l.known {
		return append(b, `,"workers":null,"queue_depth":null`...)
	}
	b = append(b, `,"workers":`...)
	b = strconv.AppendInt(b, int64(l.workers), 10)
	b = append(b, `,"queue_depth":`...)
	return strconv.AppendInt(b, int64(l.queued), 10)
}

// appendLinks appends where more is to be had. Of a stranger's job there are no events.
func appendLinks(b []byte, rec *ledger.Record) []byte {
	b = append(b, `,"links":{"self":"`...)
	at := len(b)
	if rec.ID != "" { // which needs no escape in a path, nor in JSON
		b = append(append(b, "/jobs/"...), rec.ID...)
	} else {
		b = append(append(b, "/jobs/"...), url.PathEscape(rec.Handle)...)
	}
	self := b[at:]
	b = append(b, `","result":"`...)
	b = append(b, self...)
	b = append(b, `/result","events":`...)
	if rec.ID == "" {
		return append(b, "null}"...)
	}
	b = append(b, '"')
	b = append(b, self...)
	return append(b, `/events"}`...)
}

// selfLink is the path of the job: by its id, because handles start over when a job server restarts.
func selfLink(rec *ledger.Record) string {
	if rec.ID != "" {
		return "/jobs/" + rec.ID
	}
	return "/jobs/" + url.PathEscape(rec.Handle)
}

func note(rec *ledger.Record) string {
	switch {
	case rec.State == ledger.Unknown:
		return noteUnknown
	case rec.State != ledger.Completed || rec.Kept:
		return ""
	case toldResult(rec.Mode):
		return noteExpired
	}
	return noteNoWord
}

// toldResult reports whether the gateway is told the result of any job of the mode that completes, so that one it has not has expired.
func toldResult(m ledger.Mode) bool { return m == ledger.Sync || m == ledger.Tracked }

// appendKnown appends s, and null where there is none.
func appendKnown(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return appendString(b, s)
}

// appendGearman appends what the job server says. Of a job that ended it says nothing, and need not be asked.
func appendGearman(b []byte, rec *ledger.Record) []byte {
	status := rec.Gearman
	if status == nil {
		if !rec.State.Ended() {
			return append(b, "null"...)
		}
		status = &gearman.JobStatus{}
	}
	b = append(b, `{"known":`...)
	b = strconv.AppendBool(b, status.Known)
	b = append(b, `,"running":`...)
	b = strconv.AppendBool(b, status.Running)
	b = append(b, `,"completed":`...)
	b = strconv.AppendBool(b, !status.Known && !status.Running)
	return append(b, '}')
}

// appendProgress appends null for what JSON cannot say: the numbers are a worker's text, which may be "nan".
func appendProgress(b []byte, p *event.Progress) []byte {
	if p == nil || notFinite(p.Numerator) || notFinite(p.Denominator) {
		return append(b, "null"...)
	}
	b = append(b, `{"numerator":`...)
	b = jsontext.AppendFloat(b, p.Numerator, 64)
	b = append(b, `,"denominator":`...)
	b = jsontext.AppendFloat(b, p.Denominator, 64)
	return append(b, '}')
}

func notFinite(f float64) bool { return math.IsNaN(f) || math.IsInf(f, 0) }

func appendError(b []byte, e *event.Error) []byte {
	if e == nil {
		return append(b, "null"...)
	}
	b = append(b, `{"kind":`...)
	b = appendString(b, e.Kind)
	b = append(b, `,"message":`...)
	b = appendString(b, e.Message)
	return append(b, '}')
}

func appendWarning(b []byte, warning []byte) []byte {
	value, encoding := event.EncodePayload(warning)
	b = append(b, `{"value":`...)
	b = append(b, value...)
	b = append(b, `,"encoding":"`...)
	b = append(b, encoding...)
	return append(b, `"}`...)
}

// timeLayout is of times in UTC.
const timeLayout = "2006-01-02T15:04:05.000Z"

func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, timeLayout)
	return append(b, '"')
}

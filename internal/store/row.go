package store

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/store/query"
)

// rowOf returns what of a record is in its row. The rest are payloads.
func rowOf(r ledger.Record) query.Job {
	j := query.Job{
		ID: r.ID, Handle: r.Handle, Server: r.Server, Function: r.Function, Uniq: r.Unique, Mode: string(r.Mode),
		Priority: int64(r.Priority), State: string(r.State), Kept: flag(r.Kept), RunAt: micros(r.RunAt), Deadline: micros(r.Deadline),
		OnLost: string(r.OnLost), RetryMax: int64(r.Retry.Max), RetryBackoff: int64(r.Retry.Backoff), Attempt: int64(r.Attempt),
		Deaths: int64(r.Deaths), Sent: flag(r.Sent), RetryOf: r.RetryOf, Traceparent: r.Traceparent,
		SubmittedAt: micros(r.SubmittedAt), StartedAt: micros(r.StartedAt), EndedAt: micros(r.EndedAt), EventSeq: int64(r.EventSeq), Owner: r.Owner,
	}
	if r.Callback != nil {
		text, _ := json.Marshal(r.Callback) // strings: cannot fail
		j.Callback = new(string(text))
	}
	if p := r.Progress; p != nil {
		j.Numerator, j.Denominator = new(finite(p.Numerator)), new(finite(p.Denominator))
	}
	if e := r.Error; e != nil {
		j.ErrorKind, j.ErrorMessage = &e.Kind, &e.Message
	}
	return j
}

// recordOf is the way back.
func recordOf(j query.Job) (ledger.Record, error) {
	r := ledger.Record{
		ID: j.ID, Handle: j.Handle, Server: j.Server, Function: j.Function, Unique: j.Uniq, Mode: ledger.Mode(j.Mode),
		Priority: gearman.Priority(j.Priority), State: ledger.State(j.State), Kept: j.Kept == 1, RunAt: moment(j.RunAt),
		Deadline: moment(j.Deadline), OnLost: ledger.OnLost(j.OnLost),
		Retry:   ledger.Retry{Max: int(j.RetryMax), Backoff: time.Duration(j.RetryBackoff)},
		Attempt: int(j.Attempt), Deaths: int(j.Deaths), Sent: j.Sent == 1, RetryOf: j.RetryOf, Traceparent: j.Traceparent,
		SubmittedAt: moment(j.SubmittedAt), StartedAt: moment(j.StartedAt),
		EndedAt: moment(j.EndedAt), EventSeq: uint64(j.EventSeq), Owner: j.Owner,
	}
	if j.Numerator != nil && j.Denominator != nil {
		r.Progress = &event.Progress{Numerator: *j.Numerator, Denominator: *j.Denominator}
	}
	if j.ErrorKind != nil && j.ErrorMessage != nil {
		r.Error = &event.Error{Kind: *j.ErrorKind, Message: *j.ErrorMessage}
	}
	if j.Callback != nil {
		if err := json.Unmarshal([]byte(*j.Callback), &r.Callback); err != nil {
			return r, fmt.Errorf("job %s as it is stored: %w", r.ID, err)
		}
	}
	return r, nil
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func micros(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	return new(t.UnixMicro())
}

func moment(micros *int64) time.Time {
	if micros == nil {
		return time.Time{}
	}
	return time.UnixMicro(*micros).UTC()
}

// finite returns f, or 0 where f is what neither SQL nor JSON can say: a handler may report any nonsense as its progress.
func finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return f
}

// payloadsOf returns the payloads of a record, and whether it has any.
func payloadsOf(r ledger.Record) (p query.PutPayloadParams, some bool) {
	p = query.PutPayloadParams{ID: r.ID, Result: r.Result}
	if len(r.Warnings) > 0 {
		p.Warnings, _ = json.Marshal(r.Warnings) // bytes: cannot fail
	}
	if len(r.Log) > 0 {
		lines := make([]line, len(r.Log))
		for i, e := range r.Log {
			lines[i] = lineOf(e)
		}
		p.Log, _ = json.Marshal(lines) // numbers are finite: cannot fail
	}
	return p, p.Result != nil || p.Warnings != nil || p.Log != nil
}

// withPayloads returns the record with its payloads.
func withPayloads(r ledger.Record, p query.GetJobRow) (ledger.Record, error) {
	if r.Kept {
		r.Result = p.Result
	}
	var lines []line
	for _, field := range []struct {
		stored []byte
		into   any
	}{{p.Warnings, &r.Warnings}, {p.Log, &lines}} {
		if field.stored == nil {
			continue
		}
		if err := json.Unmarshal(field.stored, field.into); err != nil {
			return r, fmt.Errorf("job %s as it is stored: %w", r.ID, err)
		}
	}
	for _, l := range lines {
		r.Log = append(r.Log, l.entry())
	}
	return r, nil
}

// line is a ledger.Entry as it is stored. A payload is there, maybe empty, or null.
type line struct {
	Seq      uint64      `json:"n"`
	At       *int64      `json:"t,omitempty"`
	State    string      `json:"s,omitempty"`
	Progress *[2]float64 `json:"p,omitempty"`
	Warning  bool        `json:"w,omitempty"`
	Payload  *[]byte     `json:"d,omitempty"`
}

func lineOf(e ledger.Entry) line {
	l := line{Seq: e.Seq, At: micros(e.At), State: string(e.State), Warning: e.Warning}
	if p := e.Progress; p != nil {
		l.Progress = &[2]float64{finite(p.Numerator), finite(p.Denominator)}
	}
	if e.Payload != nil {
		l.Payload = &e.Payload
	}
	return l
}

func (l line) entry() ledger.Entry {
	e := ledger.Entry{Seq: l.Seq, At: moment(l.At), State: ledger.State(l.State), Warning: l.Warning}
	if p := l.Progress; p != nil {
		e.Progress = &event.Progress{Numerator: p[0], Denominator: p[1]}
	}
	if l.Payload != nil {
		e.Payload = *l.Payload
	}
	return e
}

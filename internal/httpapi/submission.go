package httpapi

import (
	"encoding/base64"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
)

// A submission is what a caller asks for: the body of POST /jobs, an item of a batch, or the path and query of
// POST /functions/{function}.
type submission struct {
	Function      string `json:"function" validate:"required,gearman_function"`
	Mode          string `json:"mode" validate:"mode"`
	Priority      string `json:"priority" validate:"oneof=normal high low"`
	Unique        string `json:"unique" validate:"gearman_unique"`
	Timeout       string `json:"timeout" validate:"omitempty,wait"`
	Encoding      string `json:"workload_encoding" validate:"omitempty,oneof=text json base64"`
	RunAt         string `json:"run_at"`
	Delay         string `json:"delay"`
	Deadline      string `json:"deadline"`
	OnLost        string `json:"on_lost" validate:"omitempty,oneof=resubmit fail"`
	RequireWorker bool   `json:"require_worker"`

	rawWorkload jsontext.Value // as it stands in the body; nil when absent
	retry       *ledger.Retry
	callback    *event.Callback // as it was written
	key         string          // of the Idempotency-Key header; "" is none
	traceparent string          // what the job's own is to follow; "" is none
	requestID   string

	// set by the check
	runAt    time.Time
	deadline time.Time
	notify   *event.Callback // callback, complete

	job ledger.Task // set by task
}

func newSubmission(mode ledger.Mode) submission {
	return submission{Mode: string(mode), Priority: "normal"}
}

// submissions are those of requests before: a submission, the task and the record in it are a quarter of what a request would allocate.
var submissions = sync.Pool{New: func() any { return new(submission) }}

func takeSubmission(mode ledger.Mode) *submission {
	s := submissions.Get().(*submission)
	s.Mode, s.Priority = string(mode), "normal"
	return s
}

// giveBack is called when nobody uses s any more, nor its task and record.
func (s *submission) giveBack() {
	*s = submission{}
	submissions.Put(s)
}

// text returns where the text of the member goes; nil for a member that is not known or no text.
func (s *submission) text(name string) *string {
	switch name {
	case "function":
		return &s.Function
	case "mode":
		return &s.Mode
	case "priority":
		return &s.Priority
	case "unique":
		return &s.Unique
	case "timeout":
		return &s.Timeout
	case "workload_encoding":
		return &s.Encoding
	case "run_at":
		return &s.RunAt
	case "delay":
		return &s.Delay
	case "deadline":
		return &s.Deadline
	case "on_lost":
		return &s.OnLost
	}
	return nil
}

// set takes the text of a member, and returns what is wrong with it at first sight. An empty text is not the same as none, but for a
// unique.
func (s *submission) set(name, text string) (wrong string) {
	switch field := s.text(name); {
	case field == nil:
		return "is not a member of a submission"
	case text == "" && name != "unique":
		return "must not be empty"
	default:
		*field = text
		return ""
	}
}

// task turns a checked submission into what the ledger takes, which is a part of s.
func (s *submission) task(workload []byte) *ledger.Task {
	t := &s.job
	*t = ledger.Task{
		Function: s.Function, Unique: s.Unique, Mode: ledger.Mode(s.Mode), Workload: workload,
		RunAt: s.runAt, Deadline: s.deadline, OnLost: ledger.OnLost(s.OnLost),
		Callback: s.notify, Traceparent: s.traceparent, RequestID: s.requestID,
	}
	switch s.Priority {
	case "high":
		t.Priority = gearman.High
	case "low":
		t.Priority = gearman.Low
	}
	if s.retry != nil {
		t.Retry = *s.retry
	}
	if s.key != "" {
		t.Key = &ledger.Key{Key: s.key, Fingerprint: s.fingerprint(workload)}
	}
	return t
}

// workload returns the bytes for the worker: those of a string, decoded; any other value as it was written.
func (s *submission) workload() ([]byte, *fieldError) {
	isString := s.rawWorkload.Kind() == jsontext.KindString
	encoding := s.Encoding
	if encoding == "" && isString {
		encoding = "text"
	}
	switch {
	case s.rawWorkload == nil:
		return []byte{}, nil
	case encoding == "text" && isString:
		return unquote(s.rawWorkload), nil
	case encoding == "base64" && isString:
		text := unquote(s.rawWorkload)
		decoded := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Decode(decoded, text)
		if err != nil {
			return nil, &fieldError{Pointer: "#/workload", Detail: "is not base64 in the standard alphabet with padding"}
		}
		return decoded[:n:n], nil
	case encoding == "text" || encoding == "base64":
		return nil, &fieldError{Pointer: "#/workload", Detail: "must be a string when workload_encoding is " + encoding}
	}
	return s.rawWorkload, nil
}

package httpapi

import (
	"bytes"
	"errors"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"gearman-gateway/internal/ledger"
)

// maxMistakes is how many members that are wrong are told; after the next one the members of a submission are not looked at.
const maxMistakes = 20

// An envelope reads submissions out of a body. A workload in one may be any JSON, with duplicate names too, and comes out as a part of
// the body, byte for byte. The members around it are known, and there once each.
type envelope struct {
	body []byte
	rest bytes.Buffer // of which dec takes the bytes without a copy
	dec  jsontext.Decoder

	// of the submission that is read
	mistakes []fieldError
	twice    *problem // the first member that is there more than once
}

// envelopes are those that nobody reads.
var envelopes = sync.Pool{New: func() any { return new(envelope) }}

// The decoder would reject duplicates in the workload too: the envelope's own are found by hand.
var duplicatesAllowed = jsontext.AllowDuplicateNames(true)

func newEnvelope(body []byte) *envelope {
	e := envelopes.Get().(*envelope)
	e.body, e.rest = body, *bytes.NewBuffer(body)
	e.dec.Reset(&e.rest, duplicatesAllowed)
	return e
}

// release lets go of the body. Nothing may be read any more.
func (e *envelope) release() {
	e.body, e.rest, e.mistakes, e.twice = nil, bytes.Buffer{}, nil, nil
	e.dec.Reset(&e.rest)
	envelopes.Put(e)
}

// decodeEnvelope fills s from body. The error is a problem of the body as a whole; mistakes are those in members.
func decodeEnvelope(body []byte, s *submission) (mistakes []fieldError, err error) {
	e := newEnvelope(body)
	defer e.release()
	mistakes, refused, err := e.submission(s)
	if err == nil {
		err = e.end()
	}
	switch {
	case err != nil:
		return nil, unreadable(err)
	case refused != nil:
		return nil, refused
	}
	return mistakes, nil
}

// submission fills s from the next value. What is refused is that value alone; after an error nothing more can be read.
func (e *envelope) submission(s *submission) (mistakes []fieldError, refused *problem, err error) {
	e.mistakes, e.twice = nil, nil
	if e.dec.PeekKind() != jsontext.KindBeginObject {
		if _, err := e.value(); err != nil {
			return nil, nil, err
		}
		return nil, wrongBody("an object"), nil
	}
	err = e.members(func(name string) error { return e.member(s, name) })
	return e.mistakes, e.twice, err
}

// wrongBody is the problem for a JSON value that is not what.
func wrongBody(what string) *problem {
	p := validationError.because("The body must be %s.", what)
	p.fields = []fieldError{{Pointer: "#", Detail: "must be " + what}}
	return p
}

// members calls read for each member of the object that comes next; read takes its value.
func (e *envelope) members(read func(name string) error, path ...string) error {
	if _, err := e.dec.ReadToken(); err != nil {
		return err
	}
	seen := make([]string, 0, 8) // each is known or a mistake, so they are few
	for e.dec.PeekKind() != jsontext.KindEndObject {
		quoted, err := e.value()
		switch {
		case err != nil:
			return err
		case quoted.Kind() != jsontext.KindString:
			return jsontext.ErrNonStringName
		}
		name := memberName(unquote(quoted))
		switch {
		case len(e.mistakes) > maxMistakes:
			err = e.dec.SkipValue()
		case slices.Contains(seen, name):
			e.duplicate(append(path, name)...)
			err = e.dec.SkipValue()
		default:
			seen = append(seen, name)
			err = read(name)
		}
		if err != nil {
			return err
		}
	}
	_, err := e.dec.ReadToken()
	return err
}

// memberNames are those that most submissions have, which need no memory of their own.
var memberNames = []string{"function", "workload", "mode", "priority", "unique", "workload_encoding", "timeout"}

func memberName(b []byte) string {
	for _, name := range memberNames {
		if string(b) == name {
			return name
		}
	}
	return string(b)
}

// end checks that nothing follows the value.
func (e *envelope) end() error {
	switch _, err := e.dec.ReadToken(); err {
	case io.EOF:
		return nil
	case nil:
		return errTrailing
	default:
		return err
	}
}

var errTrailing = errors.New("more than one JSON value")

// value reads the next value and returns it as a part of the body. The decoder's own copy is only good until its next call.
func (e *envelope) value() (jsontext.Value, error) {
	v, err := e.dec.ReadValue()
	if err != nil {
		return nil, err
	}
	end := int(e.dec.InputOffset())
	return e.body[end-len(v) : end : end], nil
}

func (e *envelope) member(s *submission, name string) error {
	if e.dec.PeekKind() == jsontext.KindBeginObject {
		switch name {
		case "retry":
			return e.retry(s)
		case "callback":
			return e.callback(s)
		}
	}
	value, err := e.value()
	if err != nil {
		return err
	}
	kind := value.Kind()
	switch {
	case name == "workload":
		s.rawWorkload = value
	case name == "retry" || name == "callback":
		e.mistake("must be an object", name)
	case name == "require_worker" && kind != jsontext.KindTrue && kind != jsontext.KindFalse:
		e.mistake("must be true or false", name)
	case name == "require_worker":
		s.RequireWorker = kind == jsontext.KindTrue
	case s.text(name) != nil && kind != jsontext.KindString:
		e.mistake("must be a string", name)
	case s.text(name) == nil:
		e.mistake("is not a member of a submission", name)
	default:
		if wrong := s.set(name, string(unquote(value))); wrong != "" {
			e.mistake(wrong, name)
		}
	}
	return nil
}

// Bounds of a retry policy.
const (
	maxRetries = 100
	minBackoff = time.Second
	maxBackoff = time.Hour
)

func (e *envelope) retry(s *submission) error {
	s.retry = &ledger.Retry{Backoff: minBackoff}
	there := false
	err := e.members(func(name string) error {
		value, err := e.value()
		if err != nil {
			return err
		}
		switch name {
		case "max":
			there = true
			n, err := strconv.Atoi(string(value))
			if err != nil || n < 0 || n > maxRetries {
				e.mistake("must be a whole number from 0 to 100", "retry", name)
			}
			s.retry.Max = n
		case "backoff":
			d, err := time.ParseDuration(strings.Trim(string(value), `"`)) // no duration has an escape
			if err != nil || value.Kind() != jsontext.KindString || d < minBackoff || d > maxBackoff {
				e.mistake(`must be a duration from "1s" to "1h"`, "retry", name)
			}
			s.retry.Backoff = d
		default:
			e.mistake("is not a member of retry", "retry", name)
		}
		return nil
	}, "retry")
	if err == nil && !there {
		e.mistake("is missing", "retry", "max")
	}
	return err
}

func (e *envelope) mistake(detail string, path ...string) {
	e.mistakes = append(e.mistakes, fieldError{Pointer: pointer(path...), Detail: detail})
}

func (e *envelope) duplicate(path ...string) {
	if e.twice == nil {
		e.twice = invalidJSON.because("A member is there more than once.")
		e.twice.fields = []fieldError{{Pointer: pointer(path...), Detail: "is there more than once"}}
	}
}

// pointer is the JSON Pointer to a member of the body, in the form of a URI fragment (RFC 6901). A member's name may be as long
// as the body; what is told of it is not.
func pointer(path ...string) string {
	var fragment url.URL
	for _, member := range path {
		fragment.Fragment += "/" + pointerEscaper.Replace(member[:min(len(member), 128)])
	}
	return "#" + fragment.EscapedFragment()
}

var pointerEscaper = strings.NewReplacer("~", "~0", "/", "~1")

// unquote returns the bytes of a JSON string that the decoder has found valid: a part of it where no escape stands in between.
func unquote(quoted jsontext.Value) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1 : len(quoted)-1]
	}
	plain, _ := jsontext.AppendUnquote(make([]byte, 0, len(quoted)), quoted) // fails on invalid strings only
	return plain
}

// unreadable is the problem for a body that cannot be read. It names the place but quotes nothing, since the cause in it would be
// logged and may be a part of the workload.
func unreadable(err error) error {
	switch err {
	case io.EOF:
		return invalidJSON.because("The body is empty.")
	case errTrailing:
		return invalidJSON.because("More than one JSON value is in the body.")
	}
	if s, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return invalidJSON.because("The body is not valid JSON at byte %d, or not UTF-8 there.", s.ByteOffset)
	}
	return invalidJSON.because("The body is cut off, or not valid JSON.")
}

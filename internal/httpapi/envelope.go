package httpapi

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxMistakes is how many members that are wrong are told; decoding ends with the next one.
const maxMistakes = 20

// notYet are members of the contract to come; they are refused rather than ignored.
var notYet = []string{"run_at", "delay", "require_worker", "on_lost"}

// An envelope reads the body of POST /jobs. The workload in it may be any JSON, with duplicate names too, and comes out as a part
// of the body, byte for byte. The members around it are known, and there once each.
type envelope struct {
	body     []byte
	dec      *jsontext.Decoder
	seen     []string
	mistakes []fieldError
}

// decodeEnvelope fills s from body. The error is a body that is not an acceptable JSON object at all; mistakes are those in members.
func decodeEnvelope(body []byte, s *submission) (mistakes []fieldError, err error) {
	// The decoder would reject duplicates in the workload too: the envelope's own are found by hand.
	e := envelope{body: body, dec: jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true))}
	e.seen = make([]string, 0, 8)
	if err := e.object(s); err != nil {
		return nil, unreadable(err)
	}
	return e.mistakes, nil
}

func (e *envelope) object(s *submission) error {
	switch e.dec.PeekKind() {
	case jsontext.KindBeginObject:
	case jsontext.KindInvalid:
		_, err := e.dec.ReadToken()
		return err
	default:
		if _, err := e.value(); err != nil {
			return err
		}
		return cmp.Or(e.end(), errNotObject)
	}
	if _, err := e.dec.ReadToken(); err != nil {
		return err
	}
	for e.dec.PeekKind() != jsontext.KindEndObject && len(e.mistakes) <= maxMistakes {
		if err := e.member(s); err != nil {
			return err
		}
	}
	if len(e.mistakes) > maxMistakes {
		return nil
	}
	if _, err := e.dec.ReadToken(); err != nil {
		return err
	}
	return e.end()
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

var (
	errTrailing  = errors.New("more than one JSON value")
	errNotObject = errors.New("not an object")
)

// value reads the next value and returns it as a part of the body. The decoder's own copy is only good until its next call.
func (e *envelope) value() (jsontext.Value, error) {
	v, err := e.dec.ReadValue()
	if err != nil {
		return nil, err
	}
	end := int(e.dec.InputOffset())
	return e.body[end-len(v) : end : end], nil
}

func (e *envelope) member(s *submission) error {
	quoted, err := e.value()
	if err != nil {
		return err
	}
	if quoted.Kind() != jsontext.KindString {
		return jsontext.ErrNonStringName
	}
	name := string(unquote(quoted))
	if slices.Contains(e.seen, name) {
		return &duplicateError{name}
	}
	e.seen = append(e.seen, name)

	value, err := e.value()
	if err != nil {
		return err
	}
	if name == "workload" {
		s.rawWorkload = value
		return nil
	}
	field := s.field(name)
	switch {
	case field == nil:
		e.mistake(name, unknownMember(name))
	case value.Kind() != jsontext.KindString:
		e.mistake(name, "must be a string")
	default:
		*field = string(unquote(value))
	}
	return nil
}

// field returns where the text of the member goes; nil for a member that is not known.
func (s *submission) field(name string) *string {
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
	}
	return nil
}

func unknownMember(name string) string {
	if slices.Contains(notYet, name) {
		return "is not available yet"
	}
	return "is not a member of a submission"
}

func (e *envelope) mistake(member, detail string) {
	e.mistakes = append(e.mistakes, fieldError{Pointer: pointer(member), Detail: detail})
}

// pointer is the JSON Pointer to a member of the body, in the form of a URI fragment (RFC 6901). A member's name may be as long
// as the body; what is told of it is not.
func pointer(member string) string {
	member = member[:min(len(member), 128)]
	fragment := url.URL{Fragment: "/" + pointerEscaper.Replace(member)}
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

type duplicateError struct{ name string }

func (e *duplicateError) Error() string { return "duplicate member " + e.name }

// unreadable is the problem for a body that cannot be read. It names the place but quotes nothing, since the cause in it would be
// logged and may be a part of the workload.
func unreadable(err error) error {
	if d, ok := errors.AsType[*duplicateError](err); ok {
		p := invalidJSON.because("A member is there more than once.")
		p.fields = []fieldError{{Pointer: pointer(d.name), Detail: "is there more than once"}}
		return p
	}
	switch err {
	case io.EOF:
		return invalidJSON.because("The body is empty.")
	case errTrailing:
		return invalidJSON.because("More than one JSON value is in the body.")
	case errNotObject:
		p := validationError.because("The body must be a JSON object.")
		p.fields = []fieldError{{Pointer: "#", Detail: "must be an object"}}
		return p
	}
	if s, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return invalidJSON.because("The body is not valid JSON at byte %d, or not UTF-8 there.", s.ByteOffset)
	}
	return invalidJSON.because("The body is cut off, or not valid JSON.")
}

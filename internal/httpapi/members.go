package httpapi

import (
	"net/http"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// maxSmallBody is the limit of a body that has a few members.
const maxSmallBody = 16 << 10

// members reads a body that may be missing, and else is an object with no members but those known, which are strings. Where none is
// known, that refuses a body which its sender may have thought to matter.
func (a *API) members(w *response, r *http.Request, known ...string) (given map[string]string, err error) {
	given = map[string]string{}
	err = a.object(w, r, known, func(name string, value jsontext.Value) (wrong string) {
		if value.Kind() != jsontext.KindString {
			return "must be a string"
		}
		given[name] = string(unquote(value))
		return ""
	})
	return given, err
}

// object reads a body that may be missing, and else is an object with no members but those known. take is given each of them, and
// says what is wrong with its value; "": nothing.
func (a *API) object(w *response, r *http.Request, known []string, take func(name string, value jsontext.Value) (wrong string)) error {
	body, taken, err := a.readBody(w, r, maxSmallBody)
	if err != nil {
		return err
	}
	defer a.inflight.give(taken)
	switch {
	case len(body) == 0:
		return nil
	case !carriesJSON(r.Header.Get("Content-Type")):
		return unsupportedMediaType.because("Send application/json, or no body.")
	}
	e := newEnvelope(body)
	defer e.release()
	err = e.object(known, take)
	if err == nil {
		err = e.end()
	}
	switch {
	case err != nil:
		return unreadable(err)
	case e.twice != nil:
		return e.twice
	}
	return wrongMembers(e.mistakes)
}

func (e *envelope) object(known []string, take func(name string, value jsontext.Value) (wrong string)) error {
	if e.dec.PeekKind() != jsontext.KindBeginObject {
		if _, err := e.value(); err != nil {
			return err
		}
		e.mistake("must be an object")
		return nil
	}
	return e.members(func(name string) error {
		value, err := e.value()
		if err != nil {
			return err
		}
		wrong := "is not a member of this request"
		if slices.Contains(known, name) {
			wrong = take(name, value)
		}
		if wrong != "" {
			e.mistake(wrong, name)
		}
		return nil
	})
}

// wrongMembers is the problem for members of the body; nil if there are no mistakes.
func wrongMembers(mistakes []fieldError) error {
	if len(mistakes) == 0 {
		return nil
	}
	p := validationError.because("The body has mistakes.")
	p.fields = mistakes
	return p.sorted()
}

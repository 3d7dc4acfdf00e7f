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
	body, release, err := a.readBody(w, r, maxSmallBody)
	if err != nil {
		return nil, err
	}
	defer release()
	switch {
	case len(body) == 0:
		return nil, nil
	case !carriesJSON(r.Header.Get("Content-Type")):
		return nil, unsupportedMediaType.because("Send application/json, or no body.")
	}
	e := newEnvelope(body)
	given, err = e.strings(known)
	if err == nil {
		err = e.end()
	}
	switch {
	case err != nil:
		return nil, unreadable(err)
	case e.twice != nil:
		return nil, e.twice
	}
	return given, wrongMembers(e.mistakes)
}

// strings reads an object whose members are strings, of which only those known may be there.
func (e *envelope) strings(known []string) (given map[string]string, err error) {
	if e.dec.PeekKind() != jsontext.KindBeginObject {
		if _, err := e.value(); err != nil {
			return nil, err
		}
		e.mistake("must be an object")
		return nil, nil
	}
	given = map[string]string{}
	err = e.members(func(name string) error {
		value, err := e.value()
		switch {
		case err != nil:
			return err
		case !slices.Contains(known, name):
			e.mistake("is not a member of this request", name)
		case value.Kind() != jsontext.KindString:
			e.mistake("must be a string", name)
		default:
			given[name] = string(unquote(value))
		}
		return nil
	})
	return given, err
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

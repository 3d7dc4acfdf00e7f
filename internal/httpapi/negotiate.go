package httpapi

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// wantsJSON refuses a request whose Accept header rules JSON out; without one, or with */*, there is nothing to refuse.
func wantsJSON(h handler) handler {
	return func(w *response, r *http.Request) error {
		if accept := r.Header.Values("Accept"); len(accept) > 0 && !acceptsJSON(strings.Join(accept, ",")) {
			return notAcceptable.because("The Accept header excludes application/json.")
		}
		return h(w, r)
	}
}

func acceptsJSON(accept string) bool {
	for item := range strings.SplitSeq(accept, ",") {
		mediaType, params, _ := strings.Cut(item, ";")
		switch strings.ToLower(strings.TrimSpace(mediaType)) {
		case "*/*", "application/*", "application/json", "application/problem+json":
			if !zeroQuality(params) {
				return true
			}
		}
	}
	return strings.TrimSpace(accept) == ""
}

func zeroQuality(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(name, "q") {
			q, err := strconv.ParseFloat(value, 64)
			return err == nil && q == 0
		}
	}
	return false
}

// carriesJSON reports whether a body of this Content-Type is read as JSON: any JSON type, and what curl and simple clients
// send without being asked.
func carriesJSON(contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	switch mediaType = strings.ToLower(strings.TrimSpace(mediaType)); mediaType {
	case "", "application/json", "application/x-www-form-urlencoded", "text/plain":
		return true
	}
	return strings.HasSuffix(mediaType, "+json")
}

// preferredWait returns the wait that a Prefer header asks for (RFC 7240), at most most. What is not understood is no error.
func preferredWait(h http.Header, most time.Duration) (wait time.Duration, ok bool) {
	value, ok := preference(h, "wait")
	if !ok {
		return 0, false
	}
	seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 32)
	if err != nil {
		return 0, false
	}
	return min(time.Duration(seconds)*time.Second, most), true
}

// prefersAsync reports whether a Prefer header asks for an answer that does not wait.
func prefersAsync(h http.Header) bool {
	_, ok := preference(h, "respond-async")
	return ok
}

// preference returns the value of a preference, "" if it has none. The first of several counts.
func preference(h http.Header, name string) (value string, ok bool) {
	for _, line := range h.Values("Prefer") {
		for preference := range splitUnquoted(line, ',') {
			preference, _, _ = strings.Cut(preference, ";") // parameters belong to the preference; those known have none
			this, value, _ := strings.Cut(preference, "=")
			if strings.EqualFold(strings.TrimSpace(this), name) {
				return strings.TrimSpace(value), true
			}
		}
	}
	return "", false
}

// splitUnquoted yields the parts of s between separators that are outside of quoted strings.
func splitUnquoted(s string, sep byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		start, quoted := 0, false
		for i := 0; i < len(s); i++ {
			switch {
			case s[i] == '"':
				quoted = !quoted
			case s[i] == '\\' && quoted:
				i++
			case s[i] == sep && !quoted:
				if !yield(s[start:i]) {
					return
				}
				start = i + 1
			}
		}
		yield(s[start:])
	}
}

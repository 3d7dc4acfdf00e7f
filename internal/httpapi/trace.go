package httpapi

import (
	"net/http"
	"strings"
)

// from notes of which request a submission is. What the job causes has the request for its parent: the caller's span, or where
// there are traces the gateway's own.
func (s *submission) from(w *response, r *http.Request) {
	s.requestID = w.id
	if s.traceparent = w.span.Traceparent(); s.traceparent == "" {
		s.traceparent = traceparent(r.Header)
	}
}

// traceLength is that of a traceparent of version 00:
//
//	00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//	version, trace-id                 , parent-id       , flags, all in lower case hexadecimal
const traceLength = 2 + 1 + 32 + 1 + 16 + 1 + 2

// traceparent returns the trace context of a request (W3C Trace Context); "" where there is none, or none that is valid: it then is as
// if there were no header. A later version is taken for what version 00 understands of it, and passed on as that.
func traceparent(h http.Header) string {
	values := h.Values("Traceparent")
	if len(values) != 1 || len(values[0]) < traceLength {
		return ""
	}
	head, rest := values[0][:traceLength], values[0][traceLength:]
	fields := strings.Split(head, "-")
	if len(fields) != 4 {
		return ""
	}
	version, trace, parent, flags := fields[0], fields[1], fields[2], fields[3]
	for _, f := range []struct {
		text string
		size int
	}{{version, 2}, {trace, 32}, {parent, 16}, {flags, 2}} {
		if len(f.text) != f.size || strings.Trim(f.text, "0123456789abcdef") != "" {
			return ""
		}
	}
	switch {
	case version == "ff", strings.Trim(trace, "0") == "", strings.Trim(parent, "0") == "":
		return ""
	case version == "00" && rest == "":
		return head
	case version == "00", rest != "" && rest[0] != '-':
		return ""
	}
	sampled := "00"
	if strings.Contains("13579bdf", flags[1:]) { // of the flags only the lowest bit keeps its meaning
		sampled = "01"
	}
	return "00-" + trace + "-" + parent + "-" + sampled
}

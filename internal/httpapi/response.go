package httpapi

import (
	"net/http"
	"strconv"
	"time"

	"gearman-gateway/internal/auth"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/limit"
	"gearman-gateway/internal/tracing"
)

// maxWrite is how much of a response one write deadline covers. A slow client of a large result is cut off
// when it stops reading, not because the whole takes long.
const maxWrite = 256 << 10

// strangersBody is how long somebody without credentials may take for the rest of a body that nobody reads: to hold a connection is not
// to be cheap.
const strangersBody = time.Second

// response is a ResponseWriter that gives every write its own deadline and remembers what the access log wants.
type response struct {
	http.ResponseWriter
	api     *API
	request *http.Request
	values  [8]string // of the headers that set has set
	headers int

	id      string // of the request
	span    tracing.Span
	who     *auth.Identity // nil before admit
	place   limit.Place    // among the requests that are worked on
	status  int            // 0 until the header is written
	written int64
	job     string    // the id of the job it is about
	err     error     // what went wrong, if anything
	broken  bool      // the handler panicked half way through
	late    time.Time // when the write deadline is
	waited  bool      // for what nobody knows how long it takes, as it was asked to
}

// waits says that the request begins to wait, as it was asked to, for a job or an event. It is not worked on any more, and what is left
// to do afterwards is little, and must be done.
func (w *response) waits() {
	w.waited = true
	w.place.Leave()
}

// about notes which job the request is about, if any.
func (w *response) about(rec *ledger.Record) {
	if rec != nil {
		w.job = rec.ID
	}
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) WriteHeader(status int) {
	// net/http accepts some requests that have both Content-Length and Transfer-Encoding, and a proxy in front may have
	// taken the other one for true. What follows such a request on its connection is not to be trusted.
	if w.request.TransferEncoding != nil || w.api.drain.Err() != nil {
		w.set("Connection", "close")
	}
	if w.who == nil && w.request.ContentLength != 0 { // net/http reads what is left of a body before it sends the answer
		_ = http.NewResponseController(w.ResponseWriter).SetReadDeadline(time.Now().Add(strangersBody)) // not supported by a recorder in tests
	}
	w.status = status
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (n int, err error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	for n < len(p) && err == nil {
		var m int
		w.extend()
		m, err = w.ResponseWriter.Write(p[n:min(n+maxWrite, len(p))])
		n += m
	}
	w.written += int64(n)
	return n, err
}

// flush sends what was written so far.
func (w *response) flush() error {
	w.extend()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// extend moves the write deadline, unless it was moved a moment ago. The old one may be that of an earlier request on the connection:
// without a Server.WriteTimeout net/http never resets it.
func (w *response) extend() {
	late := time.Now().Add(w.api.o.WriteTimeout)
	if late.Sub(w.late) < w.api.o.WriteTimeout/16 {
		return
	}
	w.late = late
	if d, ok := w.ResponseWriter.(interface{ SetWriteDeadline(time.Time) error }); ok { // a recorder in tests has none
		_ = d.SetWriteDeadline(late) // whoever cannot write is told by the write
	}
}

// set sets a header whose name is in the canonical form, as http.Header.Set does, but without an allocation for each.
func (w *response) set(name, value string) {
	if w.headers == len(w.values) {
		w.Header().Set(name, value)
		return
	}
	at := w.headers
	w.headers++
	w.values[at] = value
	w.Header()[name] = w.values[at : at+1 : at+1]
}

// countedByNetHTTP is how long a body may be of which net/http finds out the Content-Length itself. A map of headers doubles its room with
// the ninth, which costs as much as a good part of a request.
const countedByNetHTTP = 2 << 10

// write sends a whole response, or a problem where clients that read slowly hold as many bytes as may be held. A job that it is about is
// named in that.
func (w *response) write(status int, contentType string, body []byte) {
	n := int64(len(body))
	if n <= countedByNetHTTP {
		w.send(status, contentType, body)
		return
	}
	if !w.api.answers.takeOrAlone(n) {
		w.api.fail(w, w.request, queueFull.because("The gateway is sending as many bytes of answers as it may."))
		return
	}
	defer w.api.answers.give(n)
	w.send(status, contentType, body)
}

// send sends a whole response. Nobody can be told of its error, so it is for the log.
func (w *response) send(status int, contentType string, body []byte) {
	w.set("Content-Type", contentType)
	if len(body) > countedByNetHTTP || w.request.Method == http.MethodHead {
		w.set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil && w.err == nil {
		w.err = err
	}
}

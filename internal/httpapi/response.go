package httpapi

import (
	"net/http"
	"strconv"
	"time"

	"gearman-gateway/internal/auth"
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
	control *http.ResponseController
	api     *API
	request *http.Request

	id      string // of the request
	span    tracing.Span
	who     *auth.Identity // nil before admit
	place   *limit.Place   // among the requests that are worked on; nil where none is needed
	status  int            // 0 until the header is written
	written int64
	job     string // the id of the job it is about
	err     error  // what went wrong, if anything
	broken  bool   // the handler panicked half way through
	waited  bool   // for what nobody knows how long it takes, as it was asked to
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) WriteHeader(status int) {
	// net/http accepts some requests that have both Content-Length and Transfer-Encoding, and a proxy in front may have
	// taken the other one for true. What follows such a request on its connection is not to be trusted.
	if w.request.TransferEncoding != nil || w.api.drain.Err() != nil {
		w.Header().Set("Connection", "close")
	}
	if w.who == nil && w.request.ContentLength != 0 { // net/http reads what is left of a body before it sends the answer
		_ = w.control.SetReadDeadline(time.Now().Add(strangersBody)) // not supported by a recorder in tests
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
	return w.control.Flush()
}

// extend moves the write deadline. The old one may be that of an earlier request on the connection: without a
// Server.WriteTimeout net/http never resets it.
func (w *response) extend() {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.api.o.WriteTimeout)) // not supported by a recorder in tests
}

// write sends a whole response. Nobody can be told of its error, so it is for the log.
func (w *response) write(status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil && w.err == nil {
		w.err = err
	}
}

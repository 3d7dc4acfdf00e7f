package httpapi

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
)

// A budget bounds a sum over all requests. It is safe for concurrent use.
type budget struct {
	limit int64
	used  atomic.Int64
}

// take reports whether n fits, and takes it then. What was taken is given back.
func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

// takeOrAlone is take for what may be more than the limit by itself: then it fits when nothing else is taken.
func (b *budget) takeOrAlone(n int64) bool {
	if used := b.used.Add(n); used > b.limit && used > n {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// firstRead is what a body may claim before any of it arrived.
const firstRead = 64 << 10

// readBody returns the request's body, at most limit bytes. Its memory is taken from a.inflight as the body arrives, so that a
// Content-Length alone costs nothing; the caller gives back what was taken when it is done with the request.
func (a *API) readBody(w *response, r *http.Request, limit int64) (body []byte, taken int64, err error) {
	for _, coding := range r.Header.Values("Content-Encoding") {
		if coding != "" && !strings.EqualFold(coding, "identity") {
			w.Header().Set("Accept-Encoding", "identity")
			return nil, 0, unsupportedMediaType.because("Send the body without Content-Encoding.")
		}
	}
	if r.ContentLength > limit {
		return nil, 0, tooLarge(limit)
	}

	defer func() {
		if err != nil {
			a.inflight.give(taken)
			body, taken = nil, 0
		}
	}()
	src := r.Body // no longer than was announced
	if r.ContentLength < 0 {
		// It wants the server's own writer, to close the connection when the limit is hit.
		src = http.MaxBytesReader(w.ResponseWriter, r.Body, limit)
	}
	for size := firstSize(r.ContentLength); ; size = min(nextSize(size, r.ContentLength), limit+1) {
		more := size - taken
		if !a.inflight.take(more) {
			return body, taken, queueFull.because("The gateway is handling as many bytes of request bodies as it may.")
		}
		taken += more
		grown := make([]byte, len(body), size)
		copy(grown, body)
		body = grown

		for len(body) < cap(body) {
			n, err := src.Read(body[len(body):cap(body)])
			body = body[:len(body)+n]
			if err == io.EOF {
				return body, taken, nil
			}
			if err != nil {
				return body, taken, readProblem(err, limit)
			}
		}
	}
}

// firstSize and nextSize let the buffer double until it holds what was announced, and a byte more: not every reader tells the
// end together with the last byte.
func firstSize(announced int64) int64 {
	if announced < 0 {
		return 4 << 10
	}
	return min(announced+1, firstRead)
}

func nextSize(size, announced int64) int64 {
	if size <= announced {
		return min(2*size, announced+1)
	}
	return 2 * size
}

func readProblem(err error, limit int64) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return requestTimeout.because("Send the whole request faster.").causedBy(err)
	}
	return invalidBody.because("The body ended early, or its chunks are malformed.").causedBy(err)
}

func tooLarge(limit int64) error {
	return payloadTooLarge.because("At most %d bytes are accepted.", limit)
}

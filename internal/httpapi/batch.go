package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"gearman-gateway/internal/auth"
	"gearman-gateway/internal/ledger"
)

// batchWidth is how many submissions of one batch are on their way at a time.
const batchWidth = 32

// A batchItem is one submission of a batch, and then what became of it.
type batchItem struct {
	submission
	mistakes []fieldError
	rec      *ledger.Record // nil: there is none
	err      error          // it is refused, or its submit went wrong
}

// batch is POST /jobs/batch. Each submission is answered for by itself; only a body that cannot be told apart into submissions is
// refused as a whole, and then nothing of it was submitted.
func (a *API) batch(w *response, r *http.Request) error {
	if len(r.Header.Values("Idempotency-Key")) > 0 {
		return invalidHeader.because("Idempotency-Key is for single submissions.")
	}
	decode := a.decodeArray
	switch contentType := r.Header.Get("Content-Type"); {
	case carriesLines(contentType):
		decode = a.decodeLines
	case !carriesJSON(contentType):
		return unsupportedMediaType.because("Send application/json, or application/x-ndjson with one submission a line.")
	}
	body, taken, err := a.readBody(w, r, a.o.MaxBatchBytes)
	if err != nil {
		return err
	}
	defer a.inflight.give(taken)
	items, err := decode(body)
	if err != nil {
		return err
	}
	for i := range items {
		items[i].from(w, r)
	}
	a.submitAll(r.Context(), w.who, items)
	if err := r.Context().Err(); err != nil && !errors.Is(context.Cause(r.Context()), errStopped) {
		return err // nobody is there to be answered
	}
	w.err = failuresOf(items)
	outcomes := a.appendOutcomes(make([]byte, 0, 1<<10*(len(items)+1)), items)
	a.answers.used.Add(int64(len(outcomes))) // whatever there is: what was submitted must be told
	defer a.answers.give(int64(len(outcomes)))
	w.send(http.StatusOK, "application/json", outcomes)
	return nil
}

// decodeArray reads a body that is a JSON array of submissions.
func (a *API) decodeArray(body []byte) (items []batchItem, err error) {
	e := newEnvelope(body)
	defer e.release()
	if kind := e.dec.PeekKind(); kind != '[' {
		if _, err := e.value(); err != nil {
			return nil, unreadable(err)
		}
		return nil, wrongBody("an array")
	}
	if _, err := e.dec.ReadToken(); err != nil {
		return nil, unreadable(err)
	}
	for e.dec.PeekKind() != ']' {
		if len(items) == a.o.MaxBatch {
			return nil, a.tooMany()
		}
		items = append(items, newBatchItem())
		if err := items[len(items)-1].read(e); err != nil {
			return nil, unreadable(err)
		}
	}
	if _, err := e.dec.ReadToken(); err != nil {
		return nil, unreadable(err)
	}
	if err := e.end(); err != nil {
		return nil, unreadable(err)
	}
	return items, nil
}

// decodeLines reads a body that has a submission in each line. A line that is not JSON fails alone.
func (a *API) decodeLines(body []byte) (items []batchItem, err error) {
	for line := range bytes.Lines(body) {
		if line = bytes.Trim(line, " \t\r\n"); len(line) == 0 {
			continue
		}
		if len(items) == a.o.MaxBatch {
			return nil, a.tooMany()
		}
		item, e := newBatchItem(), newEnvelope(line)
		err := item.read(e)
		if err == nil {
			err = e.end()
		}
		if err != nil {
			item.err = unreadable(err)
		}
		e.release()
		items = append(items, item)
	}
	return items, nil
}

func newBatchItem() batchItem { return batchItem{submission: newSubmission(ledger.Background)} }

// read takes the next value of e. Its error is one after which e cannot be read on.
func (i *batchItem) read(e *envelope) error {
	mistakes, refused, err := e.submission(&i.submission)
	i.mistakes = mistakes
	if refused != nil {
		i.err = refused
	}
	return err
}

func (a *API) tooMany() error {
	return payloadTooLarge.because("At most %d submissions are accepted in a batch. Nothing was submitted.", a.o.MaxBatch)
}

// submitAll submits the items, begun in their order and a few at a time, and returns when each has its outcome.
func (a *API) submitAll(ctx context.Context, who *auth.Identity, items []batchItem) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(batchWidth, len(items)) {
		group.Go(func() {
			for n := next.Add(1) - 1; n < int64(len(items)); n = next.Add(1) - 1 {
				a.submitItem(ctx, who, &items[n])
			}
		})
	}
	group.Wait()
}

func (a *API) submitItem(ctx context.Context, who *auth.Identity, i *batchItem) {
	if i.err != nil {
		return
	}
	defer func() { // on this goroutine nobody else recovers
		if v := recover(); v != nil {
			i.err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	if i.Mode == string(ledger.Sync) {
		i.mistakes = append(i.mistakes, fieldError{Pointer: "#/mode", Detail: "must not be sync in a batch"})
	}
	t, err := a.task(who, &i.submission, i.mistakes)
	if err != nil {
		i.err = err
		return
	}
	i.rec, i.err = a.hand(ctx, &i.submission, t)
	if i.err != nil {
		i.err = stopped(ctx, i.err)
	}
}

// failuresOf returns the first error that is not the client's, for the log.
func failuresOf(items []batchItem) error {
	var first error
	n := 0
	for i := range items {
		if err := items[i].err; err != nil && asProblem(err).status >= http.StatusInternalServerError {
			n++
			if first == nil {
				first = err
			}
		}
	}
	if first == nil {
		return nil
	}
	return fmt.Errorf("%d of %d submissions, the first: %w", n, len(items), first)
}

// appendOutcomes appends what became of each item, in their order.
func (a *API) appendOutcomes(b []byte, items []batchItem) []byte {
	b = append(b, '[')
	for n := range items {
		if n > 0 {
			b = append(b, ',')
		}
		i := &items[n]
		if i.err == nil {
			b = append(b, `{"status":202,"location":`...)
			b = appendString(b, selfLink(i.rec))
			b = append(b, `,"job":`...)
			b = appendJob(b, a.submitted(i.rec))
			b = append(b, `,"problem":null}`...)
			continue
		}
		p := asProblem(i.err)
		if p.job == "" && i.rec != nil {
			p.job = i.rec.ID
		}
		b = append(b, `{"status":`...)
		b = strconv.AppendInt(b, int64(p.status), 10)
		b = append(b, `,"location":null,"job":null,"problem":`...)
		b = p.append(b)
		b = append(b, '}')
	}
	return append(b, "]\n"...)
}

// carriesLines reports whether a body of this Content-Type has a JSON value in each line.
func carriesLines(contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.TrimSpace(mediaType)) {
	case "application/x-ndjson", "application/jsonl":
		return true
	}
	return false
}

package httpapi

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
	"golang.org/x/net/http/httpguts"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
)

func tooManyWaiting() error {
	return queueFull.because("As many requests wait as may, for the end of a job or for events.")
}

// job is GET /jobs/{handle}.
func (a *API) job(w *response, r *http.Request) error {
	q, err := query(r, "wait")
	if err != nil {
		return err
	}
	most := a.longestWait(w, "")
	if q.Has("wait") {
		if _, err := parseWait(q.Get("wait"), most); err != nil {
			p := validationError.because("The query has mistakes.")
			p.fields = []fieldError{{Parameter: "wait", Detail: err.Error()}}
			return p
		}
	}
	w.set("Vary", "Prefer")
	rec, err := a.find(w, r, a.waitFor(w, r, q.Get("wait"), 0, most))
	if err != nil {
		return err
	}
	return a.writeJob(w, http.StatusOK, view{Record: rec})
}

// cancel is DELETE /jobs/{handle}. A run of the gateway's own pool is told, and ends in its own time.
func (a *API) cancel(w *response, r *http.Request) error {
	ref, err := jobRef(r)
	if err != nil {
		return err
	}
	rec, err := a.o.Jobs.Cancel(r.Context(), w.caller(), ref)
	w.about(rec)
	if err != nil {
		return err
	}
	if rec.State.Ended() {
		return a.writeJob(w, http.StatusOK, view{Record: rec})
	}
	return a.accepted(w, view{Record: rec})
}

// runAgain is POST /jobs/{handle}/retry: the job once more, as a new one.
func (a *API) runAgain(w *response, r *http.Request) error {
	if len(r.Header.Values("Idempotency-Key")) > 0 {
		return invalidHeader.because("Idempotency-Key is for submissions: to run a job again is a new one each time.")
	}
	ref, err := jobRef(r)
	if err != nil {
		return err
	}
	if err := a.permitAgain(w, r, ref); err != nil {
		return err
	}
	leave, err := a.beginAgain(w, r, ref)
	if err != nil {
		return err
	}
	defer leave()
	rec, err := a.o.Jobs.RunAgain(r.Context(), w.caller(), ref)
	w.about(rec)
	if err != nil {
		return err
	}
	return a.accepted(w, a.submitted(rec))
}

// permitAgain returns why the caller may not run a job again: what was allowed when it was submitted may not be any more.
func (a *API) permitAgain(w *response, r *http.Request, ref string) error {
	if w.who.Functions == nil && w.who.Priorities == nil {
		return nil
	}
	old, err := a.o.Jobs.Job(r.Context(), w.caller(), ref, 0)
	if err != nil {
		return err
	}
	return permit(w.who, old.Function, old.Priority.String())
}

// result is GET /jobs/{handle}/result.
func (a *API) result(w *response, r *http.Request) error {
	rec, err := a.find(w, r, 0)
	if err != nil {
		return err
	}
	return a.writeResult(w, rec)
}

// waitFor returns the wait that the request names in text, which was checked before, else in its Prefer header, else def; the latter two
// are at most most.
func (a *API) waitFor(w *response, r *http.Request, text string, def, most time.Duration) time.Duration {
	if text != "" {
		wait, _ := parseWait(text, most)
		return wait
	}
	wait, ok := preferredWait(r.Header, most)
	if !ok {
		return min(def, most)
	}
	w.set("Preference-Applied", "wait="+strconv.Itoa(int(wait/time.Second)))
	return wait
}

// find looks up the job that the path names.
func (a *API) find(w *response, r *http.Request, wait time.Duration) (*ledger.Record, error) {
	ref, err := jobRef(r)
	if err != nil {
		return nil, err
	}
	if wait > 0 {
		if !a.waiting.take(1) {
			return nil, tooManyWaiting()
		}
		defer a.waiting.give(1)
		w.waits()
	}
	rec, err := a.o.Jobs.Job(r.Context(), w.caller(), ref, wait)
	w.about(rec)
	return rec, err
}

// jobRef returns the id or handle in the path. What cannot be either is a job that nobody knows.
func jobRef(r *http.Request) (string, error) {
	ref, err := pathParam(r, "handle")
	if err != nil || gearman.CheckHandle(ref) != nil {
		return "", jobNotFound.because("This can be neither the id nor the handle of a job.")
	}
	return ref, nil
}

// pathParam returns a parameter of the path, decoded once: chi matches the path as it was sent if that needs decoding
// in another way than usual, such as %2F, and the decoded path otherwise.
func pathParam(r *http.Request, name string) (string, error) {
	value := chi.URLParam(r, name)
	if r.URL.RawPath == "" {
		return value, nil
	}
	return url.PathUnescape(value)
}

// accepted answers for a job that goes on.
func (a *API) accepted(w *response, v view) error {
	setHeader(w, "X-Job-Id", v.ID)
	setHeader(w, "X-Job-Handle", v.Handle)
	w.set("Location", selfLink(v.Record))
	w.set("Retry-After", "1")
	return a.writeJob(w, http.StatusAccepted, v)
}

// writeResult answers with the bytes of the result alone; where there is none, with the job or with a problem.
func (a *API) writeResult(w *response, rec *ledger.Record) error {
	setHeader(w, "X-Job-Id", rec.ID)
	setHeader(w, "X-Job-Handle", rec.Handle)
	switch {
	case !rec.State.Ended():
		return a.accepted(w, view{Record: rec})
	case rec.State == ledger.Completed && rec.Kept:
		w.write(http.StatusOK, resultType(rec.Result), rec.Result)
		return nil
	case rec.State == ledger.Completed && toldResult(rec.Mode):
		return resultExpired.because("The job completed; its result was kept for a time, which is over.")
	case rec.State == ledger.Completed:
		return resultUnavailable.because("The job completed, but its result was not told to the gateway or is no longer kept.")
	case rec.State == ledger.Unknown:
		return resultUnavailable.because("No job server knows the job any more, and nobody reported how it ended.")
	case rec.State == ledger.Cancelled:
		return resultUnavailable.because("The job was cancelled.")
	}
	p := jobFailed.because("The job ended without a result. GET %s tells why.", selfLink(rec))
	p.reason = string(rec.State)
	if rec.Error != nil {
		p.reason = rec.Error.Kind
	}
	return p
}

// setHeader leaves out what is not known. Handles come from a job server: one with a control character is not passed on.
func setHeader(w *response, name, value string) {
	if value != "" && httpguts.ValidHeaderFieldValue(value) {
		w.set(name, value)
	}
}

func resultType(result []byte) string {
	switch event.PayloadEncoding(result) {
	case "json":
		return "application/json"
	case "text":
		return plainText
	}
	return "application/octet-stream"
}

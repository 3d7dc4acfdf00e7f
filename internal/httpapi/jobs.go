package httpapi

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
)

// submit is POST /jobs.
func (a *API) submit(w *response, r *http.Request) error {
	if err := checkSubmitHeaders(r); err != nil {
		return err
	}
	if !carriesJSON(r.Header.Get("Content-Type")) {
		return unsupportedMediaType.because("Send application/json.")
	}
	// Room for what base64 adds to the largest workload, and for the envelope.
	body, release, err := a.readBody(w, r, a.o.MaxWorkload/3*4+64<<10)
	if err != nil {
		return err
	}
	defer release()

	s := submission{Mode: string(ledger.Background), Priority: "normal"}
	mistakes, err := decodeEnvelope(body, &s)
	if err != nil {
		return err
	}
	workload, mistake := s.workload()
	if mistake != nil {
		mistakes = append(mistakes, *mistake)
	}
	if mistakes = a.checkMembers(&s, mistakes); len(mistakes) > 0 {
		p := validationError.because("The submission has mistakes.")
		p.fields = mistakes
		return p.sorted()
	}
	if int64(len(workload)) > a.o.MaxWorkload {
		return tooLarge(a.o.MaxWorkload)
	}

	rec, err := a.run(w, r, s.task(workload), s.Timeout)
	if err != nil {
		return err
	}
	if rec.Mode == ledger.Sync && rec.State.Ended() {
		return a.writeJob(w, http.StatusOK, rec)
	}
	return a.accepted(w, rec)
}

// checkMembers adds what the rules say of s to mistakes; a member that has one already is left alone.
func (a *API) checkMembers(s *submission, mistakes []fieldError) []fieldError {
	known := len(mistakes)
next:
	for name, detail := range a.fields.check(s) {
		for _, m := range mistakes[:known] {
			if m.Pointer == pointer(name) {
				continue next
			}
		}
		mistakes = append(mistakes, fieldError{Pointer: pointer(name), Detail: detail})
	}
	return mistakes
}

// call is POST /functions/{function}: the body is the workload, the response the result.
func (a *API) call(w *response, r *http.Request) error {
	if err := checkSubmitHeaders(r); err != nil {
		return err
	}
	q, err := query(r, "mode", "priority", "unique", "timeout")
	if err != nil {
		return err
	}
	function, err := pathParam(r, "function")
	if err != nil {
		return err
	}
	s := submission{Function: function, Mode: string(ledger.Sync), Priority: "normal"}
	for name, values := range q {
		*s.field(name) = values[0]
	}
	if mistakes := a.fields.check(&s); len(mistakes) > 0 {
		p := validationError.because("The path or the query has mistakes.")
		for name, detail := range mistakes {
			p.fields = append(p.fields, fieldError{Parameter: name, Detail: detail})
		}
		return p.sorted()
	}
	workload, release, err := a.readBody(w, r, a.o.MaxWorkload)
	if err != nil {
		return err
	}
	defer release()

	rec, err := a.run(w, r, s.task(workload), s.Timeout)
	if err != nil {
		return err
	}
	if rec.Mode == ledger.Background {
		return a.accepted(w, rec)
	}
	return a.writeResult(w, rec)
}

func checkSubmitHeaders(r *http.Request) error {
	if r.Header.Get("Idempotency-Key") != "" {
		return invalidHeader.because("Idempotency-Key is not available yet.")
	}
	return nil
}

// run submits t and, if it is sync, waits: as long as timeout says, else as the Prefer header says, else as configured.
func (a *API) run(w *response, r *http.Request, t ledger.Task, timeout string) (ledger.Record, error) {
	w.Header().Set("Vary", "Prefer")
	if t.Mode == ledger.Sync {
		t.Wait = a.waitFor(w, r, timeout, a.o.SyncTimeout)
		if !a.waiting.take(1) {
			return ledger.Record{}, tooManyWaiting()
		}
		defer a.waiting.give(1)
	}
	rec, err := a.o.Jobs.Submit(r.Context(), t)
	w.job = rec.ID
	return rec, err
}

func tooManyWaiting() error {
	return queueFull.because("As many requests wait for the end of a job as may.")
}

// job is GET /jobs/{handle}.
func (a *API) job(w *response, r *http.Request) error {
	q, err := query(r, "wait")
	if err != nil {
		return err
	}
	if q.Has("wait") {
		if _, err := parseWait(q.Get("wait"), a.o.MaxWait); err != nil {
			p := validationError.because("The query has mistakes.")
			p.fields = []fieldError{{Parameter: "wait", Detail: err.Error()}}
			return p
		}
	}
	w.Header().Set("Vary", "Prefer")
	rec, err := a.find(w, r, a.waitFor(w, r, q.Get("wait"), 0))
	if err != nil {
		return err
	}
	return a.writeJob(w, http.StatusOK, rec)
}

// result is GET /jobs/{handle}/result.
func (a *API) result(w *response, r *http.Request) error {
	rec, err := a.find(w, r, 0)
	if err != nil {
		return err
	}
	return a.writeResult(w, rec)
}

// waitFor returns the wait that the request names in text, which was checked before, else in its Prefer header, else def.
func (a *API) waitFor(w *response, r *http.Request, text string, def time.Duration) time.Duration {
	if text != "" {
		wait, _ := parseWait(text, a.o.MaxWait)
		return wait
	}
	wait, ok := preferredWait(r.Header, a.o.MaxWait)
	if !ok {
		return def
	}
	w.Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(wait/time.Second)))
	return wait
}

// find looks up the job that the path names. What cannot be a handle is one that nobody knows.
func (a *API) find(w *response, r *http.Request, wait time.Duration) (ledger.Record, error) {
	ref, err := pathParam(r, "handle")
	if err != nil || gearman.CheckHandle(ref) != nil {
		return ledger.Record{}, jobNotFound.because("This can be neither the id nor the handle of a job.")
	}
	if wait > 0 {
		if !a.waiting.take(1) {
			return ledger.Record{}, tooManyWaiting()
		}
		defer a.waiting.give(1)
	}
	rec, err := a.o.Jobs.Job(r.Context(), ref, wait)
	w.job = rec.ID
	return rec, err
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
func (a *API) accepted(w *response, rec ledger.Record) error {
	w.Header().Set("Location", selfLink(rec))
	w.Header().Set("Retry-After", "1")
	return a.writeJob(w, http.StatusAccepted, rec)
}

// writeResult answers with the bytes of the result alone; where there is none, with the job or with a problem.
func (a *API) writeResult(w *response, rec ledger.Record) error {
	setHeader(w, "X-Job-Id", rec.ID)
	setHeader(w, "X-Job-Handle", rec.Handle)
	switch {
	case !rec.State.Ended():
		return a.accepted(w, rec)
	case rec.State == ledger.Completed && rec.Kept:
		w.write(http.StatusOK, resultType(rec.Result), rec.Result)
		return nil
	case rec.State == ledger.Completed && rec.Mode == ledger.Sync:
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
	if value != "" && gearman.CheckHandle(value) == nil {
		w.Header().Set(name, value)
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

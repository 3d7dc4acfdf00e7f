package httpapi

import (
	"context"
	"net/http"
	"time"

	"gearman-gateway/internal/auth"
	"gearman-gateway/internal/ledger"
)

// submit is POST /jobs.
func (a *API) submit(w *response, r *http.Request) error {
	if !carriesJSON(r.Header.Get("Content-Type")) {
		return unsupportedMediaType.because("Send application/json.")
	}
	s := takeSubmission(ledger.Background)
	defer s.giveBack()
	s.from(w, r)
	var err error
	if s.key, err = idempotencyKey(r.Header); err != nil {
		return err
	}
	body, taken, err := a.readBody(w, r, a.maxEnvelope(w.who))
	if err != nil {
		return err
	}
	defer a.inflight.give(taken)

	mistakes, err := decodeEnvelope(body, s)
	if err != nil {
		return err
	}
	preferAsync(w, r, s)
	t, err := a.task(w.who, s, mistakes)
	if err != nil {
		return err
	}
	rec, err := a.run(w, r, s, t)
	if err != nil {
		return err
	}
	if rec.Mode == ledger.Sync && rec.State.Ended() {
		return a.writeJob(w, http.StatusOK, view{Record: rec})
	}
	return a.accepted(w, a.submitted(rec))
}

// call is POST /functions/{function}: the body is the workload, the response the result.
func (a *API) call(w *response, r *http.Request) error {
	s := takeSubmission(ledger.Sync)
	defer s.giveBack()
	if err := a.callOf(w, r, s); err != nil {
		return err
	}
	workload, taken, err := a.readWorkload(w, r, s.Function)
	if err != nil {
		return err
	}
	defer a.inflight.give(taken)

	t := s.task(workload)
	t.Owner = w.who.Name
	if err := a.conforms(t); err != nil {
		return err
	}
	rec, err := a.run(w, r, s, t)
	if err != nil {
		return err
	}
	if rec.Mode != ledger.Sync || !rec.State.Ended() {
		return a.accepted(w, a.submitted(rec))
	}
	return a.writeResult(w, rec)
}

// callOf makes s the submission that the path, the query and the headers are, checked.
func (a *API) callOf(w *response, r *http.Request, s *submission) (err error) {
	s.from(w, r)
	if s.key, err = idempotencyKey(r.Header); err != nil {
		return err
	}
	q, err := query(r, "mode", "priority", "unique", "timeout", "run_at", "delay", "deadline", "on_lost", "require_worker",
		"callback", "callback_events")
	if err != nil {
		return err
	}
	if s.Function, err = pathParam(r, "function"); err != nil {
		return err
	}
	var m mistakes
	s.callback, m = callbackOf(q)
	for name, values := range q {
		switch text := values[0]; {
		case name != "require_worker":
			if wrong := s.set(name, text); wrong != "" {
				m = m.note(name, wrong)
			}
		case text == "true" || text == "false":
			s.RequireWorker = text == "true"
		default:
			m = m.note(name, "must be true or false")
		}
	}
	preferAsync(w, r, s)
	for name, detail := range a.fields.check(s, time.Now()) {
		m = m.note(name, detail)
	}
	if wrong := a.checkCallback(s); wrong != nil {
		m = m.note(map[string]string{"url": "callback", "events": "callback_events"}[wrong.Member], wrong.Detail)
	}
	if m != nil {
		return wrongParameters(m)
	}
	return permit(w.who, s.Function, s.Priority)
}

// preferAsync makes a sync submission a tracked one if the request would rather have it so.
func preferAsync(w *response, r *http.Request, s *submission) {
	if s.Mode == string(ledger.Sync) && prefersAsync(r.Header) {
		s.Mode = string(ledger.Tracked)
		w.set("Vary", "Prefer")
		w.set("Preference-Applied", "respond-async")
	}
}

// task checks a submission with a workload in it, and makes it a task. The mistakes are those that were found before.
func (a *API) task(who *auth.Identity, s *submission, mistakes []fieldError) (*ledger.Task, error) {
	workload, mistake := s.workload()
	if mistake != nil {
		mistakes = append(mistakes, *mistake)
	}
	if mistakes = a.checkMembers(s, mistakes); len(mistakes) > 0 {
		p := validationError.because("The submission has mistakes.")
		p.fields = mistakes
		return nil, p.sorted()
	}
	if err := permit(who, s.Function, s.Priority); err != nil {
		return nil, err
	}
	if err := a.fits(who, s.Function, int64(len(workload))); err != nil {
		return nil, err
	}
	t := s.task(workload)
	t.Owner = who.Name
	return t, a.conforms(t, "workload")
}

// checkMembers adds what the rules say of s to mistakes; a member that has one already is left alone.
func (a *API) checkMembers(s *submission, mistakes []fieldError) []fieldError {
	known := len(mistakes)
next:
	for name, detail := range a.fields.check(s, time.Now()) {
		for _, m := range mistakes[:known] {
			if m.Pointer == pointer(name) {
				continue next
			}
		}
		mistakes = append(mistakes, fieldError{Pointer: pointer(name), Detail: detail})
	}
	if wrong := a.checkCallback(s); wrong != nil {
		mistakes = append(mistakes, fieldError{Pointer: pointer("callback", wrong.Member), Detail: wrong.Detail})
	}
	return mistakes
}

// run submits t and, if it is sync, waits: as long as s says, else as the Prefer header says, else as configured.
func (a *API) run(w *response, r *http.Request, s *submission, t *ledger.Task) (*ledger.Record, error) {
	if t.Mode == ledger.Sync {
		w.set("Vary", "Prefer")
		most := a.longestWait(w, t.Function)
		if err := checkWait(r, s.Timeout, most); err != nil {
			return nil, err
		}
		t.Wait = a.waitFor(w, r, s.Timeout, a.o.SyncTimeout, most)
		if !a.waiting.take(1) {
			return nil, tooManyWaiting()
		}
		defer a.waiting.give(1)
		w.waits()
	}
	rec, err := a.hand(r.Context(), s, t)
	w.about(rec)
	if rec != nil && rec.Replayed {
		w.set("Idempotent-Replayed", "true")
	}
	return rec, err
}

// hand gives a task to the ledger, if there is a worker where s requires one. Of workers that nobody can tell about it is assumed that
// they are there.
func (a *API) hand(ctx context.Context, s *submission, t *ledger.Task) (*ledger.Record, error) {
	if s.RequireWorker {
		if workers, _, known := a.o.Servers.Load(t.Function); known && workers == 0 {
			return nil, noWorker.because("No worker for the function is connected. Nothing was submitted.")
		}
	}
	leave, err := a.begin(t.Owner, t.Function)
	if err != nil {
		return nil, err
	}
	defer leave()
	return a.o.Jobs.Submit(ctx, t)
}

// submitted is how a job is shown to who has just submitted it.
func (a *API) submitted(rec *ledger.Record) view {
	l := &load{}
	l.workers, l.queued, l.known = a.o.Servers.Load(rec.Function)
	return view{Record: rec, load: l}
}

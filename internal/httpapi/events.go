package httpapi

import (
	"context"
	"net/http"
	"strconv"
)

// events is GET /jobs/{handle}/events: the job's log as Server-Sent Events, from after the one that Last-Event-ID names, until the
// job has ended. A client that has seen all of a job that ended gets 204, upon which a browser's EventSource does not come back.
func (a *API) events(w *response, r *http.Request) error {
	after, err := lastEvent(r)
	if err != nil {
		return err
	}
	if a.drain.Err() != nil {
		return shuttingDown.because("The gateway opens no more event streams.")
	}
	if !a.streams.take(1) {
		return queueFull.because("As many event streams are open as may be.")
	}
	defer a.streams.give(1)
	w.waits()
	rec, err := a.find(w, r, 0)
	switch {
	case err != nil:
		return err
	case rec.ID == "":
		return jobNotFound.because("The job was submitted by somebody else: the gateway has no events of it.")
	}

	id := rec.ID
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(a.drain, func() { cancel(errStopped) })()
	s := newStream(w, after, cancel, func() {
		// What becomes of a background job with a worker of somebody else is only known by asking; what is learned comes by Follow.
		_, _ = a.o.Jobs.Job(ctx, w.caller(), id, 0)
	})
	defer s.close()
	if !rec.State.Ended() || after == 0 {
		s.open()
		if r.Method == http.MethodHead {
			return nil
		}
	}
	if err := a.o.Jobs.Follow(ctx, w.caller(), id, after, s.send); err != nil {
		return err
	}
	if !s.opened {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if rec, err = a.o.Jobs.Job(ctx, w.caller(), id, 0); err != nil {
		return err
	}
	return s.end(rec.State)
}

// lastEvent returns the number of the last event that the client has seen: that of the header which a browser sends when it comes
// back, else that of the query; 0 if there is none.
func lastEvent(r *http.Request) (uint64, error) {
	q, err := query(r, "last_event_id")
	if err != nil {
		return 0, err
	}
	if text := r.Header.Get("Last-Event-ID"); text != "" {
		after, err := strconv.ParseUint(text, 10, 63)
		if err != nil {
			return 0, invalidHeader.because("Last-Event-ID must be the id of an event.")
		}
		return after, nil
	}
	if !q.Has("last_event_id") {
		return 0, nil
	}
	after, err := strconv.ParseUint(q.Get("last_event_id"), 10, 63)
	if err != nil {
		return 0, wrongParameters(mistakes{"last_event_id": "must be the id of an event"})
	}
	return after, nil
}

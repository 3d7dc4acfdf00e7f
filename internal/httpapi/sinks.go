package httpapi

import (
	"net/http"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

// A sinkItem is a webhook sink and how it is.
type sinkItem struct {
	Name      string            `json:"name"`
	URL       *string           `json:"url"`       // null: each job's callback has its own
	Events    *event.Patterns   `json:"events"`    // likewise
	Functions *[]string         `json:"functions"` // null: all
	State     webhook.SinkState `json:"state"`
	Reason    *string           `json:"reason"`

	Behind            int64   `json:"behind"`
	Pending           int64   `json:"pending"`
	Dead              int64   `json:"dead"`
	OldestUndelivered *string `json:"oldest_undelivered"`

	FailingSince  *string    `json:"failing_since"`
	LastError     *sinkError `json:"last_error"`
	LastSuccessAt *string    `json:"last_success_at"`
}

type sinkError struct {
	Message string  `json:"message"`
	At      *string `json:"at"`
}

func newSinkItem(s webhook.SinkStatus) sinkItem {
	item := sinkItem{
		Name: s.Name, URL: orNull(s.URL), State: s.State, Reason: orNull(s.Disabled),
		Behind: s.Behind, Pending: s.Pending, Dead: s.Dead, OldestUndelivered: timeOrNull(s.Oldest),
		FailingSince: timeOrNull(s.FailingSince), LastSuccessAt: timeOrNull(s.LastSuccess),
	}
	if s.Events != nil {
		item.Events = &s.Events
	}
	if s.Functions != nil {
		item.Functions = &s.Functions
	}
	if s.LastError != "" {
		item.LastError = &sinkError{s.LastError, timeOrNull(s.LastErrorAt)}
	}
	return item
}

// sinks is GET /sinks.
func (a *API) sinks(w *response, r *http.Request) error {
	all, err := a.o.Webhooks.Sinks(r.Context())
	if err != nil {
		return err
	}
	return writeList(w, all, newSinkItem)
}

// sink is GET /sinks/{name}.
func (a *API) sink(w *response, r *http.Request) error {
	name, err := sinkName(r)
	if err != nil {
		return err
	}
	return a.writeSink(w, r, name)
}

// sinkName returns the name in the path. What cannot be decoded is a sink that nobody knows.
func sinkName(r *http.Request) (string, error) {
	name, err := pathParam(r, "name")
	if err != nil {
		return "", sinkNotFound.because("This cannot be the name of a sink.")
	}
	return name, nil
}

func (a *API) writeSink(w *response, r *http.Request, name string) error {
	s, err := a.o.Webhooks.Sink(r.Context(), name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, newSinkItem(s))
}

// testSink is POST /sinks/{name}/test. A sink that fails the test is no failure of the request.
func (a *API) testSink(w *response, r *http.Request) error {
	name, _, err := a.toSink(w, r)
	if err != nil {
		return err
	}
	attempt, err := a.o.Webhooks.Test(r.Context(), name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, newAttemptItem(attempt))
}

// pauseSink is POST /sinks/{name}/pause.
func (a *API) pauseSink(w *response, r *http.Request) error {
	name, _, err := a.toSink(w, r)
	if err != nil {
		return err
	}
	if err := a.o.Webhooks.Pause(r.Context(), name); err != nil {
		return err
	}
	a.audit(w, event.SinkPaused, name, event.Data{Rest: &event.Rest{Sink: name}})
	return a.writeSink(w, r, name)
}

// resumeSink is POST /sinks/{name}/resume.
func (a *API) resumeSink(w *response, r *http.Request) error {
	name, _, err := a.toSink(w, r)
	if err != nil {
		return err
	}
	if err := a.o.Webhooks.Resume(r.Context(), name); err != nil {
		return err
	}
	a.audit(w, event.SinkResumed, name, event.Data{Rest: &event.Rest{Sink: name}})
	return a.writeSink(w, r, name)
}

// replay is POST /sinks/{name}/replay: the dead letters of a time once more.
func (a *API) replay(w *response, r *http.Request) error {
	name, given, err := a.toSink(w, r, "since", "until")
	if err != nil {
		return err
	}
	since, until, err := span(given)
	if err != nil {
		return err
	}
	n, err := a.o.Webhooks.Replay(r.Context(), name, since, until)
	if err != nil {
		return err
	}
	a.audit(w, event.SinkReplayed, name, event.Data{Rest: &event.Rest{Sink: name, Replayed: &n}})
	return writeJSON(w, http.StatusOK, struct {
		Replayed int `json:"replayed"`
	}{n})
}

// span reads the time that since and until are around; zero where one is not given.
func span(given map[string]string) (since, until time.Time, err error) {
	times := map[string]time.Time{}
	var mistakes []fieldError
	for member, text := range given {
		if times[member], err = parseTime(text); err != nil {
			mistakes = append(mistakes, fieldError{Pointer: pointer(member), Detail: err.Error()})
		}
	}
	since, until = times["since"], times["until"]
	if mistakes == nil && len(times) == 2 && !since.Before(until) {
		mistakes = append(mistakes, fieldError{Pointer: pointer("until"), Detail: "must be later than since"})
	}
	return since, until, wrongMembers(mistakes)
}

// toSink reads what is asked of a sink: its name, and those members of the body that are known.
func (a *API) toSink(w *response, r *http.Request, known ...string) (name string, given map[string]string, err error) {
	if name, err = sinkName(r); err != nil {
		return "", nil, err
	}
	given, err = a.members(w, r, known...)
	return name, given, err
}

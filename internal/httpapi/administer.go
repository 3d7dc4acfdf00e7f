package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// audit tells what an administrator has done, in the log and as an event of its subject. d has a Rest.
func (a *API) audit(w *response, t event.Type, subject string, d event.Data) {
	line := a.o.Log.Info().Str("action", string(t)).Str("subject", subject).Str("request_id", w.id)
	if d.By = w.who.Name; d.By != "" {
		line = line.Str("identity", d.By).Str("credential", w.who.Credential)
	}
	if d.MaxQueue != nil {
		line = line.Ints("max_queue", []int{d.MaxQueue.High, d.MaxQueue.Normal, d.MaxQueue.Low}).Strs("servers", d.Servers)
	}
	line.Msg("administration")
	if a.o.Audit != nil {
		now := time.Now()
		a.o.Audit.Publish(event.New(t, subject, uint64(now.UnixMicro()), now, d))
	}
}

// functionName returns the name in the path, if it can be a function's and the caller's credentials are for it.
func functionName(w *response, r *http.Request) (string, error) {
	name, err := pathParam(r, "function")
	if err != nil {
		return "", err
	}
	if err := gearman.CheckFunction(name); err != nil {
		return "", err
	}
	if !w.who.MayCall(name) {
		return "", forbidden.because("These credentials are not for this function.")
	}
	return name, nil
}

// pauseFunction is POST /functions/{function}/pause.
func (a *API) pauseFunction(w *response, r *http.Request) error {
	return a.pause(w, r, a.o.Pool.Pause, event.FunctionPaused)
}

// resumeFunction is POST /functions/{function}/resume.
func (a *API) resumeFunction(w *response, r *http.Request) error {
	return a.pause(w, r, a.o.Pool.Resume, event.FunctionResumed)
}

func (a *API) pause(w *response, r *http.Request, change func(function string) (own bool), done event.Type) error {
	name, err := functionName(w, r)
	if err != nil {
		return err
	}
	if _, err := a.members(w, r); err != nil {
		return err
	}
	if !change(name) {
		return functionNotFound.because("The gateway's own workers do not have this function; others cannot be paused.")
	}
	a.audit(w, done, name, event.Data{Function: name, Rest: new(event.Rest)})
	return writeJSON(w, http.StatusOK, struct {
		Function string `json:"function"`
		Paused   bool   `json:"paused"`
	}{name, done == event.FunctionPaused})
}

// setMaxQueue is PUT /functions/{function}/maxqueue. A job server that is away cannot be told later: that is an error, which says how
// many have the bound all the same.
func (a *API) setMaxQueue(w *response, r *http.Request) error {
	name, err := functionName(w, r)
	if err != nil {
		return err
	}
	limits, err := a.maxQueue(w, r)
	if err != nil {
		return err
	}
	var done []string
	var failed []error
	answers := a.o.Servers.SetMaxQueue(r.Context(), name, limits)
	for _, answer := range answers {
		if answer.Err == nil {
			done = append(done, answer.Server)
		} else {
			failed = append(failed, answer.Err)
		}
	}
	told := event.MaxQueue(limits)
	if len(done) > 0 {
		a.audit(w, event.FunctionMaxQueue, name, event.Data{Function: name, Rest: &event.Rest{MaxQueue: &told, Servers: done}})
	}
	if len(failed) > 0 {
		return partial(len(done), len(answers), failed)
	}
	return writeJSON(w, http.StatusOK, struct {
		Function string         `json:"function"`
		MaxQueue event.MaxQueue `json:"max_queue"`
		Servers  []string       `json:"servers"`
	}{name, told, done})
}

// partial is the problem where not all job servers did what they were asked. It is 502 if all that did not refused it.
func partial(done, all int, failed []error) error {
	k, why := gearmanError, "refused it"
	for _, err := range failed {
		if _, refused := errors.AsType[*gearman.ServerError](err); !refused {
			k, why = gearmanUnavailable, "did not answer"
		}
	}
	p := k.because("No job server took the bound: they %s. It is safe to send it again.", why)
	if done > 0 {
		p = k.because("%d of %d job servers took the bound, which holds there; others %s. It is safe to send it again.", done, all, why)
	}
	return p.causedBy(errors.Join(failed...))
}

// maxQueue reads a body with max, or with high, normal and low.
func (a *API) maxQueue(w *response, r *http.Request) (m gearman.MaxQueue, err error) {
	given := map[string]int{}
	err = a.object(w, r, []string{"max", "high", "normal", "low"}, func(name string, value jsontext.Value) (wrong string) {
		n, err := strconv.Atoi(string(value))
		if err != nil || n < 0 || n > gearman.MaxMaxQueue {
			wrong = fmt.Sprintf("must be a whole number from 0 to %d", gearman.MaxMaxQueue)
		}
		given[name] = n
		return wrong
	})
	if err != nil {
		return m, err
	}
	if most, ok := given["max"]; ok && len(given) == 1 {
		return gearman.MaxQueue{High: most, Normal: most, Low: most}, nil
	}
	if _, ok := given["max"]; !ok && len(given) == 3 {
		return gearman.MaxQueue{High: given["high"], Normal: given["normal"], Low: given["low"]}, nil
	}
	return m, wrongMembers([]fieldError{{Pointer: "#", Detail: "must have max alone, or high, normal and low"}})
}

package httpapi

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"gearman-gateway/internal/auth"
	"gearman-gateway/internal/limit"
)

// exceeded says which limit of whose is exceeded, and when it will not be.
func exceeded(k kind, e *limit.Exceeded) *problem {
	if e.After > 0 {
		k.retryAfter = strconv.FormatInt(int64((e.After+time.Second-1)/time.Second), 10)
	}
	whose := "you may have"
	if e.Of == "function" {
		whose = "all callers together may have of this function"
	}
	p := k.because("The limit %s of what %s is %s. Nothing was submitted.", e.Limit, whose, e.Max).causedBy(e)
	p.limit = e
	return p
}

// begin begins the submission of a job, which ends with leave.
func (a *API) begin(identity, function string) (leave func(), err error) {
	if most := a.o.Limits.Function(function).MaxJobs; most > 0 {
		// Jobs in the background are in the hands of the job servers, who told of them a moment ago.
		if _, queued, known := a.o.Servers.Load(function); known && queued >= most {
			return nil, &limit.Exceeded{Limit: "max_jobs", Of: "function", Max: strconv.Itoa(most)}
		}
	}
	return a.o.Limits.Submit(identity, function)
}

// beginAgain is begin for a job that is to be run again. What cannot be found is left to whoever runs it.
func (a *API) beginAgain(w *response, r *http.Request, ref string) (leave func(), err error) {
	if a.o.Limits == nil {
		return func() {}, nil
	}
	old, err := a.o.Jobs.Job(r.Context(), w.caller(), ref, 0)
	if err != nil {
		return nil, err
	}
	return a.begin(w.who.Name, old.Function)
}

// fits returns why a workload is too large.
func (a *API) fits(who *auth.Identity, function string, size int64) error {
	if size > a.o.MaxWorkload {
		return tooLarge(a.o.MaxWorkload)
	}
	for of, most := range map[string]int64{
		"identity": a.o.Limits.Identity(who.Name).MaxWorkload, "function": a.o.Limits.Function(function).MaxWorkload,
	} {
		if most > 0 && size > most {
			return exceeded(payloadTooLarge, &limit.Exceeded{Limit: "max_workload", Of: of, Max: strconv.FormatInt(most, 10) + " bytes"})
		}
	}
	return nil
}

// readWorkload is readBody of a body that is a workload. Who may have small ones alone does not get memory for large ones, of which nobody
// need have said how long they are.
func (a *API) readWorkload(w *response, r *http.Request, function string) (workload []byte, taken int64, err error) {
	most := a.o.MaxWorkload
	own := []int64{a.o.Limits.Identity(w.who.Name).MaxWorkload, a.o.Limits.Function(function).MaxWorkload}
	if a.o.Rules != nil {
		own = append(own, a.o.Rules(function).MaxWorkload)
	}
	for _, bound := range own {
		if bound > 0 {
			most = min(most, bound)
		}
	}
	workload, taken, err = a.readBody(w, r, most)
	if p, ok := errors.AsType[*problem](err); ok && p.kind == payloadTooLarge {
		err = cmp.Or(a.fits(w.who, function, most+1), err) // which says whose limit it is
	}
	return workload, taken, err
}

// maxEnvelope returns how large the body of a submission may be: room for what base64 adds to the largest workload, and for the other
// members. Who may have small workloads alone does not get memory for large ones, however they are escaped.
func (a *API) maxEnvelope(who *auth.Identity) int64 {
	const members = 64 << 10
	most := a.o.MaxWorkload/3*4 + members
	if own := a.o.Limits.Identity(who.Name).MaxWorkload; own > 0 && own < most/escaped {
		most = own*escaped + members
	}
	return most
}

// escaped is the length in bytes of \u0041, as which each byte of a workload may be written.
const escaped = 6

// longestWait returns how long the caller may wait, for a job of a function if one is named.
func (a *API) longestWait(w *response, function string) time.Duration {
	most := a.o.MaxWait
	if own := a.o.Limits.Identity(w.who.Name).MaxWait; own > 0 {
		most = min(most, own)
	}
	if function != "" {
		if its := a.o.Limits.Function(function).MaxWait; its > 0 {
			most = min(most, its)
		}
	}
	return most
}

// checkWait returns what is wrong with a submission's timeout, of which it is known that it is a duration.
func checkWait(r *http.Request, timeout string, most time.Duration) error {
	if timeout == "" {
		return nil
	}
	_, err := parseWait(timeout, most)
	if err == nil {
		return nil
	}
	p := validationError.because("The wait is longer than it may be here.")
	p.fields = []fieldError{{Pointer: pointer("timeout"), Detail: err.Error()}}
	if chi.URLParam(r, "function") != "" {
		p.fields = []fieldError{{Parameter: "timeout", Detail: err.Error()}}
	}
	return p
}

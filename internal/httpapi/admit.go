package httpapi

import (
	"errors"
	"net/http"
	"net/url"

	"gearman-gateway/internal/auth"
	"gearman-gateway/internal/ledger"
)

// open is what a route needs that everybody may call, without credentials.
const open auth.Scope = 0

// admit lets a handler answer those who have a scope, and nobody else.
func (a *API) admit(needs auth.Scope, h handler) handler {
	return func(w *response, r *http.Request) (err error) {
		if needs == open {
			return h(w, r)
		}
		if err = a.o.Gate.Enter(r.Context(), &w.place); err != nil { // even to find out who calls is too much
			return err
		}
		defer w.place.Leave()
		if w.who, err = a.identify(w, r); err != nil {
			return err
		}
		if !w.who.May(needs) {
			w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="`+needs.String()+`"`)
			return forbidden.because("These credentials do not have the scope that is needed here: %s.", needs)
		}
		leave, err := a.o.Limits.Enter(w.who.Name, needs == auth.Submit)
		if err != nil {
			return err
		}
		defer leave()
		return h(w, r)
	}
}

// identify returns who calls. The challenges are those of RFC 6750, section 3.
func (a *API) identify(w *response, r *http.Request) (*auth.Identity, error) {
	if a.o.Identify == nil {
		return auth.Anyone, nil
	}
	who, err := a.o.Identify(r)
	switch {
	case err != nil:
	case who.Name == "" && who != auth.Anyone: // which would own what is nobody's
		return nil, errors.New("an identity has no name")
	default:
		return who, nil
	}
	challenge, detail := `Bearer error="invalid_token"`, "These credentials are not accepted."
	switch {
	case errors.Is(err, auth.ErrNoCredentials):
		challenge, detail = "Bearer", "Send Authorization: Bearer with a key, or call with a client certificate."
	case errors.Is(err, auth.ErrExpired):
		challenge += `, error_description="expired"`
		detail = "These credentials have expired."
	}
	w.Header().Set("WWW-Authenticate", challenge)
	return nil, unauthorized.because("%s", detail).causedBy(err)
}

// permit returns why an identity may not submit a job of a function at a priority. The name of the function is valid, and it is
// compared byte for byte.
func permit(who *auth.Identity, function, priority string) error {
	if !who.MayCall(function) {
		return forbidden.because("These credentials are not for jobs of this function.")
	}
	if !who.MayUse(priority) {
		return forbidden.because("These credentials are not for jobs of priority %s.", priority)
	}
	return nil
}

// caller is on whose behalf the ledger is asked.
func (w *response) caller() ledger.Caller {
	return ledger.Caller{Owner: w.who.Name, All: w.who.May(auth.Admin)}
}

// own returns the name of an identity that sees only what is its own; "" of one that sees all.
func (w *response) own() string {
	if w.who.May(auth.Admin) {
		return ""
	}
	return w.who.Name
}

// ownerFilter returns whose jobs are to be listed; "": everybody's.
func ownerFilter(who *auth.Identity, filters url.Values) (string, error) {
	owner := filters.Get("owner")
	switch {
	case who.May(auth.Admin):
		return owner, nil
	case owner == "" || owner == who.Name:
		return who.Name, nil
	}
	return "", forbidden.because("Jobs of other owners are for the scope admin.")
}

package httpapi

import (
	"errors"
	"net/http"

	"gearman-gateway/internal/auth"
)

// open is what a route needs that everybody may call, without credentials.
const open auth.Scope = 0

// admit lets a handler answer those who have a scope, and nobody else.
func (a *API) admit(needs auth.Scope, h handler) handler {
	return func(w *response, r *http.Request) (err error) {
		if needs == open {
			return h(w, r)
		}
		if w.who, err = a.identify(w, r); err != nil {
			return err
		}
		if !w.who.May(needs) {
			w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="`+needs.String()+`"`)
			return forbidden.because("These credentials do not have the scope that is needed here: %s.", needs)
		}
		return h(w, r)
	}
}

// identify returns who calls. The challenges are those of RFC 6750, section 3.
func (a *API) identify(w *response, r *http.Request) (*auth.Identity, error) {
	if a.o.Identify == nil {
		return auth.Anyone, nil
	}
	who, err := a.o.Identify(r)
	if err == nil {
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

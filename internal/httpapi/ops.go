package httpapi

import (
	"net/http"
	"net/http/pprof"

	"github.com/go-chi/chi/v5"

	"gearman-gateway/internal/auth"
)

// operations adds to the route table what is for operators: metrics, if there are any, and profiles. Profiles are for those who have the
// scope and have shown so: where there is no access control they are on the operations listener alone.
func (a *API) operations(get func(pattern string, needs auth.Scope, h handler)) {
	if a.o.Metrics != nil {
		get("/metrics", auth.Admin, a.metrics)
	}
	if a.o.Identify != nil {
		get("/debug/pprof/*", auth.Admin, func(w *response, r *http.Request) error {
			if w.who == nil || w.who.Name == "" { // Identify lets anyone in as long as access control is not configured
				return notFound.because("There is nothing at this path.")
			}
			return profile(w, r)
		})
	}
}

// opsRoutes is the route table of the operations listener. Nobody is asked who they are.
func (a *API) opsRoutes() http.Handler {
	r := chi.NewMux()
	r.Use(a.observe, a.guard)
	r.Method(http.MethodGet, "/livez", a.handle(a.livez))
	r.Method(http.MethodGet, "/readyz", a.handle(a.readyz))
	r.Method(http.MethodGet, "/debug/pprof/*", a.handle(profile))
	if a.o.Metrics != nil {
		r.Method(http.MethodGet, "/metrics", a.handle(a.metrics))
	}
	r.NotFound(a.handle(func(*response, *http.Request) error { return notFound.because("There is nothing at this path.") }))
	r.MethodNotAllowed(a.handle(func(w *response, _ *http.Request) error {
		w.Header().Set("Allow", http.MethodGet)
		return methodNotAllowed.because("The Allow header lists the methods of this path.")
	}))
	return r
}

// metrics is GET /metrics.
func (a *API) metrics(w *response, r *http.Request) error {
	a.o.Metrics.ServeHTTP(w, r)
	return nil
}

// profile is GET /debug/pprof/… of net/http/pprof, without cmdline: secrets may be among the flags. Each write has its own deadline, so
// that a profile may take longer than one.
func profile(w *response, r *http.Request) error {
	switch chi.URLParam(r, "*") {
	case "cmdline":
		return notFound.because("The command line is not shown.")
	case "profile":
		pprof.Profile(w, r)
	case "symbol":
		pprof.Symbol(w, r)
	case "trace":
		pprof.Trace(w, r)
	default:
		pprof.Index(w, r)
	}
	return nil
}

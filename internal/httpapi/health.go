package httpapi

import (
	"context"
	"net/http"
	"time"

	"gearman-gateway/api"
)

const plainText = "text/plain; charset=utf-8"

// livez is GET /livez: the process answers. It asks nobody, so that a job server that is down does not get the gateway restarted.
func (a *API) livez(w *response, _ *http.Request) error {
	w.write(http.StatusOK, plainText, []byte("ok\n"))
	return nil
}

// readyz is GET /readyz: jobs can be taken. With ?verbose it says which check failed, as Kubernetes' own endpoints do.
func (a *API) readyz(w *response, r *http.Request) error {
	err := a.ready(r.Context())
	verbose := r.URL.Query().Has("verbose")
	switch {
	case err == nil && verbose:
		w.write(http.StatusOK, plainText, []byte("[+]serving ok\n[+]gearman ok\nreadyz check passed\n"))
	case err == nil:
		w.write(http.StatusOK, plainText, []byte("ok\n"))
	case verbose:
		return a.notReady(w, err)
	default:
		return err
	}
	return nil
}

// notReady tells the failed check in the lines of ?verbose. The job servers are not asked while draining.
func (a *API) notReady(w *response, err error) error {
	w.err = err
	p := asProblem(err)
	text := "[+]serving ok\n[-]gearman failed: no job server answers\nreadyz check failed\n"
	if p.kind == shuttingDown {
		text = "[-]serving failed: shutting down\nreadyz check failed\n"
	}
	w.set("Retry-After", p.retryAfter)
	w.write(p.status, plainText, []byte(text))
	return nil
}

// pingTimeout bounds the ECHO of a readiness check: a job server that hangs accepts connections and says nothing.
const pingTimeout = 3 * time.Second

// ready reports why the gateway cannot take jobs.
func (a *API) ready(ctx context.Context) error {
	if a.drain.Err() != nil {
		return shuttingDown.because("The gateway takes no new work.")
	}
	// Everybody may ask, and the job servers are asked once for all who do at a time.
	answer := a.pings.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
		defer cancel()
		return nil, a.o.Servers.Ping(ctx)
	})
	select {
	case ping := <-answer:
		if ping.Err != nil {
			return gearmanUnavailable.because("No job server answers.").causedBy(ping.Err)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// openapi is GET /openapi.yaml.
func (a *API) openapi(w *response, _ *http.Request) error {
	w.send(http.StatusOK, "application/yaml", api.OpenAPI) // of which all have the same bytes
	return nil
}

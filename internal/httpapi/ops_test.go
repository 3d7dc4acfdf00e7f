package httpapi

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gearman-gateway/internal/auth"
)

func TestWhatIsForOperatorsNeedsTheirScope(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") })
	operator, reader := &auth.Identity{Name: "o", Scopes: auth.Admin}, &auth.Identity{Name: "r", Scopes: auth.Read}
	as := func(who *auth.Identity) func(*http.Request) (*auth.Identity, error) {
		return func(*http.Request) (*auth.Identity, error) { return who, nil }
	}
	nobody := func(*http.Request) (*auth.Identity, error) { return nil, auth.ErrNoCredentials }
	for name, row := range map[string]struct {
		identify       func(*http.Request) (*auth.Identity, error)
		metrics, pprof int
	}{
		"admin":             {as(operator), 200, 200},
		"read":              {as(reader), 403, 403},
		"no credentials":    {nobody, 401, 401},
		"no access control": {nil, 200, 404},
		"anyone":            {as(auth.Anyone), 200, 404},
	} {
		a := New(Options{Metrics: metrics, Identify: row.identify})
		for path, want := range map[string]int{
			"/metrics": row.metrics, "/debug/pprof/": row.pprof, "/debug/pprof/heap?debug=1": row.pprof,
		} {
			w := httptest.NewRecorder()
			a.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			if w.Code != want {
				t.Errorf("%s, %s: %d, want %d: %s", name, path, w.Code, want, w.Body)
			}
		}
	}
	w := httptest.NewRecorder()
	New(Options{Metrics: metrics, Identify: nobody}).opsRoutes().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "up 1") {
		t.Errorf("operations listener: %d %s", w.Code, w.Body)
	}
}

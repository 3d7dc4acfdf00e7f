package httpapi

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gearman-gateway/internal/ledger"
)

// atOnce is a ledger that accepts everything and keeps nothing, so that what is measured is the API.
type atOnce struct{ *fake }

func (atOnce) Submit(_ context.Context, t *ledger.Task) (*ledger.Record, error) {
	if t.Mode == ledger.Sync {
		return new(completed(*t, t.Workload)), nil
	}
	return new(queued(*t)), nil
}

// discard is a ResponseWriter that remembers the status.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkRequest is what a request costs between net/http and the ledger.
func BenchmarkRequest(b *testing.B) {
	job := func(mode string, size int) string {
		return `{"function":"reverse","workload":"` + strings.Repeat("x", size) + `","mode":"` + mode + `"}`
	}
	for _, r := range []struct {
		name, path, body string
		status           int
	}{
		{"background-100", "/jobs", job("background", 100), http.StatusAccepted},
		{"background-16KiB", "/jobs", job("background", 16<<10), http.StatusAccepted},
		{"sync-100", "/jobs", job("sync", 100), http.StatusOK},
		{"sync-16KiB", "/jobs", job("sync", 16<<10), http.StatusOK},
		{"batch-100", "/jobs/batch", "[" + strings.Repeat(job("background", 100)+",", 99) + job("background", 100) + "]", http.StatusOK},
		{"raw-100", "/functions/reverse", strings.Repeat("x", 100), http.StatusOK},
	} {
		b.Run(r.name, func(b *testing.B) {
			f := &fake{}
			api := New(Options{Jobs: atOnce{f}, Servers: f, Webhooks: &f.hooks})
			req := httptest.NewRequest(http.MethodPost, r.path, nil)
			if r.path != "/functions/reverse" {
				req.Header.Set("Content-Type", "application/json")
			}
			body := strings.NewReader(r.body)
			req.Body, req.ContentLength = io.NopCloser(body), int64(len(r.body))
			b.ReportAllocs()
			for b.Loop() {
				body.Reset(r.body)
				w := &discard{header: http.Header{}}
				if api.ServeHTTP(w, req); w.status != r.status {
					b.Fatalf("got %d, want %d", w.status, r.status)
				}
			}
		})
	}
}

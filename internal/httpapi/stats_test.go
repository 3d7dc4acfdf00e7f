package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// numbers stands for what answers GET /metrics.
var numbers = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = io.WriteString(w, "n 1\n")
})

// meter keeps what it is told.
type meter struct {
	mu   sync.Mutex
	told []string
}

func (m *meter) Answered(route, method string, status int, took time.Duration, waited bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told = append(m.told, fmt.Sprint(method, " ", route, " ", status, " ", waited))
	if took < 0 {
		m.told = append(m.told, "a negative time")
	}
}

func TestTheMeterHearsOfEachRequest(t *testing.T) {
	var m meter
	s, url := serve(t, &fake{}, Options{Meter: &m, Metrics: numbers})
	for _, r := range []struct{ method, path, body string }{
		{"GET", "/metrics", ""},
		{"HEAD", "/livez", ""},
		{"GET", "/nowhere/at/all", ""},
		{"PATCH", "/jobs", ""},
		{"POST", "/jobs", "no JSON"},
		{"POST", "/jobs", `{"function":"f"}`},
		{"POST", "/jobs", `{"function":"f","mode":"sync"}`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), r.method, url+r.path, strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || r.path == "/metrics" && string(b) != "n 1\n" {
			t.Errorf("%s %s: %q %v", r.method, r.path, b, err)
		}
		resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	want := []string{
		"GET /metrics 200 false", "HEAD /livez 200 false", "GET  404 false", "PATCH  405 false",
		"POST /jobs 400 false", "POST /jobs 202 false", "POST /jobs 200 true",
	}
	got := func() []string {
		m.mu.Lock()
		defer m.mu.Unlock()
		return slices.Clone(m.told)
	}
	for deadline := time.Now().Add(10 * time.Second); len(got()) < len(want) && time.Now().Before(deadline); { // an answer comes before its count
		time.Sleep(time.Millisecond)
	}
	if diff := cmp.Diff(want, got()); diff != "" {
		t.Error(diff)
	}
	stats := s.Stats()
	if stats.Requests != 0 || stats.Waiting != 0 || stats.MaxWaiting != 20_000 || stats.MaxStreams != 10_000 || stats.MaxBytes != 512<<20 {
		t.Errorf("stats: %+v", stats)
	}
}

package gateway_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gateway "gearman-gateway"
)

func readLimits(t *testing.T, text string) (gateway.Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := gateway.DefaultConfig()
	if err := c.ReadFile(file); err != nil {
		return c, err
	}
	return c, c.Check()
}

func TestBadLimitsAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"limits: {default: {rate: fast}}":                   "is not a rate such as 100/s",
		"limits: {default: {rate: 1/d}}":                    "is not a rate",
		"limits: {default: {rate: -1/s}}":                   "is not a rate",
		"limits: {default: {burst: 3}}":                     "limits.default: burst is set, and rate is not",
		"limits: {identities: {a: {concurrency: -1}}}":      `limits.identities["a"]: concurrency: is less than zero`,
		"limits: {identities: {'': {concurrency: 1}}}":      `limits.identities[""]: has no name`,
		"limits: {functions: {'a b': {concurrency: 1}}}":    `limits.functions["a b"]: `,
		"limits: {functions: {a: {max_job: 1}}}":            "max_job",
		"limits: {concurrency: -1}":                         "limits.concurrency: is less than zero",
		"limits: {functions: {'img.*': {rate: 0.5/m}}}":     "",
		"limits: {default: {rate: 100/s, max_bytes: 1KiB}}": "",
	} {
		_, err := readLimits(t, text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// Jobs that wait count until they end, and a reload takes other limits.
func TestWaitingJobsAreLimitedAndALimitIsReloaded(t *testing.T) {
	c := gateway.DefaultConfig()
	c.Listen, c.Jobserver.Listen = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0"
	c.Limits.Default.MaxJobs = 1
	g, err := gateway.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Stop(t.Context()) })
	url := "http://" + g.Addr()
	const waits = `{"function":"nobody","mode":"tracked"}`
	if a := submit(t, url, waits); a.status != http.StatusAccepted {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := submit(t, url, waits); a.status != http.StatusTooManyRequests || !strings.Contains(string(a.body), `"limit":"max_jobs"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	c.Limits.Default.MaxJobs = 2
	if err := g.Reload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if a := submit(t, url, waits); a.status != http.StatusAccepted {
		t.Errorf("after the reload: %d %s", a.status, a.body)
	}
}

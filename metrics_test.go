package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	gateway "gearman-gateway"
)

// demo runs a gateway that has all that there are numbers of: a data directory, a sink that takes everything, and one that nothing
// can be delivered to. load makes some of everything happen.
func demo(t *testing.T) (url string, load func()) {
	t.Helper()
	takes := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	t.Cleanup(takes.Close)
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }))
	t.Cleanup(refuses.Close)
	url = start(t, func(c *gateway.Config) {
		c.Data, c.Version = t.TempDir(), "1.2.3"
		c.Webhooks.Schedule = []gateway.Duration{0}
		c.Sinks = []gateway.Sink{
			{Name: "audit", URL: gateway.URL(takes.URL)},
			{Name: "broken", URL: gateway.URL(refuses.URL)},
		}
	})
	return url, func() {
		for _, job := range []string{
			`{"function":"reverse","workload":"hello","mode":"sync"}`,
			`{"function":"echo","workload":"hello","priority":"high"}`,
			`{"function":"wordcount","workload":"one two","mode":"tracked"}`,
			`{"function":"fail","workload":"no","mode":"tracked"}`,
			`{"function":"sleep","workload":"20ms","mode":"tracked"}`,
			`{"function":"nobody-can-do-this","workload":"x"}`,
			`{"nonsense":1}`,
		} {
			submit(t, url, job)
		}
		post(t, url+"/functions/reverse", "application/octet-stream", "raw")
		get(t, url+"/jobs")
		get(t, url+"/nowhere")
	}
}

// scrape returns what /metrics shows, and its text.
func scrape(t *testing.T, url string) (map[string]*dto.MetricFamily, string) {
	t.Helper()
	a := get(t, url+"/metrics")
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	return families, a.body
}

var (
	metricName  = regexp.MustCompile(`\b(?:gearman_gateway|go|process)_[a-z0-9_]+\b`)
	seriesOf    = regexp.MustCompile(`_(?:bucket|sum|count)$`)
	rowOfMetric = regexp.MustCompile("(?m)^\\| `(gearman_gateway_[a-z_]+)(?:\\{([a-z, ]+)\\})?` \\| ([a-z]+) \\|")
)

func TestDashboardAndAlertsNameMetricsThatThereAre(t *testing.T) {
	url, load := demo(t)
	load()
	var families map[string]*dto.MetricFamily
	poll(t, "all metrics", func() bool {
		families, _ = scrape(t, url)
		return families["gearman_gateway_webhook_attempts_total"] != nil && families["gearman_gateway_job_run_duration_seconds"] != nil &&
			families["gearman_gateway_jobserver_workers"] != nil
	})
	seen := 0
	err := filepath.WalkDir("deploy", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains([]string{".json", ".yml"}, filepath.Ext(file)) {
			return err
		}
		text, err := os.ReadFile(file)
		for _, name := range metricName.FindAllString(string(text), -1) {
			seen++
			if families[name] == nil && families[seriesOf.ReplaceAllString(name, "")] == nil {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 100 {
		t.Errorf("only %d names were seen", seen)
	}
	checkDocs(t, families)
}

// checkDocs holds the table of docs/metrics.md against what there is.
func checkDocs(t *testing.T, families map[string]*dto.MetricFamily) {
	t.Helper()
	text, err := os.ReadFile("docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, row := range rowOfMetric.FindAllStringSubmatch(string(text), -1) {
		name := row[1]
		told[name] = true
		f := families[name]
		if f == nil {
			t.Errorf("docs: there is no metric %s", name)
			continue
		}
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		documented := strings.Split(row[2], ", ")
		slices.Sort(documented)
		if got := strings.Join(documented, ", "); got != strings.Join(labels, ", ") {
			t.Errorf("docs: %s has the labels %q, not %q", name, labels, got)
		}
		if kind := strings.ToLower(f.GetType().String()); kind != row[3] {
			t.Errorf("docs: %s is a %s, not a %s", name, kind, row[3])
		}
	}
	for name := range families {
		if strings.HasPrefix(name, "gearman_gateway_") && !told[name] {
			t.Errorf("docs: %s is not in docs/metrics.md", name)
		}
	}
}

func TestPromtoolAcceptsMetricsAndRules(t *testing.T) {
	url, load := demo(t)
	load()
	_, text := scrape(t, url)
	promtool(t, strings.NewReader(text), "check", "metrics")
	promtool(t, nil, "check", "rules", "deploy/prometheus/alerts.yml")
	promtool(t, nil, "check", "config", "deploy/prometheus/prometheus.yml")
	promtool(t, nil, "test", "rules", "deploy/prometheus/alerts.test.yml")
}

func promtool(t *testing.T, stdin io.Reader, args ...string) {
	t.Helper()
	c := exec.Command("promtool", args...)
	c.Stdin = stdin
	// What it only advises, such as a metric without help, goes to its output and does not fail it.
	if out, err := c.CombinedOutput(); err != nil || args[0] == "check" && args[1] == "metrics" && len(out) > 0 {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPrometheusAnswersTheDashboardAndEvaluatesTheAlerts(t *testing.T) {
	url, load := demo(t)
	p := startPrometheus(t, strings.TrimPrefix(url, "http://"))
	poll(t, "the first scrape", func() bool { return p.hasData(t, "gearman_gateway_webhook_dead_letters_total") })
	queries := dashboardQueries(t)
	if len(queries) < 60 {
		t.Errorf("the dashboard has only %d queries", len(queries))
	}
	for _, q := range queries {
		poll(t, "data for "+q, func() bool {
			load()
			return p.hasData(t, q)
		})
	}
	p.checkRules(t, load)
}

// dashboardQueries are the expressions of the dashboard's panels, as Grafana fills in its variables.
func dashboardQueries(t *testing.T) (queries []string) {
	t.Helper()
	text, err := os.ReadFile("deploy/grafana/gateway.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$__rate_interval", "30s", "$instance", ".*", "$function", ".*", "$job", ".*")
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			q := fill.Replace(target.Expr)
			if strings.Contains(q, "$") {
				t.Errorf("%s: a variable that this test does not know: %s", p.Title, q)
			}
			queries = append(queries, q)
		}
	}
	return queries
}

// prometheus is one that runs, with the rules of deploy.
type prometheus struct{ url string }

// startPrometheus runs Prometheus until the test ends, scraping a gateway often.
func startPrometheus(t *testing.T, gateway string) *prometheus {
	t.Helper()
	rules, err := filepath.Abs("deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf(`
global: {scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs: [{job_name: gearman-gateway, scrape_timeout: 200ms, static_configs: [{targets: [%q]}]}]
`, rules, gateway)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	log := &journal{}
	c.Stderr = log
	if err := c.Start(); err != nil {
		t.Fatalf("%v: the tests need Debian's package prometheus; .ci/install installs it", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait() // it is killed
		close(ended)
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("prometheus wrote:\n%s", log)
		}
	})
	listening := regexp.MustCompile(`msg="Listening on" address=(\S+)`)
	p := &prometheus{}
	poll(t, "prometheus", func() bool {
		if m := listening.FindStringSubmatch(log.String()); m != nil {
			p.url = "http://" + m[1]
		}
		if p.url == "" {
			return false
		}
		resp, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return p
}

// hasData evaluates a query and reports whether any of its values is a number.
func (p *prometheus) hasData(t *testing.T, query string) bool {
	t.Helper()
	a := get(t, p.url+"/api/v1/query?query="+url.QueryEscape(query))
	var answer struct {
		Status string
		Data   struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.Unmarshal([]byte(a.body), &answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s: %v\n%s", query, err, a.body)
	}
	for _, r := range answer.Data.Result {
		if r.Value[1] != "NaN" {
			return true
		}
	}
	return false
}

// checkRules waits until Prometheus has evaluated each alert. Of what the demo does some are to fire.
func (p *prometheus) checkRules(t *testing.T, load func()) {
	t.Helper()
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Query, State, Health, LastError string }
			}
		}
	}
	states := map[string]string{}
	defer func() { t.Logf("alerts: %v", states) }()
	poll(t, "the alerts to be evaluated", func() bool {
		load()
		a := get(t, p.url+"/api/v1/rules")
		if err := json.Unmarshal([]byte(a.body), &answer); err != nil {
			t.Fatalf("%v\n%s", err, a.body)
		}
		for _, g := range answer.Data.Groups {
			for _, r := range g.Rules {
				if r.Health == "err" {
					t.Fatalf("%s: %s\n%s", r.Name, r.LastError, r.Query)
				}
				if r.Health != "ok" {
					return false
				}
				states[r.Name] = r.State
			}
		}
		// Each delivery to the broken sink is a dead letter, and some jobs have no worker.
		return states["GatewayDeadLetters"] == "firing" && states["GatewayQueueWithoutWorkers"] == "pending"
	})
	if len(states) < 15 || states["GatewayDown"] != "inactive" || states["GatewayNoJobServer"] != "inactive" {
		t.Error("not the alerts that were expected")
	}
}

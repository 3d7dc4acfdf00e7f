package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"gearman-gateway/internal/auth"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
)

// An outcome is what a batch says of one item.
type outcome struct {
	Status   int
	Location string
	Job      *struct {
		ID       string
		Function string
		Workers  int
	}
	Problem *struct {
		Type   string
		ID     string
		Errors []struct{ Pointer string }
	}
}

func (c *client) batch(body string, headers ...string) (outcomes []outcome) {
	c.t.Helper()
	res := c.do(http.MethodPost, "/jobs/batch", body, headers...)
	if res.Code != http.StatusOK {
		c.t.Fatalf("got %d: %s", res.Code, res.Body)
	}
	decode(c.t, res, &outcomes)
	return outcomes
}

const lines = "application/x-ndjson"

func TestABatchIsAnsweredInItsOrder(t *testing.T) {
	const n = 500
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf(`{"function":"f%d","workload":{"n":[%d]}}`, i, i)
	}
	for contentType, body := range map[string]string{
		"":                  " [" + strings.Join(items, " ,\n") + "]\n",
		lines:               "\n" + strings.Join(items, "\r\n \n"),
		"application/jsonl": strings.Join(items, "\n") + "\n",
	} {
		c := newClient(t, Options{})
		outcomes := c.batch(body, "Content-Type", contentType)
		if len(outcomes) != n || len(c.tasks) != n {
			t.Fatalf("%s: %d outcomes of %d tasks", contentType, len(outcomes), len(c.tasks))
		}
		for i, o := range outcomes {
			want := fmt.Sprintf("f%d", i)
			if o.Status != http.StatusAccepted || o.Location != "/jobs/"+jobID || o.Job.Function != want || o.Job.Workers != 2 || o.Problem != nil {
				t.Fatalf("%s: outcome %d: %+v", contentType, i, o)
			}
		}
		for _, task := range c.tasks {
			if want := fmt.Sprintf(`{"n":[%s]}`, task.Function[1:]); string(task.Workload) != want {
				t.Errorf("%s: %s has workload %s", contentType, task.Function, task.Workload)
			}
		}
		if got := c.api.inflight.used.Load(); got != 0 {
			t.Errorf("%d bytes were not given back", got)
		}
	}
}

func TestABadItemFailsAlone(t *testing.T) {
	big := strings.Repeat("x", 300)
	items := []struct {
		body  string
		want  kind // zero: accepted
		where string
	}{
		{`{"function":"ok"}`, kind{}, ""},
		{`{"function":"f","function":"f"}`, invalidJSON, "#/function"},
		{`{"function":"f","x":{"a":[1,{}]},"y":[],"mode":"sync"}`, validationError, "#/mode #/x #/y"},
		{`{"function":"f","mode":"sync"}`, validationError, "#/mode"},
		{`{"function":"f","idempotency_key":"k"}`, validationError, "#/idempotency_key"},
		{`7`, validationError, "#"},
		{`[{"function":"f"}]`, validationError, "#"},
		{`{"function":"f","retry":{"max":1,"x":2,"x":3}}`, invalidJSON, "#/retry/x"},
		{`{"function":"f","workload":"` + big + `"}`, payloadTooLarge, ""},
		{`{"function":"lonely","require_worker":true}`, noWorker, ""},
		{`{"function":"refused"}`, queueFull, ""},
		{`{"function":"in doubt"}`, validationError, "#/function"},
		{`{"function":"doubt"}`, gearmanTimeout, ""},
		{`{"function":"panic"}`, internalError, ""},
		{`{"function":"ok","mode":"tracked","delay":"1h"}`, kind{}, ""},
	}
	var bodies []string
	for _, item := range items {
		bodies = append(bodies, item.body)
	}
	for _, contentType := range []string{"application/json", lines} {
		c := newClient(t, Options{MaxWorkload: 100})
		c.load = func(function string) (int, int, bool) { return len(function) - len("lonely"), 0, function == "lonely" }
		c.submit = func(_ context.Context, task ledger.Task) (ledger.Record, error) {
			switch task.Function {
			case "refused":
				return ledger.Record{}, ledger.ErrFull
			case "doubt":
				return ledger.Record{ID: jobID}, gearman.ErrOutcomeUnknown
			case "panic":
				panic("oh no")
			}
			return queued(task), nil
		}
		body := strings.Join(bodies, "\n")
		if contentType != lines {
			body = "[" + strings.Join(bodies, ",") + "]"
		}
		outcomes := c.batch(body, "Content-Type", contentType)
		if len(outcomes) != len(items) {
			t.Fatalf("%d outcomes of %d items", len(outcomes), len(items))
		}
		for i, o := range outcomes {
			item := items[i]
			if item.want == (kind{}) {
				if o.Status != http.StatusAccepted || o.Job == nil || o.Problem != nil {
					t.Errorf("%s: %+v", item.body, o)
				}
				continue
			}
			if o.Status != item.want.status || o.Job != nil || o.Location != "" || o.Problem == nil || o.Problem.Type != problemType+item.want.name {
				t.Errorf("%s: %+v, want %s", item.body, o, item.want.name)
				continue
			}
			var where []string
			for _, e := range o.Problem.Errors {
				where = append(where, e.Pointer)
			}
			if got := strings.Join(where, " "); got != item.where {
				t.Errorf("%s: mistakes at %q, want %q", item.body, got, item.where)
			}
		}
		if outcomes[12].Problem.ID != jobID {
			t.Error("the job in doubt has no id")
		}
		if log := c.log.String(); !strings.Contains(log, `"error":"4 of 15 submissions, the first: `) {
			t.Errorf("log: %s", log)
		}
	}
}

func TestBatchesThatAreRefusedAsAWhole(t *testing.T) {
	const ok = `{"function":"f"}`
	for _, tt := range []struct {
		body, contentType string
		want              kind
	}{
		{``, "", invalidJSON},
		{`[`, "", invalidJSON},
		{`[` + ok, "", invalidJSON},
		{`[` + ok + `,]`, "", invalidJSON},
		{`[` + ok + ` ` + ok + `]`, "", invalidJSON},
		{`[` + ok + `,{"function":"f","workload":}]`, "", invalidJSON},
		{`[` + ok + `,{"function":"f"]`, "", invalidJSON},
		{`[` + ok + "],[", "", invalidJSON},
		{`[` + ok + `,"` + "\xff" + `"]`, "", invalidJSON},
		{`{"items":[]}`, "", validationError},
		{`[]`, "application/xml", unsupportedMediaType},
		{`[` + ok + `,` + ok + `,` + ok + `,` + ok + `]`, "", payloadTooLarge},
		{ok + "\n" + ok + "\n" + ok + "\n" + ok, lines, payloadTooLarge},
		{strings.Repeat(" ", 1001), "", payloadTooLarge},
		{strings.Repeat("\n", 1001), lines, payloadTooLarge},
	} {
		c := newClient(t, Options{MaxBatch: 3, MaxBatchBytes: 1000})
		res := c.do(http.MethodPost, "/jobs/batch", tt.body, "Content-Type", tt.contentType)
		if res.Code != tt.want.status || !strings.Contains(res.Body.String(), tt.want.name) {
			t.Errorf("%.80q: got %d %s, want %s", tt.body, res.Code, res.Body, tt.want.name)
		}
		if len(c.tasks) > 0 {
			t.Errorf("%q: %d were submitted", tt.body, len(c.tasks))
		}
	}
	c := newClient(t, Options{MaxBatch: 3})
	wantProblem(t, c.do(http.MethodPost, "/jobs/batch", `[]`, "Idempotency-Key", "k"), invalidHeader)
	for contentType, body := range map[string]string{"": " [ ] ", lines: "\n\n"} {
		if outcomes := c.batch(body, "Content-Type", contentType); outcomes == nil || len(outcomes) > 0 {
			t.Errorf("nothing: %v", outcomes)
		}
	}
	outcomes := c.batch("nonsense\n"+ok+"\n"+ok+"x\n", "Content-Type", lines)
	if outcomes[0].Status != 400 || outcomes[1].Status != 202 || outcomes[2].Status != 400 {
		t.Errorf("malformed lines: %+v", outcomes)
	}
}

func TestABatchIsSubmittedAFewAtATime(t *testing.T) {
	c := newClient(t, Options{})
	var mu sync.Mutex
	inside, most := 0, 0
	full, leave := make(chan struct{}), make(chan struct{})
	c.submit = func(_ context.Context, task ledger.Task) (ledger.Record, error) {
		mu.Lock()
		inside++
		most = max(most, inside)
		if inside == batchWidth {
			close(full)
		}
		mu.Unlock()
		<-leave
		return queued(task), nil
	}
	items := strings.Repeat(`{"function":"f"},`, 200)
	done := make(chan []outcome, 1)
	go func() { done <- c.batch("[" + strings.TrimSuffix(items, ",") + "]") }()
	<-full // what a batch may submit at a time, it does
	c.submit = nil
	close(leave)
	if outcomes := <-done; len(outcomes) != 200 || most != batchWidth {
		t.Errorf("%d outcomes, %d at a time", len(outcomes), most)
	}
}

func TestAClientThatLeavesABatch(t *testing.T) {
	c := newClient(t, Options{})
	ctx, leave := context.WithCancel(t.Context())
	c.submit = func(ctx context.Context, _ ledger.Task) (ledger.Record, error) {
		leave()
		<-ctx.Done()
		return ledger.Record{}, ctx.Err()
	}
	if res := c.send(ctx, http.MethodPost, "/jobs/batch", `[{"function":"f"}]`); res.Body.Len() > 0 {
		t.Errorf("answered %s", res.Body)
	}
	if !strings.Contains(c.log.String(), `"status":499`) {
		t.Errorf("log: %s", &c.log)
	}
}

func FuzzBatch(f *testing.F) {
	f.Add([]byte(`[{"function":"f"},{"function":"g","retry":{"max":1}},7]`), false)
	f.Add([]byte("{\"function\":\"f\"}\n\n[]\n{\"function\":\"f\",\"function\":1}\n"), true)
	f.Add([]byte(`[{"function":"f","callback":{"url":"https://shop.example/","events":["job.*",7]}},{"callback":[{}]}]`), false)
	for _, text := range validTexts {
		f.Add([]byte(`[{"workload":`+text+`,"function":"f"}]`), false)
	}
	a := New(Options{Jobs: &quiet{}, Servers: &fake{}, Webhooks: &fakeHooks{}})
	f.Fuzz(func(t *testing.T, body []byte, inLines bool) {
		items, err := a.decodeArray(body)
		if inLines {
			items, err = a.decodeLines(body)
		} else if err == nil && !json.Valid(body) {
			t.Errorf("accepted %q", body)
		}
		if err != nil {
			return
		}
		a.submitAll(t.Context(), auth.Anyone, items)
		var outcomes []outcome
		if err := json.Unmarshal(a.appendOutcomes(nil, items), &outcomes); err != nil || len(outcomes) != len(items) {
			t.Errorf("%q: %d outcomes of %d items: %v", body, len(outcomes), len(items), err)
		}
	})
}

func BenchmarkBatch(b *testing.B) {
	const n = 1000
	a := New(Options{Jobs: &quiet{}, Servers: &fake{}})
	item := `{"function":"echo","workload":{"id":7,"text":"` + strings.Repeat("x", 100) + `"}}`
	body := "[" + strings.Repeat(item+",", n-1) + item + "]"
	b.ReportAllocs()
	for b.Loop() {
		res := httptest.NewRecorder()
		a.ServeHTTP(res, httptest.NewRequest(http.MethodPost, "/jobs/batch", strings.NewReader(body)))
		if res.Code != http.StatusOK {
			b.Fatal(res.Code)
		}
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "jobs/s")
}

package handler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/handler"
	"gearman-gateway/internal/workerpool"
)

func newPersistent(t testing.TB, o handler.PersistentOptions) *handler.Persistent {
	t.Helper()
	p, err := handler.NewPersistent(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// persistent returns the options to keep processes of a shell script, for which send KIND TEXT and job are defined: job reads
// one, its fields into $fields and its workload into $workload.
func persistent(script string) handler.PersistentOptions {
	return handler.PersistentOptions{Command: handler.Command{Grace: testGrace, Argv: []string{"sh", "-c", `
		send() { printf '%s %d\n%s' "$1" ${#2} "$2"; }
		job() { echo ready; read -r _ length fields && workload=$(head -c "$length"); }
		` + script}}}
}

// examples are the programs of docs/persistent.md.
func examples(t testing.TB) map[string][]string {
	t.Helper()
	const dir = "../../examples/handlers/persistent."
	if _, err := exec.LookPath("php"); err != nil {
		t.Fatalf("the tests need php-cli: %v", err)
	}
	var programs [3]string
	for i, ext := range []string{"php", "py", "sh"} {
		path, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		programs[i] = path + "/" + dir + ext
	}
	return map[string][]string{"php": {"php", programs[0]}, "python": {needPython(t), programs[1]}, "shell": {"sh", programs[2]}}
}

func TestTheExamples(t *testing.T) {
	for language, argv := range examples(t) {
		t.Run(language, func(t *testing.T) {
			watchForLeaks(t)
			p, err := handler.NewPersistent(handler.PersistentOptions{Command: handler.Command{Argv: argv}})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			for _, workload := range []string{"hello", "a\x00b\n\n", strings.Repeat("more than a pipe takes\n", 50_000), "x"} {
				j, out := newJob(workload)
				got, err := within(t, deadline, t.Context(), p, j)
				if err != nil || string(got) != strings.ToUpper(workload) || !slices.Equal(out.progress, []string{"1/2"}) || len(out.warnings) > 0 {
					t.Errorf("%.20q: %.40q, %v, %q, %q", workload, got, err, out.progress, out.warnings)
				}
			}
			j, _ := newJob("")
			if got, err := p.Run(t.Context(), j); got != nil || err == nil || !strings.HasSuffix(err.Error(), "needs some text") {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestTheExamplesAreThoseOfThePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/persistent.md")
	if err != nil {
		t.Fatal(err)
	}
	for language, argv := range examples(t) {
		program, err := os.ReadFile(argv[1])
		if err != nil || !strings.Contains(string(page), "\n"+string(program)+"```\n") {
			t.Errorf("%s: not the program of the page, %v", language, err)
		}
	}
}

func TestAPersistentProcessGetsTheFieldsOfItsJob(t *testing.T) {
	p := newPersistent(t, persistent(`while job; do send result "$fields|$workload|$PWD|$SECRET|$A"; done`+"\n"))
	j, _ := newJob("w")
	j.Unique, j.Attempt, j.Deadline, j.Traceparent = "u\n\"", 2, time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC), "00-1-2-01"
	got, err := p.Run(t.Context(), j)
	want := `{"id":"` + j.ID + `","handle":"` + j.Handle + `","unique":"u\n\"","function":"f","attempt":2,` +
		`"deadline":"2027-01-02T03:04:05Z","traceparent":"00-1-2-01"}|w|`
	if err != nil || !strings.HasPrefix(string(got), want) {
		t.Fatalf("%q, %v, want %q", got, err, want)
	}
	dir := strings.Split(string(got), "|")[2]
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
	p.Close()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

func TestFramesSayHowAJobGoes(t *testing.T) {
	watchForLeaks(t)
	p, err := handler.NewPersistent(persistent(`while job; do eval "$workload"; done`))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, test := range []struct {
		script, result, text string
		verdict              int
		after                time.Duration
		out                  *output
	}{
		{script: "send result ok", result: "ok", out: &output{}},
		{script: `send result ""`, out: &output{}},
		{script: `printf 'result     2\r\nok'`, result: "ok", out: &output{}},
		{
			script: `send data one; echo progress 1 2; send warning careful; send data two; send result three`, result: "three",
			out: &output{data: []string{"one", "two"}, progress: []string{"1/2"}, warnings: []string{"careful"}},
		},
		{script: `echo oh >&2; echo no >&2; send result ok`, result: "ok", out: &output{warnings: []string{"oh\nno"}}},
		{script: `send failed ""`, text: workerpool.ErrFailed.Error(), out: &output{}},
		{script: `send failed "no luck"`, text: workerpool.ErrFailed.Error() + ": no luck", out: &output{}},
		{script: `send exception "no such image"`, text: "no such image", out: &output{}},
		{script: `send exception ""`, text: "the handler reported an exception", out: &output{}},
		{script: `send retry busy`, text: "busy", verdict: retries, out: &output{}},
		{script: `echo retry 0 7`, text: "the handler asks for a retry", verdict: retries, after: 7 * time.Second, out: &output{}},
		{script: `send never bad`, text: "bad", verdict: never, out: &output{}},
	} {
		j, out := newJob(test.script)
		got, err := within(t, deadline, t.Context(), p, j)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if string(got) != test.result || text != test.text {
			t.Errorf("%s: %q, %v", test.script, got, err)
		}
		if v, after := verdictOf(err); v != test.verdict || after != test.after {
			t.Errorf("%s: %d after %v", test.script, v, after)
		}
		if errors.Is(err, workerpool.ErrFailed) != strings.Contains(test.script, "failed") {
			t.Errorf("%s: %v", test.script, err)
		}
		if !slices.Equal(out.data, test.out.data) || !slices.Equal(out.progress, test.out.progress) || !slices.Equal(out.warnings, test.out.warnings) {
			t.Errorf("%s: sent %+v, want %+v", test.script, out, test.out)
		}
	}
}

// pids runs jobs of a process that answers with its id.
func pids(t *testing.T, p *handler.Persistent, n int) (all []string) {
	t.Helper()
	for range n {
		j, _ := newJob("send result $$")
		got, err := p.Run(t.Context(), j)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(got))
	}
	return all
}

const evalJobs = `while job; do eval "$workload"; done`

func TestAProcessIsKeptAndReplacedAtItsLimits(t *testing.T) {
	watchForLeaks(t)
	t.Run("none", func(t *testing.T) {
		p := newPersistent(t, persistent(evalJobs))
		if got := slices.Compact(pids(t, p, 50)); len(got) != 1 {
			t.Errorf("%d processes", len(got))
		}
	})
	t.Run("jobs", func(t *testing.T) {
		o := persistent(evalJobs)
		o.MaxJobs = 10
		if got := slices.Compact(pids(t, newPersistent(t, o), 30)); len(got) != 3 {
			t.Errorf("%q", got)
		}
	})
	t.Run("memory", func(t *testing.T) {
		o := persistent(evalJobs)
		o.MaxMemory = 1 // any program has more
		if got := slices.Compact(pids(t, newPersistent(t, o), 3)); len(got) != 3 {
			t.Errorf("%q", got)
		}
		o.MaxMemory = 1 << 40
		if got := slices.Compact(pids(t, newPersistent(t, o), 3)); len(got) != 1 {
			t.Errorf("%q", got)
		}
	})
	for name, limit := range map[string]func(*handler.PersistentOptions){
		"age":      func(o *handler.PersistentOptions) { o.TTL = 50 * time.Millisecond },
		"idleness": func(o *handler.PersistentOptions) { o.IdleTTL = 50 * time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			o := persistent(evalJobs)
			limit(&o)
			p := newPersistent(t, o)
			first := pids(t, p, 1)[0]
			id, _ := strconv.Atoi(first)
			eventually(t, func() string { return "it does not end" }, func() bool {
				_, err := os.Stat("/proc/" + strconv.Itoa(id))
				return err != nil
			})
			if second := pids(t, p, 1)[0]; second == first {
				t.Error("the same process")
			}
		})
	}
}

func TestAProcessThatIsToGoMayFinish(t *testing.T) {
	path := t.TempDir() + "/finished"
	o := persistent(`trap '' TERM; ` + evalJobs + `; echo >` + path)
	o.Grace = deadline
	p := newPersistent(t, o)
	pids(t, p, 1)
	p.Close()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	j, _ := newJob("")
	if _, err := p.Run(t.Context(), j); err == nil {
		t.Error("it ran a job after Close")
	} else if v, _ := verdictOf(err); v != retries {
		t.Error(err)
	}
	p.Close()
}

func TestJobsWaitForAProcessAsLongAsTheyMay(t *testing.T) {
	watchForLeaks(t)
	o := persistent(evalJobs)
	o.Processes = 2
	p, err := handler.NewPersistent(o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	fifo := t.TempDir() + "/fifo"
	if err := exec.Command("mkfifo", fifo).Run(); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for range 2 {
		j, out := newJob("echo progress 0 1; read x <" + fifo + "; send result ok")
		running.Go(func() {
			if got, err := p.Run(context.Background(), j); string(got) != "ok" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
		eventually(t, func() string { return "no job runs" }, func() bool {
			out.mu.Lock()
			defer out.mu.Unlock()
			return len(out.progress) == 1
		})
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), testTimeout, workerpool.ErrDeadline)
	defer cancel()
	j, _ := newJob("send result ok")
	if _, err := within(t, testMost, ctx, p, j); !errors.Is(err, workerpool.ErrDeadline) {
		t.Error(err)
	}
	w, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	waiting := make(chan error, 1)
	go func() {
		got, err := p.Run(context.Background(), j)
		waiting <- errors.Join(err, errIf(string(got) != "ok", got))
	}()
	if _, err := io.WriteString(w, "a\nb\n"); err != nil {
		t.Fatal(err)
	}
	running.Wait()
	if err := <-waiting; err != nil {
		t.Error(err)
	}
}

func errIf(wrong bool, got []byte) error {
	if wrong {
		return fmt.Errorf("got %q", got)
	}
	return nil
}

func TestManyJobsInManyProcesses(t *testing.T) {
	watchForLeaks(t)
	o := persistent(evalJobs)
	o.Processes, o.MaxJobs = 4, 7
	p, err := handler.NewPersistent(o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var wg sync.WaitGroup
	for client := range 8 {
		wg.Go(func() {
			for i := range 20 {
				want := fmt.Sprint(client, " ", i)
				j, _ := newJob("send result '" + want + "'")
				got, err := p.Run(context.Background(), j)
				if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
					t.Error(diff, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestPersistentOptionsThatMakeNoSense(t *testing.T) {
	for _, o := range []handler.PersistentOptions{
		{},
		{Command: handler.Command{Argv: []string{"no-such-command"}}},
		{Command: handler.Command{Argv: []string{"true"}}, MaxJobs: -1},
		{Command: handler.Command{Argv: []string{"true"}}, Processes: -1},
	} {
		if _, err := handler.NewPersistent(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

// BenchmarkPersistent compares processes that are kept with a process for each job.
func BenchmarkPersistent(b *testing.B) {
	once := map[string][]string{
		"php":    {"php", "-r", "echo strtoupper(stream_get_contents(STDIN));"},
		"python": {needPython(b), "-c", "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read().upper())"},
		"shell":  {"sh", "-c", "tr a-z A-Z"},
	}
	bench := func(name string, h workerpool.Handler) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				j, _ := newJob("hello")
				if got, err := h.Run(b.Context(), j); err != nil || string(got) != "HELLO" {
					b.Fatalf("%q, %v", got, err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
	for language, argv := range examples(b) {
		bench(language+"/kept", newPersistent(b, handler.PersistentOptions{Command: handler.Command{Argv: argv}}))
		bench(language+"/one for each job", newExec(b, handler.ExecOptions{Command: handler.Command{Argv: once[language]}}))
	}
}

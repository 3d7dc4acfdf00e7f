package handler_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"gearman-gateway/internal/handler"
	"gearman-gateway/internal/workerpool"
)

// marked makes all processes of a handler findable.
func marked(o handler.PersistentOptions, t *testing.T) (_ handler.PersistentOptions, mark string) {
	mark = fmt.Sprintf("MARK=%d-%s", os.Getpid(), t.Name())
	o.Env = append(o.Env, mark)
	return o, mark
}

func TestAProcessThatMisbehavesFailsItsJobAndIsReplaced(t *testing.T) {
	for name, test := range map[string]struct {
		script  string
		check   func(err error) bool
		timeout bool
	}{
		"exits":                     {script: "exit 3", check: exits(3)},
		"exits well":                {script: "exit 0", check: exits(0)},
		"asks for a retry":          {script: "exit 75", check: func(err error) bool { v, _ := verdictOf(err); return v == retries && exits(75)(err) }},
		"dies":                      {script: "echo oh >&2; kill -SEGV $$", check: func(err error) bool { return err.Error() == "killed by signal 11 (segmentation fault): oh" }},
		"dies and leaves a child":   {script: "sleep 1000 & kill -KILL $$", check: exits(-1)},
		"dies in the middle":        {script: `printf 'result 10\nhalf'; exit 1`, check: exits(1)},
		"writes garbage":            {script: "echo 'PHP Warning: x'", check: says("PHP Warning: x")},
		"writes an unknown frame":   {script: "send answer ok", check: says(`"answer 2"`)},
		"writes half a line":        {script: "printf garbage; exit 0", check: says(`"garbage"`)},
		"writes no length":          {script: "echo result", check: says(`"result"`)},
		"writes a negative length":  {script: "echo result -1", check: says(`"result -1"`)},
		"writes without end":        {script: "exec yes | tr -d '\\n'", check: says("yyyyyy")},
		"warns too much":            {script: "echo warning 100000", check: says("warning 100000")},
		"a result that is too long": {script: "echo result 1000000000000", check: is(handler.ErrTooLarge)},
		"data without end":          {script: "while :; do send data xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", check: is(handler.ErrTooLarge)},
		"closes standard output":    {script: "exec >&-; sleep 1000", check: says("closed its standard output")},
		"hangs":                     {script: "sleep 1000", check: is(workerpool.ErrDeadline), timeout: true},
		"ignores SIGTERM":           {script: "trap '' TERM; sleep 1000; sleep 1000", check: is(workerpool.ErrDeadline), timeout: true},
		"stops":                     {script: "kill -STOP $$", check: is(workerpool.ErrDeadline), timeout: true},
		"hangs in the middle":       {script: `printf 'result 10\nhalf'; sleep 1000`, check: is(workerpool.ErrDeadline), timeout: true},
		"a child holds the pipes":   {script: `setsid sleep 5 & sleep 1000`, check: is(workerpool.ErrDeadline), timeout: true},
	} {
		t.Run(name, func(t *testing.T) {
			watchForLeaks(t)
			o, mark := marked(persistent(evalJobs), t)
			o.MaxResult = 1000
			p, err := handler.NewPersistent(o)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			first := pids(t, p, 1)
			ctx := t.Context()
			if test.timeout {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, testTimeout, workerpool.ErrDeadline)
				defer cancel()
			}
			j, _ := newJob(test.script)
			got, err := within(t, testMost, ctx, p, j)
			if got != nil || err == nil || !test.check(err) {
				t.Errorf("%q, %v", got, err)
			}
			if second := pids(t, p, 1); second[0] == first[0] {
				t.Error("the same process runs the next job")
			}
			p.Close()
			if !strings.Contains(test.script, "setsid") {
				eventually(t, func() string { return fmt.Sprint("left: ", processesOf(mark)) }, func() bool { return len(processesOf(mark)) == 0 })
			}
		})
	}
}

func exits(code int) func(error) bool {
	return func(err error) bool {
		failure, ok := errors.AsType[*handler.ProcessError](err)
		return ok && failure.Code == code
	}
}

func says(text string) func(error) bool {
	return func(err error) bool {
		return strings.Contains(err.Error(), text) && !errors.As(err, new(*handler.ProcessError)) && len(err.Error()) < 1000
	}
}

func is(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }

// Whoever runs the next job must not get what a process has to say about the one before.
func TestAnAnswerTooManyIsNobodys(t *testing.T) {
	watchForLeaks(t)
	p, err := handler.NewPersistent(persistent(evalJobs))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 20 {
		j, _ := newJob("send result one; send result two")
		if got, err := p.Run(t.Context(), j); string(got) != "one" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
}

func TestAWorkloadThatIsNotReadIsNobodyElses(t *testing.T) {
	watchForLeaks(t)
	p, err := handler.NewPersistent(persistent(`while echo ready; read -r _ length fields; do send result "$length"; done`))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	j, _ := newJob(strings.Repeat("job 3 {}\n", 1<<17))
	if got, err := within(t, testMost, t.Context(), p, j); string(got) != strconv.Itoa(9<<17) || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	j, _ = newJob("")
	if got, err := p.Run(t.Context(), j); string(got) != "0" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestACommandThatDiesAtOnceIsNotStartedAgainAndAgain(t *testing.T) {
	watchForLeaks(t)
	starts := t.TempDir() + "/starts"
	o := persistent(`echo >>` + starts + `; echo no database >&2; exit 4`)
	o.Processes = 2
	p, err := handler.NewPersistent(o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	asked := 0
	eventually(t, func() string { return "no job is refused" }, func() bool {
		j, _ := newJob("")
		_, err := within(t, testMost, t.Context(), p, j)
		asked++
		v, after := verdictOf(err)
		return v == retries && after > 0 && exits(4)(err) && strings.HasSuffix(err.Error(), "no database")
	})
	p.Close()
	if got, _ := os.ReadFile(starts); len(got) > 2*asked+20 {
		t.Errorf("%d starts for %d jobs", len(got), asked)
	}
}

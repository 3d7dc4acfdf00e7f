package jobserver_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"gearman-gateway/internal/gearman/wire"
	"gearman-gateway/internal/jobserver"
)

func TestJobsInTheBackgroundOutliveTheServer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "queue.jsonl")
	s := start(t, jobserver.Options{Queue: file})
	c, w := connect(t, s), worker(t, s, "ran")
	later := itoa(int(time.Now().Add(time.Hour).Unix()))
	handles := map[string]string{
		"normal":    c.submit(wire.SubmitJobBG, "f", "u1", "normal\n\x00\xff"),
		"low":       c.submit(wire.SubmitJobLowBG, "f", "", ""),
		"high":      c.submit(wire.SubmitJobHighBG, "f", "-", "high"),
		"scheduled": c.submit(wire.SubmitJobEpoch, "f", "", later, ""),
		"ran":       c.submit(wire.SubmitJobBG, "ran", "", "again"),
	}
	w.grab(handles["ran"])
	if jobserver.Kept(file) {
		t.Error("jobs are kept before the end")
	}
	last := c.submit(wire.SubmitJob, "f", "", "whose client is gone")
	s.Stop()
	if !jobserver.Kept(file) {
		t.Error("no jobs are kept")
	}

	s = start(t, jobserver.Options{Queue: file})
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file of a server that runs: %v", err)
	}
	c, w = connect(t, s), worker(t, s, "f", "ran")
	c.wantStatus(last, "0 0 0 0")
	c.wantStatus(handles["scheduled"], "1 0 0 0")
	if got := c.submit(wire.SubmitJobBG, "f", "u1", ""); got != handles["normal"] {
		t.Errorf("the same unique is %s, want %s", got, handles["normal"])
	}
	if got := c.submit(wire.SubmitJobBG, "f", "-", "high"); got != handles["high"] {
		t.Errorf("the same workload is %s, want %s", got, handles["high"])
	}
	if next := c.submit(wire.SubmitJobLowBG, "f", "", ""); next == last || next <= handles["ran"] {
		t.Errorf("a new job is %s, and the last one was %s", next, last)
	}
	got := []string{w.grab(handles["high"]), w.grab(handles["normal"]), w.grab(handles["ran"]), w.grab(handles["low"])}
	if diff := cmp.Diff([]string{"high", "normal\n\x00\xff", "again", ""}, got); diff != "" {
		t.Errorf("workloads (-want +got):\n%s", diff)
	}
}

// A job's handle is its own for ever, also where nothing was queued.
func TestHandlesGoOn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "queue.jsonl")
	var handles []string
	for range 3 {
		s := start(t, jobserver.Options{Queue: file})
		c, w := connect(t, s), worker(t, s, "f")
		for range 100 {
			h := c.submit(wire.SubmitJobBG, "f", "u", "")
			w.run(h)
			handles = append(handles, h)
		}
		s.Stop()
		if jobserver.Kept(file) {
			t.Error("jobs are kept, and all have ended")
		}
	}
	seen := map[string]bool{}
	for _, h := range handles {
		if seen[h] {
			t.Fatalf("%s was given twice", h)
		}
		seen[h] = true
	}
}

// Those who have a handle may ask by it, whatever the host is called by then: a container gets a new name with each update.
func TestHandlesOutliveTheHostsName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "queue.jsonl")
	lines := `{"last":9,"prefix":"SDplbHNld2hlcmU6"}` + "\n" + `{"number":7,"function":"Zg==","priority":1}` + "\n"
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s := start(t, jobserver.Options{Queue: file})
		connect(t, s).wantStatus("H:elsewhere:7", "1 0 0 0")
		s.Stop()
	}
	s := start(t, jobserver.Options{Queue: file})
	worker(t, s, "f").grab("H:elsewhere:7")
	if got := connect(t, s).submit(wire.SubmitJobBG, "f", "", ""); got != "H:elsewhere:10" {
		t.Errorf("the next job is %s", got)
	}
}

// The time of a job that comes while the server is stopped has come when it starts.
func TestATimeThatPassesBetweenLives(t *testing.T) {
	file := filepath.Join(t.TempDir(), "queue.jsonl")
	lines := `{"last":9}` + "\n" + `{"number":7,"function":"Zg==","priority":1,"due":"2020-01-01T00:00:00Z"}` + "\n"
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, jobserver.Options{Queue: file})
	w := worker(t, s, "f")
	w.send(wire.GrabJob)
	if got := w.read(); !strings.HasPrefix(got, "JOB_ASSIGN") || !strings.Contains(got, `:7"`) {
		t.Errorf("got %s", got)
	}
}

func TestAQueueThatCannotBeRead(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":     "x",
		"empty":       "",
		"cut":         `{"last":3}` + "\n" + `{"number":1,"func`,
		"order":       `{"last":3}{"number":2,"function":"Zg=="}{"number":2,"function":"Zg=="}`,
		"a number":    `{"last":3}{"number":4,"function":"Zg=="}`,
		"no function": `{"last":3}{"number":1}`,
		"a priority":  `{"last":3}{"number":1,"function":"Zg==","priority":3}`,
	} {
		file := filepath.Join(t.TempDir(), "queue.jsonl")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := jobserver.New(jobserver.Options{Listen: "127.0.0.1:0", Queue: file})
		err := s.Start()
		s.Stop()
		if !errors.Is(err, jobserver.ErrQueue) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.ReadFile(file); string(after) != text {
			t.Errorf("%s: the file was %q, and is %q: %v", name, text, after, err)
		}
	}
}

// A start that fails for another reason leaves what was kept where it is.
func TestAQueueOutlivesAStartThatFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "queue.jsonl")
	s := start(t, jobserver.Options{Queue: file})
	handle := connect(t, s).submit(wire.SubmitJobBG, "f", "", "")
	s.Stop()
	other := start(t, jobserver.Options{})
	failed := jobserver.New(jobserver.Options{Listen: other.Addr(), Queue: file})
	if err := failed.Start(); err == nil {
		t.Fatal("two servers have one port")
	}
	failed.Stop()
	connect(t, start(t, jobserver.Options{Queue: file})).wantStatus(handle, "1 0 0 0")
}

func TestAQueueThatCannotBeKept(t *testing.T) {
	var book logBook
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := start(t, jobserver.Options{Queue: filepath.Join(dir, "queue.jsonl"), Log: zerolog.New(&book)})
	connect(t, s).submit(wire.SubmitJobBG, "f", "", "")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if !book.has(`"level":"error"`) || !book.has("are lost") || !book.has(`"jobs":1,`) || !book.has("no such file") {
		t.Errorf("the log has %s", book.b.String())
	}
}

package jobserver_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/gearman/wire"
	"gearman-gateway/internal/jobserver"
)

// Other people's clients and workers: the gearman command, PHP's extension (both on libgearman, in C) and Perl's own
// implementation. Every client runs every way a job can end on every worker.

// program returns a command, to be killed when ctx ends. A missing program fails the test.
func program(ctx context.Context, t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: run `make test`, which installs it", err)
	}
	return exec.CommandContext(ctx, path, args...)
}

// require checks that an interpreter has its Gearman library.
func require(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := program(t.Context(), t, name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s has no Gearman library: %v: %s: run `make test`, which installs it", name, err, out)
	}
}

// startWorker runs a worker program until the test ends, and waits until it can do the function.
func startWorker(t *testing.T, s *jobserver.Server, function, name string, args ...string) {
	t.Helper()
	ctx, kill := context.WithCancel(context.Background())
	cmd := program(ctx, t, name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s says: %q", name, out.String())
		}
	})
	eventually(t, name+" has registered", func() bool { return strings.HasSuffix(functionStatus(t, s, function), " 1") })
}

// run runs a client program to its end and returns what it prints and its exit code.
func run(t *testing.T, stdin, name string, args ...string) (stdout string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := program(ctx, t, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		t.Fatalf("%s %v does not end: it printed %q and %q", name, args, out, stderr.String())
	}
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func port(t *testing.T, s *jobserver.Server) string {
	t.Helper()
	_, p, err := net.SplitHostPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWorkersAndClientsOfOtherLanguages(t *testing.T) {
	require(t, "php", "-r", "exit(extension_loaded('gearman') ? 0 : 1);")
	require(t, "perl", "-MGearman::Client", "-MGearman::Worker", "-e", "1")
	require(t, "gearman", "-H")
	for _, worker := range [][]string{{"php", "testdata/worker.php"}, {"perl", "testdata/worker.pl"}} {
		t.Run(worker[0]+" worker", func(t *testing.T) {
			s := start(t, jobserver.Options{})
			startWorker(t, s, "throw", worker[0], worker[1], port(t, s))
			t.Run("php client", func(t *testing.T) { runScript(t, s, "php", "testdata/client.php") })
			t.Run("perl client", func(t *testing.T) { runScript(t, s, "perl", "testdata/client.pl") })
			t.Run("gearman client", func(t *testing.T) { runCommand(t, s) })
			eventually(t, "all jobs done", func() bool {
				return admin(t, s, "show jobs\n") == ".\n"
			})
		})
	}
}

// runScript runs a client script; all of them print the same.
func runScript(t *testing.T, s *jobserver.Server, name, script string) {
	out, code := run(t, "", name, script, port(t, s))
	const want = `reverse: complete olleh
progress: status 1/2, data half , warning careful, status 2/2, complete whole
fail: failed
throw: exception boom
background: ended
`
	if diff := cmp.Diff(want, out); diff != "" || code != 0 {
		t.Errorf("exit code %d, output (-want +got):\n%s", code, diff)
	}
}

func runCommand(t *testing.T, s *jobserver.Server) {
	for _, test := range []struct {
		function, want string
		code           int
	}{
		{"reverse", "olleh", 0},
		{"progress", "half whole50% Complete\n100% Complete\n", 0},
		{"fail", "", 1},
		{"throw", "", 1},
	} {
		out, code := run(t, "hello", "gearman", "-h", "127.0.0.1", "-p", port(t, s), "-f", test.function)
		if out != test.want || code != test.code {
			t.Errorf("%s: got %q and exit code %d, want %q and %d", test.function, out, code, test.want, test.code)
		}
	}
}

func TestGearmanCommandAsWorker(t *testing.T) {
	s := start(t, jobserver.Options{})
	startWorker(t, s, "rev", "gearman", "-w", "-h", "127.0.0.1", "-p", port(t, s), "-f", "rev", "--", "rev")
	if out, code := run(t, "hello\n", "gearman", "-h", "127.0.0.1", "-p", port(t, s), "-f", "rev"); out != "olleh\n" || code != 0 {
		t.Errorf("got %q and exit code %d", out, code)
	}
	if _, code := run(t, "hello\n", "gearman", "-b", "-h", "127.0.0.1", "-p", port(t, s), "-f", "rev"); code != 0 {
		t.Errorf("in the background: exit code %d", code)
	}
	c := connect(t, s)
	h := c.submit(wire.SubmitJobHigh, "rev", "u", "abc\n")
	c.want(wire.WorkComplete, h, "cba\n")
	eventually(t, "the background job done", func() bool { return functionStatus(t, s, "rev") == "0 0 1" })
}

func TestGearadmin(t *testing.T) {
	s := start(t, jobserver.Options{Version: "1.2.3"})
	connect(t, s).submit(wire.SubmitJobBG, "f", "u", "")
	for _, test := range []struct{ flag, want string }{
		{"--server-version", "1.2.3\n"},
		{"--status", "f\t1\t0\t0\n.\n"},
		{"--priority-status", "f\t0\t1\t0\t0\n.\n"},
		{"--show-unique-jobs", "u\n.\n"},
		{"--create-function=g", "OK\n"},
		{"--drop-function=g", "OK\n"},
		{"--getpid", itoa(os.Getpid()) + "\n"},
	} {
		out, code := run(t, "", "gearadmin", "-h", "127.0.0.1", "-p", port(t, s), test.flag)
		if out != test.want || code != 0 {
			t.Errorf("%s: got %q and exit code %d, want %q", test.flag, out, code, test.want)
		}
	}
}

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test binary is the gateway itself when it is called with this in its environment.
const beMain = "GATEWAY_TEST_BE_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(beMain) != "" {
		main()
		return
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// built is the program as users have it, without the race detector, which takes several times the memory and the time.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// release returns a command that runs the program as users have it.
func release(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "gateway-test-"); built.err != nil {
			return
		}
		build := exec.Command("go", "build", "-o", built.dir, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return exec.Command(filepath.Join(built.dir, "gateway"), args...)
}

func command(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append([]string{beMain + "=1", "PATH=" + os.Getenv("PATH")}, env...)
	return cmd
}

// execute runs the program to its end.
func execute(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(env, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

func writeFile(t *testing.T, content string) (name string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestABadValueNamesItsKeyAndItsSource(t *testing.T) {
	file := writeFile(t, "sync_timeout: 30s\nmax_workload: much\n")
	unknown := writeFile(t, "listen: 127.0.0.1:0\nsinks:\n  - {url: 'http://x/', colour: blue}\n")
	twice := writeFile(t, "sync_timeout: 1s\n---\nsync_timeout: 2s\n")
	for name, test := range map[string]struct {
		env, args []string
		want      []string
	}{
		"flag":               {nil, []string{"--sync-timeout", "3parsecs"}, []string{"--sync-timeout", "3parsecs"}},
		"environment":        {[]string{"GATEWAY_LISTEN=nowhere"}, nil, []string{"GATEWAY_LISTEN", "nowhere"}},
		"file":               {nil, []string{"--config", file}, []string{file, "line 2", "max_workload", "much"}},
		"file, unknown key":  {nil, []string{"--config", unknown}, []string{unknown, "line 3", "sinks[0].colour"}},
		"no such file":       {[]string{"GATEWAY_CONFIG=/nonexistent.yaml"}, nil, []string{"/nonexistent.yaml"}},
		"unknown flag":       {nil, []string{"--colour=blue"}, []string{"--colour"}},
		"open to the world":  {nil, []string{"--listen", "0.0.0.0:0"}, []string{"listen", "--allow-unauthenticated"}},
		"secret without URL": {nil, []string{"--sink-secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, []string{"--sink-url"}},
		"open job server":    {nil, []string{"--jobserver-listen", "0.0.0.0:0"}, []string{"jobserver.listen", "--allow-unauthenticated"}},
		"given twice":        {nil, []string{"--gearman=a:1,b:1,a:1"}, []string{"gearman", "a:1"}},
		"empty environment":  {[]string{"GATEWAY_GEARMAN="}, nil, []string{"GATEWAY_GEARMAN"}},
		"two documents":      {nil, []string{"--config", twice}, []string{twice, "second document"}},
		"no handler":         {nil, []string{"--config", writeFile(t, "handlers: [{function: nosuch}]")}, []string{"handlers[0]", "nosuch"}},
		"a sink's name":      {nil, []string{"--config", writeFile(t, "sinks: [{name: callbacks, url: 'http://x/'}]")}, []string{"sinks[0].name", "callbacks"}},
		"kind of a value":    {nil, []string{"--config", writeFile(t, "handlers:\n  - {function: a, exec: [cat], concurrency: two}\n")}, []string{"line 2", "handlers[0].concurrency", "two"}},
		"less than zero":     {nil, []string{"--config", writeFile(t, "handlers: [{function: a, exec: [cat], idle_ttl: -1s, persistent: true}]")}, []string{"handlers[0]: idle_ttl"}},
		"no certificate":     {nil, []string{"--tls-cert=" + file, "--tls-key=" + unknown}, []string{"tls", file, unknown}},
		"no control group":   {nil, []string{"--config", writeFile(t, "handlers: [{function: a, exec: [cat], limits: {processes: 3}}]")}, []string{"handlers[0]: limits.cgroup", "processes"}},
		"level":              {nil, []string{"--log-level=loud"}, []string{"--log-level", "loud", "warn"}},
		"TLS to nobody":      {nil, []string{"--gearman-tls"}, []string{"gearman_tls", "embedded"}},
		"two mistakes":       {nil, []string{"--concurrency=0", "--max-workload=2GiB"}, []string{"workers.concurrency", "max_workload"}},
	} {
		_, stderr, code := execute(t, test.env, test.args...)
		if code != 2 {
			t.Errorf("%s: exit code %d, want 2; %s", name, code, stderr)
		}
		for _, w := range test.want {
			if !strings.Contains(stderr, w) {
				t.Errorf("%s: the error does not say %q: %s", name, w, stderr)
			}
		}
	}
}

func TestNoErrorOrPrintShowsASecret(t *testing.T) {
	const canary = "c4n4ry"
	file := writeFile(t, "sinks: [{url: 'http://u:"+canary+"@localhost/?k="+canary+"', secret: whsec_YzRuNHJ5YzRuNHJ5YzRuNHJ5YzRuNHJ5, "+
		"secrets: [whsec_YzRuNHJ5YzRuNHJ5YzRuNHJ5YzRuNHJ5], headers: {X-Key: "+canary+"}}]\n"+
		"callbacks: {hosts: [localhost], secret: whsec_YzRuNHJ5YzRuNHJ5YzRuNHJ5YzRuNHJ5}\n")
	bad := writeFile(t, "sinks: [{url: 'http://localhost/', secret: "+canary+"}]\n")
	for name, test := range map[string]struct{ env, args []string }{
		"config":             {nil, []string{"config", "--config", file}},
		"secret in a file":   {nil, []string{"--config", bad}},
		"secret in the env":  {[]string{"GATEWAY_SINK_SECRET=" + canary, "GATEWAY_SINK_URL=http://localhost/"}, nil},
		"secret in a flag":   {nil, []string{"--sink-url=http://localhost/", "--sink-secret=" + canary}},
		"password in a flag": {nil, []string{"--sink-url=ftp://u:" + canary + "@localhost/"}},
		"secret of the sink": {[]string{"GATEWAY_SINK_SECRET=" + canary}, []string{"sink"}},
	} {
		stdout, stderr, _ := execute(t, test.env, test.args...)
		if all := stdout + stderr; strings.Contains(all, canary) || strings.Contains(all, "YzRuNHJ5") {
			t.Errorf("%s shows the secret:\n%s", name, all)
		}
	}
}

func TestFlagsGoBeforeTheEnvironmentBeforeTheFile(t *testing.T) {
	file := writeFile(t, "sync_timeout: 1s\nmax_wait: 10s\nresult_ttl: 100s\ngearman: [localhost:1]\ngearman_tls: {server_name: g1}\n")
	stdout, stderr, code := execute(t, []string{"GATEWAY_MAX_WAIT=20s", "GATEWAY_RESULT_TTL=200s"},
		"config", "--config", file, "--result-ttl=300s")
	for _, want := range []string{"sync_timeout: 1s\n", "max_wait: 20s\n", "result_ttl: 5m0s\n", "enabled: true\n"} { // TLS by one of its fields

		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("exit code %d, no %q in\n%s%s", code, want, stdout, stderr)
		}
	}
}

// TestServe runs the program from its start to SIGTERM, with a sink, and asks for its health as a container would.
func TestServe(t *testing.T) {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	sink := command(nil, "sink", "--listen", "127.0.0.1:0", "--secret", secret)
	events, err := sink.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	sinkAddr := startAndFind(t, sink, "sink listens")
	serve := command([]string{"GATEWAY_SINK_SECRET=" + secret},
		"--listen=127.0.0.1:0", "--jobserver-listen=127.0.0.1:0", "--sink-url=http://"+sinkAddr+"/")
	addr := startAndFind(t, serve, "gateway serves HTTP")

	if _, stderr, code := execute(t, nil, "healthcheck", "--listen", addr); code != 0 {
		t.Errorf("healthcheck: exit code %d, %s", code, stderr)
	}
	resp, err := http.Post("http://"+addr+"/functions/reverse", "", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "olleh" {
		t.Errorf("reverse: %d %s", resp.StatusCode, body)
	}
	lines := bufio.NewScanner(events)
	for lines.Scan() && !strings.Contains(lines.Text(), "verified job.completed "+resp.Header.Get("X-Job-Id")) {
	}
	if err := lines.Err(); err != nil || lines.Text() == "" {
		t.Errorf("the sink did not print the end of the job: %v", err)
	}

	serve.Process.Signal(syscall.SIGTERM)
	if err := serve.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if _, _, code := execute(t, nil, "healthcheck", "--listen", addr); code != 1 {
		t.Errorf("healthcheck of a gateway that is gone: exit code %d, want 1", code)
	}
}

// startAndFind starts a program and returns the address that it logs with a message.
func startAndFind(t *testing.T, cmd *exec.Cmd, message string) (addr string) {
	t.Helper()
	logs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	found := make(chan string, 1)
	go func() { // reads on, so that the program can log on
		for lines := bufio.NewScanner(logs); lines.Scan(); {
			var line struct{ Message, Addr string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Message == message {
				found <- line.Addr
			}
		}
	}()
	select {
	case addr = <-found:
	case <-time.After(20 * time.Second):
		t.Fatalf("%v did not log %q", cmd.Args, message)
	}
	return addr
}

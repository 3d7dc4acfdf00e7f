package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gateway "gearman-gateway"
)

// service starts the example of a service, and returns its URL.
func service(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("python3", "examples/handlers/words_service.py", "0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	var port int
	if _, err := fmt.Fscanf(bufio.NewReader(out), "listening on %d", &port); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d/", port)
}

// curl runs curl, as the comments of the examples do.
func curl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("curl", append([]string{"-s"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("curl %v: %v %s", args, err, out)
	}
	return string(out)
}

func TestExamplesOfHandlers(t *testing.T) {
	url := service(t)
	gw := start(t, func(c *gateway.Config) {
		if err := c.ReadFile("examples/gateway.yaml"); err != nil {
			t.Fatal(err)
		}
		for i := range c.Functions {
			if c.Functions[i].HTTP != nil {
				c.Functions[i].HTTP.URL = gateway.URL(url)
			}
		}
	})
	for _, function := range []string{"words-sh", "words-php", "words-py", "words-http"} {
		checkWords(t, gw, function)
	}
}

// checkWords has a function show all that a handler can do.
func checkWords(t *testing.T, gw, function string) {
	t.Helper()
	job := func(workload string) string {
		return curl(t, gw+"/jobs", "-d", fmt.Sprintf(`{"function":%q,"workload":%q,"mode":"sync"}`, function, workload))
	}
	if got := curl(t, gw+"/functions/"+function, "-d", "hello"); got != "HELLO" {
		t.Errorf("%s: hello: %s", function, got)
	}
	want := map[string][]string{
		"exception": {`"state":"failed"`, "no such word"},
		"slow":      {`"state":"failed"`, `"kind":"timeout"`},
	}
	if function != "words-http" { // HTTP has no place for these
		want["progress"] = []string{`"state":"completed"`, `"progress":{"numerator":1,"denominator":2}`, `"result":"half`}
		want["warning"] = []string{`"state":"completed"`, `"warnings":[{"value":"mind the gap`, `"result":"done`}
	}
	for workload, parts := range want {
		got := job(workload)
		for _, part := range parts {
			if !strings.Contains(got, part) {
				t.Errorf("%s: %s: no %s in %s", function, workload, part, got)
			}
		}
	}
}

// A program of one's own, in a module of its own, has a function of its own.
func TestExampleOfAnOwnHandler(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "own-handler")
	build := exec.Command("go", "build", "-mod=readonly", "-o", binary, ".")
	build.Dir = "examples/own-handler"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	config := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(config, []byte("listen: 127.0.0.1:0\njobserver: {listen: 127.0.0.1:0}\nhandlers: [{function: words-go, timeout: 1s}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, binary, config)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	logs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); cmd.Wait() }()
	addr := ""
	for lines := bufio.NewScanner(logs); addr == "" && lines.Scan(); {
		if _, after, ok := strings.Cut(lines.Text(), `"addr":"`); ok && strings.Contains(after, "gateway serves HTTP") {
			addr, _, _ = strings.Cut(after, `"`)
		}
	}
	checkWords(t, "http://"+addr, "words-go")
}

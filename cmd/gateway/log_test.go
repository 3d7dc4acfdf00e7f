package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"gearman-gateway/internal/gearman/wire"
)

const (
	// forged would be a line of its own, clear a terminal and hide what follows. name is the same for a name on the wire.
	forged = "\n{\"level\":\"error\",\"message\":\"forged\"}\r\n\x1b[2J\u009b2J\u2028\u2029\u0085\u202e\xff"
	name   = "f\x1b[2J\u009b2J\u2028\u2029\u0085\u202e\xff"
	// canary stands for what must not be logged: workloads, results, what a worker says, and secrets.
	canary = "c4n4ry"
)

const hostileConfig = `
listen: 127.0.0.1:0
jobserver: {listen: 127.0.0.1:0}
log_level: trace
workers: {builtin: true}
sinks:
  - {name: bad, url: %[1]q, headers: {X-Token: c4n4ry-sink}, events: ["*"]}
webhooks: {schedule: [0s, 10ms, 10ms], timeout: 5s}
tracing: {endpoint: %[2]q, headers: {X-Token: c4n4ry-trace}}
handlers:
  - {function: once, exec: [sh, -c, 'cat; cat >&2; printf "%%b" "$H" >&2; printf "%%b" "$H" >&3; exit 3'], env: {H: '\n\033[2Jc4n4ry\n'}}
  - {function: stays, persistent: true, exec: [sh, -c, 'printf "ready\n"; read line; printf "%%b" "$H" >&2; printf "result 1\nrready\n"; sleep 0.1; printf "%%b" "$H" >&2; exit 3'], env: {H: '\n\033[2Jc4n4ry\n'}}
  - {function: chatty, persistent: true, exec: [sh, -c, 'printf "ready\n"; read line; printf "result 1\nr%%b" "$H"; sleep 1'], env: {H: '\n\033[2Jc4n4ry\n'}}
  - {function: garbage, persistent: true, exec: [sh, -c, 'printf "ready\n"; read line; printf "%%b" "$H"'], env: {H: '\n\033[2Jc4n4ry\n'}}
  - {function: post, http: {url: %[3]q}, timeout: 5s}
  - {function: broken, http: {url: %[4]q}, timeout: 5s}
`

// TestNothingFromOutsideBreaksTheLog sends what could break or forge a line of the log through everything that takes bytes from outside, at
// the level that logs most.
func TestNothingFromOutsideBreaksTheLog(t *testing.T) {
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "%s%s%s", forged, body, r.Header.Get("X-Token"))
	}))
	t.Cleanup(refuses.Close)
	broken := listenRaw(t, func(c net.Conn) { // it does not speak HTTP, and then says something that nobody asked for
		bufio.NewReader(c).ReadString('\n')
		io.WriteString(c, "HTTP/1.1 500 \x1b[2J\u2028\r\n\r\n"+forged+forged)
	})
	file := writeFile(t, fmt.Sprintf(hostileConfig, "http://"+broken, refuses.URL, refuses.URL, "http://"+broken))
	g := &crashing{t: t, args: []string{"--config", file}}
	log := g.startLogging(filepath.Join(t.TempDir(), "log"))
	t.Cleanup(g.kill)
	addr := strings.TrimPrefix(*g.url.Load(), "http://")

	workload := canary + forged
	for _, function := range []string{"once", "stays", "stays", "garbage", "post", "broken", "fail", "echo", "sleep", "chatty", "stays"} {
		callRaw(t, *g.url.Load()+"/functions/"+function, workload, nil)
	}
	for _, path := range []string{"/jobs?x=", "/jobs/", "/functions/", "/nowhere/", "/deliveries/"} {
		callRaw(t, *g.url.Load()+path+percent(forged)+"?q="+canary, workload, map[string]string{
			"X-Request-Id": name, "Traceparent": name, "User-Agent": name, "Authorization": "Bearer " + canary, "Idempotency-Key": canary,
		})
	}
	callRaw(t, *g.url.Load()+"/functions/"+percent(name)+"?mode=background", workload, nil)
	quoted, _ := json.Marshal(workload)
	for _, body := range []string{
		fmt.Sprintf(`{"function":%q,"workload":%s,"unique":%q,"mode":"tracked","deadline":"20ms"}`, "f\u2028", quoted, "u\u2028"),
		fmt.Sprintf(`{"function":"wordcount","workload":%s}`, quoted), `{"function":"echo","workload":` + canary, `{"` + canary + `":1}`,
		`{"function":"echo","mode":"` + canary + `"}`, forged, `{"function":"echo","workload":"` + canary + `"} ` + canary,
	} {
		callRaw(t, *g.url.Load()+"/jobs", body, map[string]string{"Content-Type": "application/json"})
		callRaw(t, *g.url.Load()+"/jobs/batch", "["+body+"]", map[string]string{"Content-Type": "application/json"})
	}
	for _, request := range []string{forged, "GET /" + forged, "B\x1bAD / HTTP/1.1\r\nHost: \x1b\u2028\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nA\x1b: \x00\r\n\r\n"} {
		sayRaw(t, addr, request)
	}
	jobServer := regexp.MustCompile(`"listen":"([^"]+)"`).FindStringSubmatch(log())[1]
	packet := func(kind wire.Type, args ...string) string {
		b := make([][]byte, len(args))
		for i, a := range args {
			b[i] = []byte(a)
		}
		return string(wire.Append(nil, wire.Request, kind, b...))
	}
	for _, said := range []string{
		forged, packet(wire.SetClientID, forged) + packet(wire.CanDo, forged) + packet(wire.SubmitJob, forged, forged, canary),
		packet(wire.SubmitJobBG, "fail", forged, canary), packet(wire.SubmitJobBG, "once", name, canary), packet(wire.WorkException, forged, canary),
		packet(wire.OptionReq, forged), packet(wire.JobCreated, forged), "workers\nshutdown" + forged,
	} {
		sayRaw(t, jobServer, said)
	}
	waitFor(t, log, "dead letter", "job ended", "a persistent handler's process is replaced", "exit status 3", `"state":"failed","kind"`)
	g.cmd.Process.Signal(syscall.SIGTERM)
	g.cmd.Wait()
	checkLog(t, log())
	if !strings.Contains(log(), "did not get to the collector") {
		t.Error("nothing is said of the spans that were refused")
	}
}

// A job server is outside as well.
func TestAHostileJobServerDoesNotBreakTheLog(t *testing.T) {
	n := make(chan int, 1)
	n <- 0
	say := func(c net.Conn, kind wire.Type, args ...string) {
		b := make([][]byte, len(args))
		for i, a := range args {
			b[i] = []byte(a)
		}
		c.Write(wire.Append(nil, wire.Response, kind, b...))
	}
	server := listenRaw(t, func(c net.Conn) {
		for r := wire.NewReader(bufio.NewReader(c), wire.Request, 0); ; {
			p, err := r.Next()
			if err != nil {
				return
			}
			turn := <-n
			n <- turn + 1
			switch p.Type {
			case wire.GrabJobUniq:
				if turn%2 == 0 {
					say(c, wire.NoJob)
				} else {
					say(c, wire.JobAssignUniq, "H"+forged, "fail", forged, canary)
				}
			case wire.SubmitJob, wire.SubmitJobBG:
				if turn%3 == 0 {
					say(c, wire.Error, forged, forged)
					continue
				}
				handle := "H" + name + fmt.Sprint(turn)
				say(c, wire.JobCreated, handle)
				say(c, wire.WorkStatus, handle, forged, forged)
				say(c, wire.WorkWarning, handle, canary+forged)
				say(c, wire.WorkException, handle, canary+forged)
			case wire.EchoReq:
				say(c, wire.EchoRes, string(p.Args[0]))
			case wire.OptionReq:
				say(c, wire.OptionRes, string(p.Args[0]))
			case wire.PreSleep:
				say(c, wire.Noop)
			case wire.CanDo, wire.CanDoTimeout:
				say(c, wire.Error, forged, forged)
			case wire.WorkFail, wire.WorkException, wire.WorkComplete:
				c.Write([]byte(forged)) // no packet: the connection ends
			}
		}
	})
	file := writeFile(t, "listen: 127.0.0.1:0\nlog_level: trace\nworkers: {builtin: true, grace: 100ms}\ndrain: 2s\ngearman: ["+server+"]\n")
	g := &crashing{t: t, args: []string{"--config", file}}
	log := g.startLogging(filepath.Join(t.TempDir(), "log"))
	t.Cleanup(g.kill)
	for range 12 {
		callRaw(t, *g.url.Load()+"/functions/echo?timeout=1s", canary+forged, nil)
	}
	waitFor(t, log, "job ended")
	g.cmd.Process.Signal(syscall.SIGTERM)
	g.cmd.Wait()
	checkLog(t, log())
}

// checkLog wants each line to be one JSON object, without anything that a screen would not show as it is, and without a canary.
func checkLog(t *testing.T, log string) {
	t.Helper()
	for line := range strings.Lines(log) {
		var fields map[string]any
		d := json.NewDecoder(strings.NewReader(line))
		if err := d.Decode(&fields); err != nil || d.More() {
			t.Errorf("not a line of JSON (%v): %q", err, line)
		}
		if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !unicode.IsGraphic(r) || r == unicode.ReplacementChar }) &&
			!strings.Contains(line, "\uFFFD") { // which zerolog itself puts where there was no UTF-8
			t.Errorf("has what a screen does not show: %q", line)
		}
		if strings.Contains(line, canary) {
			t.Errorf("tells too much: %s", line)
		}
		if fields["message"] == "forged" {
			t.Errorf("forged: %q", line)
		}
	}
	if t.Failed() {
		if keep := os.Getenv("GATEWAY_TEST_LOG"); keep != "" {
			os.WriteFile(keep, []byte(log), 0o600)
		}
	}
}

func waitFor(t *testing.T, log func() string, texts ...string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for _, text := range texts {
		for !strings.Contains(log(), text) {
			if time.Now().After(deadline) {
				t.Fatalf("no %q in the log:\n%.20000s", text, log())
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

// percent escapes every byte.
func percent(s string) string {
	var b bytes.Buffer
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

// callRaw posts; whatever the answer is will do.
func callRaw(t *testing.T, url, body string, header map[string]string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		req.Header.Set(name, strings.Map(func(r rune) rune { // what net/http would refuse to send, sayRaw does
			if r < ' ' {
				return -1
			}
			return r
		}, value))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

// sayRaw writes to a server and reads until it hangs up or has nothing to say.
func sayRaw(t *testing.T, addr, text string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, text)
	c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	io.Copy(io.Discard, c)
}

// listenRaw serves connections until the test ends.
func listenRaw(t *testing.T, serve func(net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c) }()
		}
	}()
	return ln.Addr().String()
}

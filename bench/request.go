//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// function is what every job asks for. Whether somebody runs it is up to the setup.
const function = "reverse"

// workload is text that needs no escape in JSON.
func workload(size int) string {
	return strings.Repeat("all work and no play makes jack a dull boy, ", size/44+1)[:size]
}

// uniqueMark is where the load generator puts text that is another for each request.
const uniqueMark = "%UNIQUE%"

// batchSize is the number of jobs in a request of work "batch".
const batchSize = 100

// requestFor returns the bytes of a request that does the work. gearmand's plugin is always given a unique: without one it takes jobs of
// equal workload for the same job, and would have almost nothing to do.
func requestFor(s setup, work string, size int) []byte {
	text := workload(size)
	if s.front == "plugin" {
		headers := "X-Gearman-Unique: " + uniqueMark + "\r\n"
		if work == "background" {
			headers += "X-Gearman-Background: true\r\n"
		}
		return encode("/"+function, headers, text)
	}
	job := `{"function":"` + function + `","workload":"` + text + `","mode":"` + work + `"}`
	switch work {
	case "raw":
		return encode("/functions/"+function, "Content-Type: text/plain\r\n", text)
	case "batch":
		job = strings.Replace(job, "batch", "background", 1)
		return encode("/jobs/batch", "Content-Type: application/json\r\n", "["+strings.Repeat(job+",", batchSize-1)+job+"]")
	}
	return encode("/jobs", "Content-Type: application/json\r\n", job)
}

func encode(path, headers, body string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s", path, headers, len(body), body)
}

// answer is a response as the floor repeats it.
type answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// probe sends a request once, and sees to it that the answer is what the load generator does not look at: the right one.
func probe(ctx context.Context, r *rig, work string, size int) (a answer, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", r.http)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	text := bytes.Replace(requestFor(r.setup, work, size), []byte(uniqueMark), []byte("probe"), 1)
	if _, err := conn.Write(text); err != nil {
		return a, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	a.Status, a.Header = resp.StatusCode, resp.Header
	if a.Body, err = io.ReadAll(resp.Body); err != nil {
		return a, err
	}
	if why := wrong(r.setup, work, size, a); why != "" {
		return a, fmt.Errorf("%s of %s: %s: %d %.200q", work, r.front, why, a.Status, a.Body)
	}
	return a, nil
}

// wrong says what is wrong with an answer; "" is nothing.
func wrong(s setup, work string, size int, a answer) string {
	reversed := []byte(workload(size))
	slices.Reverse(reversed)
	waited := work == "sync" || work == "raw"
	switch {
	case a.Status/100 != 2:
		return "an error"
	case waited && !bytes.Contains(a.Body, reversed):
		return "the result is not in it"
	case s.front == "plugin" || work == "raw":
		return ""
	case work == "batch" && bytes.Count(a.Body, []byte(`"state":"queued"`)) < batchSize:
		return "not every job was accepted"
	case !waited && work != "batch" && a.Status != http.StatusAccepted:
		return "it was not accepted"
	}
	return ""
}

// answers takes down what the gateway answers, for the floor to repeat it.
func (b *bench) answers(ctx context.Context) error {
	for _, size := range sizes {
		r, err := b.start(ctx, setup{front: "gateway", worker: true}, size)
		if err != nil {
			return err
		}
		err = b.takeDown(ctx, r, size)
		r.stop()
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) takeDown(ctx context.Context, r *rig, size int) error {
	for _, work := range []string{"background", "sync"} {
		a, err := probe(ctx, r, work, size)
		if err != nil {
			return err
		}
		text, err := json.Marshal(a)
		if err != nil {
			return err
		}
		if err := os.WriteFile(b.answer(work, size), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// answer is the file with the answer to a request.
func (b *bench) answer(work string, size int) string {
	return filepath.Join(b.dir, fmt.Sprintf("%s-%d.json", work, size))
}

//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// report is everything that one run has found.
type report struct {
	about          string
	time           time.Duration // of a round
	rounds, others int
	cells          []*cell
	growth         []*growthRow
	callers        []*callersRow
	points         []point
}

// cell returns the row of 100-byte workloads.
func (r *report) cell(name, work string, conns int) *cell {
	for _, c := range r.cells {
		if c.name == name && c.work == work && c.conns == conns && c.size == 100 {
			return c
		}
	}
	return &cell{}
}

// about says what was measured, and on what.
func about(ctx context.Context) string {
	output := func(argv ...string) string {
		out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
		if err != nil {
			return "unknown"
		}
		return strings.TrimSpace(string(out))
	}
	cpu := "unknown"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(text); m != nil {
			cpu = string(m[1])
		}
	}
	commit := output("git", "describe", "--always", "--dirty", "--exclude=*")
	kernel := output("uname", "-r")
	return fmt.Sprintf("Commit %s, %s, %s %d cores, Linux %s, %s.", commit, time.Now().UTC().Format(time.DateOnly), cpu, runtime.NumCPU(), kernel,
		runtime.Version())
}

// markdown writes the tables.
func (r *report) markdown(w io.Writer) {
	fmt.Fprintf(w, "%s Medians of %d rounds of %v of the rows that the points below need, and of %d of %v of the others.\n\n",
		r.about, r.rounds, r.time, r.others, r.time/2)
	fmt.Fprint(w, "| point | | measured | asked for | |\n| --- | --- | --- | --- | --- |\n")
	for _, p := range r.points {
		fmt.Fprintf(w, "| %d | %s | %s | %s | %s |\n", p.number, p.what, p.measured, p.target, p.verdict())
	}
	fmt.Fprint(w, "\n| contender | work | connections | bytes | jobs/s | ± % | p50 ms | p99 ms | CPU µs a job | of gearmand | peak RSS MiB | of gearmand | errors |\n"+
		"| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n")
	for _, c := range r.cells {
		c.markdown(w)
	}
	fmt.Fprint(w, "\n| job server | queued | submits/s | completes/s | RSS MiB |\n| --- | --: | --: | --: | --: |\n")
	for _, g := range r.growth {
		fmt.Fprintf(w, "| %s | %d | %.0f | %.0f | %.0f |\n", g.name, g.queued, median(g.submit), median(g.complete), median(g.rss))
	}
	fmt.Fprint(w, "\n| sync callers waiting | requests | answered | a second | median wait ms | slowest ms | peak RSS MiB |\n| --: | --: | --: | --: | --: | --: | --: |\n")
	for _, c := range r.callers {
		fmt.Fprintf(w, "| %d | %d | %d | %.0f | %.1f | %.1f | %.0f |\n", c.callers, c.requests, c.answered, median(c.rate), median(c.p50), median(c.slowest), median(c.rss))
	}
}

func (c *cell) markdown(w io.Writer) {
	fmt.Fprintf(w, "| %s | %s | %d | %d |", c.name, c.work, c.conns, c.size)
	if len(c.rounds) == 0 {
		fmt.Fprintln(w, " not measured"+strings.Repeat(" |", 9))
		return
	}
	lowest, highest := c.rounds[0].rate, c.rounds[0].rate
	for _, r := range c.rounds {
		lowest, highest = min(lowest, r.rate), max(highest, r.rate)
	}
	rate := c.median(func(r round) float64 { return r.rate })
	fmt.Fprintf(w, " %.0f | %.0f |", rate, (highest-lowest)/2/rate*100)
	for _, column := range []struct {
		format string
		of     func(round) float64
	}{
		{"%.2f", func(r round) float64 { return r.p50 }},
		{"%.2f", func(r round) float64 { return r.p99 }},
		{"%.1f", func(r round) float64 { return r.serverCPU }},
		{"%.1f", func(r round) float64 { return r.jobserverCPU }},
		{"%.0f", func(r round) float64 { return r.serverRSS }},
		{"%.0f", func(r round) float64 { return r.jobserverRSS }},
	} {
		if v := c.median(column.of); v != 0 {
			fmt.Fprintf(w, " "+column.format+" |", v)
		} else {
			fmt.Fprint(w, " |")
		}
	}
	errs := 0.0
	for _, r := range c.rounds {
		errs += r.errors
	}
	fmt.Fprintf(w, " %.0f |\n", errs)
}

// write prints the tables, and puts them and the plot into a directory of documentation if there is one.
func (r *report) write(w io.Writer, docs string) error {
	var text bytes.Buffer
	r.markdown(&text)
	if _, err := w.Write(text.Bytes()); err != nil || docs == "" {
		return err
	}
	if err := replaceBetween(filepath.Join(docs, "performance.md"), "bench", text.Bytes()); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(docs, "performance.svg"), plot(r), 0o644)
}

// replaceBetween puts text between the two markers of a page.
func replaceBetween(page, marker string, text []byte) error {
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	begin, end := []byte("<!-- "+marker+" -->\n"), []byte("<!-- /"+marker+" -->\n")
	head, rest, found := bytes.Cut(old, begin)
	_, tail, closed := bytes.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("%s has no lines %q and %q", page, begin, end)
	}
	return os.WriteFile(page, bytes.Join([][]byte{head, begin, text, end, tail}, nil), 0o644)
}

// failed is an error if anything could not be measured. What was measured and falls short is none.
func (r *report) failed(ctx context.Context) error {
	errs := []error{context.Cause(ctx)}
	for _, c := range r.cells {
		if c.err != nil {
			errs = append(errs, fmt.Errorf("%s, %s: not every round was measured", c.name, c.work))
		}
	}
	for _, g := range r.growth {
		errs = append(errs, g.err)
	}
	for _, c := range r.callers {
		errs = append(errs, c.err)
	}
	return errors.Join(errs...)
}

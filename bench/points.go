//go:build linux

package main

import (
	"fmt"
	"slices"
)

// point is one thing that the gateway is held to.
type point struct {
	number   int
	what     string
	measured string
	target   string
	ok       bool
	apart    bool // it is not of this run
}

// verdict is ok or short.
func (p *point) verdict() string {
	switch {
	case p.apart:
		return "not of this run"
	case p.ok:
		return "ok"
	}
	return "short"
}

// points compares what was measured with what is asked for.
func points(r *report) []point {
	background := func(name string) *cell { return r.cell(name, "background", 64) }
	sync := func(name string, conns int) *cell { return r.cell(name, "sync", conns) }
	rate := func(c *cell) float64 { return c.median(func(r round) float64 { return r.rate }) }
	cpu := func(c *cell) float64 { return c.median(func(r round) float64 { return r.serverCPU }) }
	p50 := func(c *cell) float64 { return c.median(func(r round) float64 { return r.p50 }) }

	gateway, floor, plugin := background("gateway"), background("floor"), background("gearmand -r http")
	batch, ceiling := rate(r.cell("gateway", "batch", 16)), rate(r.cell("gearmand alone", "pipeline", 1))
	enough := min(60_000, ceiling)
	points := []point{
		least(1, "background, 64 connections: gateway / gearmand's plugin", rate(gateway), rate(plugin), 3),
		least(1, "background, 64 connections: gateway / floor", rate(gateway), rate(floor), 0.7),
		least(2, "sync, 64 connections: gateway / gearmand's plugin", rate(sync("gateway", 64)), rate(sync("gearmand -r http", 64)), 2.5),
		most(3, "sync, one caller: p50 of gateway / of the client alone", p50(sync("gateway", 1)), p50(sync("client alone", 1)), 1.6),
		{
			number: 4, what: "batch of 100: jobs/s accepted", measured: fmt.Sprintf("%.0f", batch), ok: batch > 0 && ceiling > 0 && batch >= enough,
			target: fmt.Sprintf("≥ %.0f (gearmand alone: %.0f)", enough, ceiling),
		},
	}
	points = append(points, growthPoints(r.growth)...)
	points = append(points, callersPoints(r.callers)...)
	return append(points,
		most(7, "background, 64 connections: CPU a request of gateway / of floor", cpu(gateway), cpu(floor), 1.4),
		point{number: 8, what: "long load: goroutines, descriptors and RSS back at the baseline", measured: "`make soak`", target: "back", apart: true})
}

func growthPoints(rows []*growthRow) []point {
	of := func(name string) []*growthRow {
		return slices.DeleteFunc(slices.Clone(rows), func(r *growthRow) bool { return r.name != name })
	}
	embedded, gearmand := of("embedded"), of("gearmand")
	if len(embedded) == 0 || len(gearmand) == 0 {
		return nil
	}
	first, last := embedded[0], embedded[len(embedded)-1]
	return []point{
		least(5, "job servers, empty queue: submits of embedded / of gearmand", median(first.submit), median(gearmand[0].submit), 1),
		least(5, "job servers, empty queue: completes of embedded / of gearmand", median(first.complete), median(gearmand[0].complete), 1),
		least(5, fmt.Sprintf("embedded: submits at %d queued / at none", last.queued), median(last.submit), median(first.submit), 0.9),
		least(5, fmt.Sprintf("embedded: completes at %d queued / at none", last.queued), median(last.complete), median(first.complete), 0.9),
	}
}

func callersPoints(rows []*callersRow) []point {
	if len(rows) == 0 {
		return nil
	}
	last := rows[len(rows)-1]
	callers := fmt.Sprintf("%d sync callers: ", last.callers)
	rss := 0.0
	if len(last.rss) > 0 {
		rss = slices.Max(last.rss)
	}
	return []point{
		{number: 6, what: callers + "answered", measured: fmt.Sprintf("%d of %d", last.answered, last.requests), target: "all", ok: last.answered == last.requests},
		{number: 6, what: callers + "peak RSS, MiB", measured: fmt.Sprintf("%.0f", rss), target: "≤ 500", ok: rss > 0 && rss <= 500},
		most(6, callers+"slowest wait / median", median(last.slowest), median(last.p50), 2),
	}
}

// least is a ratio that should not be less than a target; without both numbers it falls short.
func least(number int, what string, a, b, target float64) point {
	return point{number: number, what: what, measured: ratio(a, b), target: fmt.Sprintf("≥ %g", target), ok: a > 0 && b > 0 && a/b >= target}
}

// most is a ratio that should not be more.
func most(number int, what string, a, b, target float64) point {
	return point{number: number, what: what, measured: ratio(a, b), target: fmt.Sprintf("≤ %g", target), ok: a > 0 && b > 0 && a/b <= target}
}

func ratio(a, b float64) string {
	if a == 0 || b == 0 {
		return "not measured"
	}
	return fmt.Sprintf("%.2f", a/b)
}

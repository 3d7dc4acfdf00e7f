//go:build linux

package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"strconv"
)

// panel is one diagram: lines over the same few places on the x axis.
type panel struct {
	title  string
	places []string
	lines  []line
}

type line struct {
	name   string
	color  string
	values []float64 // NaN: not measured
}

const (
	panelWidth, panelHeight = 380, 300
	plotLeft, plotRight     = 60, 20
	plotTop, plotBottom     = 40, 90
)

var colors = []string{"#777777", "#1f77b4", "#d62728", "#2ca02c"}

// plot draws what the tables say of throughput, as SVG.
func plot(r *report) []byte {
	panels := []panel{
		r.byConnections("background: jobs/s by connections", "background", "floor", "gateway", "gearmand -r http"),
		r.byConnections("sync: jobs/s by connections", "sync", "", "gateway", "gearmand -r http"),
		r.byQueue(),
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n",
		panelWidth*len(panels), panelHeight)
	fmt.Fprint(&b, `<rect width="100%" height="100%" fill="white"/>`+"\n")
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d,0)">`+"\n", i*panelWidth)
		p.draw(&b)
		fmt.Fprint(&b, "</g>\n")
	}
	fmt.Fprint(&b, "</svg>\n")
	return b.Bytes()
}

func (r *report) byConnections(title, work string, names ...string) panel {
	p := panel{title: title}
	for _, n := range conns {
		p.places = append(p.places, strconv.Itoa(n))
	}
	for i, name := range names {
		if name == "" {
			continue
		}
		l := line{name: name, color: colors[i]}
		for _, n := range conns {
			l.values = append(l.values, orNaN(r.cell(name, work, n).median(func(r round) float64 { return r.rate })))
		}
		p.lines = append(p.lines, l)
	}
	return p
}

func (r *report) byQueue() panel {
	p := panel{title: "job servers: jobs/s by jobs queued"}
	for i, name := range []string{"embedded", "gearmand"} {
		submit, complete := line{name: name + ", submit", color: colors[2*i]}, line{name: name + ", complete", color: colors[2*i+1]}
		for _, g := range r.growth {
			if g.name != name {
				continue
			}
			if i == 0 {
				p.places = append(p.places, strconv.Itoa(g.queued))
			}
			submit.values, complete.values = append(submit.values, orNaN(median(g.submit))), append(complete.values, orNaN(median(g.complete)))
		}
		p.lines = append(p.lines, submit, complete)
	}
	return p
}

func orNaN(v float64) float64 {
	if v == 0 {
		return math.NaN()
	}
	return v
}

// draw writes the panel with its upper left corner at the origin.
func (p *panel) draw(b *bytes.Buffer) {
	const width, height = panelWidth - plotLeft - plotRight, panelHeight - plotTop - plotBottom
	top := p.top()
	x := func(i int) float64 { return plotLeft + width*(float64(i)+0.5)/float64(len(p.places)) }
	y := func(v float64) float64 { return plotTop + height*(1-v/top) }
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
	}
	text(panelWidth/2, 20, "middle", p.title)
	for i := range 5 {
		v := top * float64(i) / 4
		fmt.Fprintf(b, `<path d="M%d %.1fh%d" stroke="#dddddd"/>`+"\n", plotLeft, y(v), width)
		text(plotLeft-5, y(v)+4, "end", strconv.FormatFloat(v, 'f', -1, 64))
	}
	for i, place := range p.places {
		text(x(i), plotTop+height+16, "middle", place)
	}
	for i, l := range p.lines {
		pen := "M"
		path := ""
		for j, v := range l.values {
			if math.IsNaN(v) {
				pen = "M"
				continue
			}
			path += fmt.Sprintf("%s%.1f %.1f", pen, x(j), y(v))
			pen = "L"
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(j), y(v), l.color)
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", path, l.color)
		legend := float64(plotTop + height + 34 + 14*i)
		fmt.Fprintf(b, `<rect x="%d" y="%.1f" width="10" height="10" fill="%s"/>`+"\n", plotLeft, legend-9, l.color)
		text(plotLeft+16, legend, "start", l.name)
	}
}

// top is the end of the y axis: 1, 2, 4 or 8 times a power of ten, above all values.
func (p *panel) top() float64 {
	highest := 1.0
	for _, l := range p.lines {
		for _, v := range l.values {
			if v > highest { // NaN is not
				highest = v
			}
		}
	}
	power := math.Pow(10, math.Floor(math.Log10(highest)))
	for _, n := range []float64{1, 2, 4, 8} {
		if n*power >= highest {
			return n * power
		}
	}
	return 10 * power
}

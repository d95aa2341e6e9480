package figures

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// The plot's measures, in its own units.
const (
	plotWidth  = 760
	plotLeft   = 130 // where the bars begin
	plotRight  = 640 // where the axis ends; figures stand beyond
	rowHeight  = 18
	barHeight  = 12
	groupSpace = 30 // for a group's heading
	plotTop    = 58
)

// plotStyle works on light and on dark pages: the ground is the page's.
const plotStyle = `text{font:12px system-ui,sans-serif;fill:#1f2328}.head{font-weight:600}.title{font-size:15px;font-weight:600}` +
	`.grid{stroke:#d0d7de}.one{stroke:#1f2328;stroke-dasharray:4 3}.whisker{stroke:#1f2328;stroke-width:1.5}` +
	`.s0{fill:#8c959f}.s1{fill:#57606a}.s2{fill:#0969da}.s3{fill:#bc4c00}` +
	`@media(prefers-color-scheme:dark){text{fill:#e6edf3}.grid{stroke:#3d444d}.one,.whisker{stroke:#e6edf3}.s0{fill:#768390}.s1{fill:#9198a1}.s2{fill:#4493f8}.s3{fill:#f0883e}}`

// bar is a line of the plot.
type bar struct {
	label string
	Spread
	class int
}

// plot is an SVG with the CPU of each subject for a request, as a ratio to the
// anchor's: the median as a bar, the quartiles as whiskers. Peers are left out: they
// would squeeze the rest.
func (r Report) plot() string {
	var groups []string
	var bars [][]bar
	most := 1.0
	for _, c := range r.Cells() {
		var group []bar
		for i, subject := range r.Subjects(c)[1:] {
			s := r.Ratio(c, subject, Slot.CPUPerRequest)
			if s.Rounds == 0 || slices.Contains(r.Peers, subject) {
				continue
			}
			most = max(most, s.High)
			group = append(group, bar{label: subject, Spread: s, class: i % 4})
		}
		if len(group) > 0 {
			groups, bars = append(groups, c.String()), append(bars, group)
		}
	}
	step := gridStep(most)
	most = step * math.Ceil(most/step+0.01) // a line of the grid lies beyond the longest

	var b strings.Builder
	rows := 0
	for _, g := range bars {
		rows += len(g)
	}
	height := plotTop + len(bars)*groupSpace + rows*rowHeight + 34
	title := "CPU time for each request, against plain reverse_proxy"
	if r.Noisy {
		title += " (noisy machine)"
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="title desc">`+"\n", plotWidth, height)
	fmt.Fprintf(&b, "<title id=\"title\">%s</title>\n<desc id=\"desc\">%s</desc>\n<style>%s</style>\n", escape(title), escape(describe(groups, bars)), plotStyle)
	fmt.Fprintf(&b, `<text class="title" x="10" y="24">%s</text>`+"\n", escape(title))
	fmt.Fprintf(&b, `<text x="10" y="42">Bars: median of the rounds. Whiskers: quartiles. Shorter is better; 1 is plain Caddy.</text>`+"\n")
	at := func(v float64) float64 { return plotLeft + v/most*(plotRight-plotLeft) }
	axis(&b, most, step, height-28, at)
	y := plotTop
	for i, g := range bars {
		fmt.Fprintf(&b, `<text class="head" x="10" y="%d">%s</text>`+"\n", y+groupSpace-10, escape(groups[i]))
		y += groupSpace
		for _, one := range g {
			one.draw(&b, y, at)
			y += rowHeight
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// gridStep is how far apart the lines of the grid are: a round number, and no
// more than about ten of them.
func gridStep(most float64) float64 {
	for step := 0.2; ; step *= 10 {
		for _, times := range []float64{1, 2.5, 5} {
			if most <= 10*times*step {
				return times * step
			}
		}
	}
}

// axis draws the grid, and a line where the anchor is.
func axis(b *strings.Builder, most, step float64, bottom int, at func(float64) float64) {
	for i := 0; float64(i)*step <= most+1e-9; i++ {
		v := float64(i) * step
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/><text x="%.1f" y="%d" text-anchor="middle">%.4g</text>`+"\n",
			at(v), at(v), plotTop, bottom, at(v), bottom+16, v)
	}
	fmt.Fprintf(b, `<line class="one" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`+"\n", at(1), at(1), plotTop, bottom)
}

func (one bar) draw(b *strings.Builder, y int, at func(float64) float64) {
	middle := y + barHeight/2
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, plotLeft-8, y+10, escape(one.label))
	fmt.Fprintf(b, `<rect class="s%d" x="%d" y="%d" width="%.1f" height="%d"/>`, one.class, plotLeft, y, at(one.Median)-plotLeft, barHeight)
	fmt.Fprintf(b, `<path class="whisker" fill="none" d="M%.1f %dH%.1fM%.1f %dv6M%.1f %dv6"/>`, at(one.Low), middle, at(one.High), at(one.Low), middle-3, at(one.High), middle-3)
	fmt.Fprintf(b, `<text x="%d" y="%d">%.3f (%.2f–%.2f)</text>`+"\n", plotRight+8, y+10, one.Median, one.Low, one.High)
}

// describe says in words what the plot shows.
func describe(groups []string, bars [][]bar) string {
	var b strings.Builder
	b.WriteString("Horizontal bars.")
	for i, g := range bars {
		fmt.Fprintf(&b, " %s:", groups[i])
		for j, one := range g {
			if j > 0 {
				b.WriteString(",")
			}
			fmt.Fprintf(&b, " %s %.3f (%.2f to %.2f)", one.label, one.Median, one.Low, one.High)
		}
		b.WriteString(".")
	}
	return b.String()
}

func escape(text string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(text)); err != nil {
		panic(err) // a strings.Builder takes everything
	}
	return b.String()
}

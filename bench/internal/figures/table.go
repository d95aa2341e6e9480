package figures

import (
	"fmt"
	"slices"
	"strings"
)

// table is the report in Markdown.
func (r Report) table(doubts []string) string {
	var b strings.Builder
	if r.Noisy {
		b.WriteString("**The machine was too noisy for these figures to be believed:**\n\n")
		for _, d := range doubts {
			fmt.Fprintf(&b, "* %s\n", d)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%s\n\n", r.Machine)
	fmt.Fprintf(&b, "× is the ratio to *%s* and + the difference to it, in the same round: median (quartiles). *%s* is the same program with the same configuration once more, "+
		"so how far it is from 1 is what the machine adds by itself. All subjects%s are the same build of Caddy. Requests to *%s* carry a cookie of the app's, as long as ours. "+
		"*%s* sets a header as long as that with a token, the same for all: the least that passing on a token takes.\n\n", r.Anchor, r.Twin, r.butPeers(), r.Anchor, r.Header)
	r.promises(&b)
	for _, c := range r.Cells() {
		r.cell(&b, c)
	}
	r.refreshes(&b)
	r.storms(&b)
	r.sizes(&b)
	all, out := r.Left()
	fmt.Fprintf(&b, "%d slots; in %d of them other processes used more than %.0f %% of a CPU", all, out, 100*LeaveOutAbove)
	if r.Noisy {
		b.WriteString(", and they count all the same.\n")
	} else {
		b.WriteString(", and they were left out.\n")
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "%s\n", n)
	}
	return b.String()
}

func (r Report) butPeers() string {
	if len(r.Peers) == 0 {
		return ""
	}
	return " but " + strings.Join(r.Peers, ", ")
}

func p50(s Slot) float64            { return micros(s.P50) }
func p99(s Slot) float64            { return micros(s.P99) }
func allocations(s Slot) float64    { return s.Allocations }
func allocatedBytes(s Slot) float64 { return s.AllocatedBytes }

// A figure of which no round is left is NaN.
const notMeasured = "NaN"

var dashes = strings.NewReplacer("+"+notMeasured, "–", notMeasured, "–")

// cell is one kind of load.
func (r Report) cell(b *strings.Builder, c Cell) {
	fmt.Fprintf(b, "### %s\n\n", c)
	b.WriteString("| | req/s | throughput × | CPU µs/req | CPU × | Redis CPU µs/req | p50 µs | + p50 µs | p99 µs | p99 × | + allocations | + bytes | rounds |\n")
	b.WriteString("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, subject := range r.Subjects(c) {
		of := func(f func(Slot) float64) float64 { return r.Of(c, subject, f).Median }
		cells := []string{
			subject,
			fmt.Sprintf("%.0f", of(Slot.Throughput)), ratio(r.Ratio(c, subject, Slot.Throughput)),
			fmt.Sprintf("%.1f", of(Slot.CPUPerRequest)), ratio(r.Ratio(c, subject, Slot.CPUPerRequest)),
			fmt.Sprintf("%.1f", of(Slot.RedisCPUPerRequest)),
			fmt.Sprintf("%.0f", of(p50)), difference(r.Difference(c, subject, p50)),
			fmt.Sprintf("%.0f", of(p99)), ratio(r.Ratio(c, subject, p99)),
			fmt.Sprintf("%+.1f", r.Difference(c, subject, allocations).Median),
			fmt.Sprintf("%+.0f", r.Difference(c, subject, allocatedBytes).Median),
			fmt.Sprint(r.Ratio(c, subject, Slot.CPUPerRequest).Rounds),
		}
		if subject == r.Anchor { // what the others come on top of
			cells[7] = ""
			cells[10], cells[11] = fmt.Sprintf("%.1f", of(allocations)), fmt.Sprintf("%.0f", of(allocatedBytes))
		}
		fmt.Fprintf(b, "| %s |\n", dashes.Replace(strings.Join(cells, " | ")))
	}
	b.WriteString("\n")
}

func ratio(s Spread) string {
	if s.Rounds == 0 {
		return notMeasured
	}
	if s.Low == s.High {
		return fmt.Sprintf("%.2f", s.Median)
	}
	return fmt.Sprintf("%.3f (%.2f–%.2f)", s.Median, s.Low, s.High)
}

func difference(s Spread) string {
	if s.Rounds == 0 {
		return notMeasured
	}
	return fmt.Sprintf("%+.0f (%+.0f to %+.0f)", s.Median, s.Low, s.High)
}

func (r Report) refreshes(b *strings.Builder) {
	if len(r.Refreshing) == 0 {
		return
	}
	b.WriteString("### Tokens that become due\n\nEach subject against itself, with as many sessions whose tokens do not.\n\n")
	b.WriteString("| | refreshes/s | CPU × | p50 × | p99 µs without | p99 µs | p99 × | rounds |\n|---|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, run := range r.Refreshing {
		for _, c := range run.Cells() {
			due := run.Anchor + Refreshing
			rate := func(s Slot) float64 { return float64(s.Refreshes) / s.Elapsed.Seconds() }
			worse := run.Ratio(c, due, p99)
			line := fmt.Sprintf("| %s | %.0f | %s | %s | %.0f | %.0f | %s | %d |\n", run.Anchor, run.Of(c, due, rate).Median,
				ratio(run.Ratio(c, due, Slot.CPUPerRequest)), ratio(run.Ratio(c, due, p50)),
				run.Of(c, run.Anchor, p99).Median, run.Of(c, due, p99).Median, ratio(worse), worse.Rounds)
			b.WriteString(dashes.Replace(line))
		}
	}
	b.WriteString("\n")
}

// RefreshTable is the part of the table that has the tokens that become due.
func (r Report) RefreshTable() string {
	var b strings.Builder
	r.refreshes(&b)
	return b.String()
}

// StormTable is the part of the table that has the storms, by subject.
func (r Report) StormTable() string {
	var b strings.Builder
	r.storms(&b)
	return b.String()
}

func (r Report) storms(b *strings.Builder) {
	if len(r.Storms) == 0 {
		return
	}
	b.WriteString("### All tokens expire in one second\n\nEvery session is asked for once, within a second, when its token has expired, and once again. A request has failed that did not reach the app with a good token; a session is lost if the second has, too.\n\n")
	b.WriteString("| | sessions | failed | refreshes | lost | server's latency ms | its p99 ms | p50 ms | p99 ms | slowest ms | p99 ms, good tokens | other processes |\n")
	b.WriteString("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, s := range slices.SortedStableFunc(slices.Values(r.Storms), bySubject) {
		crowd := "–"
		if s.CrowdP99 > 0 {
			crowd = milliseconds(s.CrowdP99)
		}
		fmt.Fprintf(b, "| %s | %s | %d | %d | %d | %s | %s | %s | %s | %s | %s | %.0f %% |\n", s.Subject, thousands(s.Sessions), s.Failed, s.Refreshes, s.Lost, milliseconds(s.Latency), milliseconds(s.IssuerP99),
			milliseconds(s.P50), milliseconds(s.P99), milliseconds(s.Max), crowd, 100*s.Strangers)
	}
	b.WriteString("\n")
}

func bySubject(a, b Storm) int { return strings.Compare(a.Subject, b.Subject) }

func (r Report) sizes(b *strings.Builder) {
	if len(r.Sizes) == 0 {
		return
	}
	b.WriteString("### What sessions take\n\nMemory above that of plain Caddy, after each session was used once. Go keeps memory that is not in use for a while. Pages of the file are the kernel's to take back.\n\n")
	b.WriteString("| | sessions | start ms | stored bytes/session | own memory MB | bytes/session | of it in use MB | pages of files MB |\n|---|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, s := range r.Sizes {
		each := func(bytes int64) string {
			if s.StoreBytes == 0 { // a few, that were logged in: what is always there would count
				return "–"
			}
			return fmt.Sprint(bytes / int64(s.Sessions))
		}
		fmt.Fprintf(b, "| %s | %s | %.0f | %s | %.1f | %s | %.1f | %.1f |\n", s.Subject, thousands(s.Sessions), float64(s.Started.Milliseconds()),
			each(s.StoreBytes), megabytes(s.Anonymous), each(s.Anonymous), megabytes(s.Live), megabytes(s.File))
	}
	b.WriteString("\n")
}

func megabytes(n int64) float64 { return float64(n) / 1e6 }

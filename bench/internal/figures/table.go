package figures

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// table is the report in Markdown.
func (r Report) table(doubts []string) string {
	var b strings.Builder
	if r.Noisy {
		fmt.Fprintf(&b, "**The machine was too noisy to trust these figures:**\n\n* %s\n\n", strings.Join(doubts, "\n* "))
	}
	builds := "All subjects"
	if r.Peer != "" {
		builds += " but " + r.Peer
	}
	fmt.Fprintf(&b, "%s\n\n× is the ratio to *%s* and + the difference to it, in the same round: median (quartiles). *%s* is the same program with the same "+
		"configuration: its distance from 1 is the noise of the machine. %s are the same build of Caddy. Requests to *%s* carry a cookie of the app that is as "+
		"long as the session cookie. *%s* sets a constant header as long as that with a token: the least that passing on a token takes.\n",
		r.Machine, r.Baseline, r.Twin, builds, r.Baseline, r.Header)
	r.budget(&b)
	for _, c := range r.Cells() {
		r.cell(&b, c)
	}
	b.WriteString(r.RefreshTables())
	r.sizes(&b)
	counted := "were left out"
	if r.Noisy {
		counted = "count, too"
	}
	fmt.Fprintf(&b, "\n%d slots; in %d of them other processes used more than %.0f %% of a CPU, and they %s.\n", len(r.Slots), r.loud(), 100*LeaveOutAbove, counted)
	return b.String() + r.Note + "\n"
}

// head writes a title, a text and the head of a table. The first column has names, the others have numbers.
func head(b *strings.Builder, title, text string, columns ...string) {
	fmt.Fprintf(b, "\n### %s\n\n%s| | %s |\n|---|%s\n", title, text, strings.Join(columns, " | "), strings.Repeat("---:|", len(columns)))
}

// row writes cells. A figure without rounds is NaN and becomes a dash.
func row(b *strings.Builder, cells ...any) {
	line := strings.Repeat("| %v ", len(cells)) + "|\n"
	b.WriteString(strings.NewReplacer("+NaN", "–", "NaN", "–").Replace(fmt.Sprintf(line, cells...)))
}

func number(format string, v float64) string { return fmt.Sprintf(format, v) }

func (r Report) cell(b *strings.Builder, c Cell) {
	head(b, c.String(), "", "req/s", "throughput ×", "CPU µs/req", "CPU ×", "Redis CPU µs/req", "p50 µs", "+ p50 µs", "p99 µs", "p99 ×",
		"+ allocations", "+ bytes", "rounds")
	for _, subject := range r.Subjects(c) {
		of := func(format string, figure func(Slot) float64) string {
			return number(format, r.Of(c, subject, figure).Median)
		}
		times := func(figure func(Slot) float64) string { return ratio(r.Ratio(c, subject, figure)) }
		added := r.Difference(c, subject, p50)
		latency := fmt.Sprintf("%+.0f (%+.0f to %+.0f)", added.Median, added.Low, added.High)
		allocated := number("%+.1f", r.Difference(c, subject, allocations).Median)
		bytes := number("%+.0f", r.Difference(c, subject, allocatedBytes).Median)
		if added.Rounds == 0 {
			latency = "NaN"
		}
		if subject == r.Baseline { // its row shows the values to which the differences are added
			latency, allocated, bytes = "", of("%.1f", allocations), of("%.0f", allocatedBytes)
		}
		row(b, subject, of("%.0f", Slot.Throughput), times(Slot.Throughput), of("%.1f", Slot.CPUPerRequest), times(Slot.CPUPerRequest), of("%.1f", redisCPU),
			of("%.0f", p50), latency, of("%.0f", p99), times(p99), allocated, bytes, r.Ratio(c, subject, Slot.CPUPerRequest).Rounds)
	}
}

func ratio(s Spread) string {
	if s.Low == s.High || math.IsNaN(s.Median) {
		return number("%.2f", s.Median)
	}
	return fmt.Sprintf("%.3f (%.2f–%.2f)", s.Median, s.Low, s.High)
}

// RefreshTables is the part of the table about refreshes: steady ones and storms.
func (r Report) RefreshTables() string {
	var b strings.Builder
	if len(r.Refreshing) > 0 {
		head(&b, "Tokens that become due", "Each subject against itself, with as many sessions whose tokens do not.\n\n",
			"refreshes/s", "CPU ×", "p50 ×", "p99 µs without", "p99 µs", "p99 ×", "rounds")
	}
	for _, run := range r.Refreshing {
		c, due := run.Slots[0].Cell, run.Baseline+Refreshing
		rate := func(s Slot) float64 { return float64(s.Refreshes) / s.Elapsed.Seconds() }
		worse := run.Ratio(c, due, p99)
		row(&b, run.Baseline, number("%.0f", run.Of(c, due, rate).Median), ratio(run.Ratio(c, due, Slot.CPUPerRequest)), ratio(run.Ratio(c, due, p50)),
			number("%.0f", run.Of(c, run.Baseline, p99).Median), number("%.0f", run.Of(c, due, p99).Median), ratio(worse), worse.Rounds)
	}
	if len(r.Storms) > 0 {
		head(&b, "All tokens expire in one second", "Each session gets one request within a second when its token has expired, and one more later. A request "+
			"has failed if it did not reach the app with a valid token; a session is lost if the second request failed, too.\n\n",
			"sessions", "failed", "refreshes", "lost", "server's latency ms", "its p99 ms", "p50 ms", "p99 ms", "slowest ms", "p99 ms, good tokens", "other processes")
	}
	bySubject := func(a, b Storm) int { return cmp.Compare(a.Subject, b.Subject) }
	for _, s := range slices.SortedStableFunc(slices.Values(r.Storms), bySubject) {
		row(&b, s.Subject, thousands(s.Sessions), s.Failed, s.Refreshes, s.Lost, millis(s.Latency), millis(s.IssuerP99),
			millis(s.P50), millis(s.P99), millis(s.Max), millis(s.CrowdP99), number("%.0f %%", 100*s.Others))
	}
	return b.String()
}

func (r Report) sizes(b *strings.Builder) {
	if len(r.Sizes) > 0 {
		head(b, "Size of sessions", "Memory above that of plain Caddy, after one use of each session. Go keeps unused memory for a while. The kernel can "+
			"reclaim pages of the file.\n\n",
			"sessions", "start ms", "stored bytes/session", "own memory MB", "bytes/session", "of it in use MB", "pages of files MB")
	}
	for _, s := range r.Sizes {
		each := func(bytes int64) string {
			if s.StoreBytes == 0 { // the few sessions of real logins are less than the constant overhead
				return "–"
			}
			return fmt.Sprint(bytes / int64(s.Sessions))
		}
		mb := func(bytes int64) string { return number("%.1f", float64(bytes)/1e6) }
		row(b, s.Subject, thousands(s.Sessions), s.Started.Milliseconds(), each(s.StoreBytes), mb(s.Anonymous), each(s.Anonymous), mb(s.Live), mb(s.File))
	}
}

func millis(d time.Duration) string { return number("%.1f", micros(d)/1000) }

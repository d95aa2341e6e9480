package figures

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A promise is a figure that must not be passed, for each subject that logs in.
type promise struct {
	what   string
	limit  func(subject string) float64
	figure func(r Report, subject string) Spread
	format string
	least  bool // the limit is the least, not the most
}

func always(limit float64) func(string) float64 { return func(string) float64 { return limit } }

// budget is what the project has set itself, against plain reverse_proxy.
var budget = []promise{
	{
		what: "CPU for each request, 16 at a time, ×", format: "%.3f",
		// Redis tells instances about changes, which takes a connection to be
		// looked after.
		limit: func(subject string) float64 {
			if subject == "redis" {
				return 1.08
			}
			return 1.05
		},
		figure: func(r Report, s string) Spread { return r.Ratio(r.Gate, s, Slot.CPUPerRequest) },
	},
	{
		what: "throughput, 16 at a time, ×", format: "%.3f", limit: always(0.95), least: true,
		figure: func(r Report, s string) Spread { return r.Ratio(r.Gate, s, Slot.Throughput) },
	},
	{
		what: "added p50, 1 at a time, µs", format: "%+.0f", limit: always(15),
		figure: func(r Report, s string) Spread {
			one := r.Gate
			one.Concurrency = 1
			return r.Difference(one, s, p50)
		},
	},
	{
		what: "added allocations for each request", format: "%+.1f", limit: always(12),
		figure: func(r Report, s string) Spread {
			return r.Difference(r.Gate, s, allocations)
		},
	},
	{
		what: "added bytes for each request", format: "%+.0f", limit: always(2048),
		figure: func(r Report, s string) Spread {
			return r.Difference(r.Gate, s, allocatedBytes)
		},
	},
	{
		what: "p99 while tokens become due, × of the run in which none does", format: "%.2f", limit: always(1.2),
		figure: func(r Report, s string) Spread {
			for _, run := range r.Refreshing {
				if run.Anchor == s && len(run.Slots) > 0 {
					return run.Ratio(run.Slots[0].Cell, s+Refreshing, p99)
				}
			}
			return spreadOf(nil)
		},
	},
	{
		what: "p99 of many sessions whose tokens expire in one second, × of the authorization server's latency", format: "%.1f", limit: always(2),
		figure: func(r Report, s string) Spread {
			var ratios []float64
			for _, storm := range r.Storms {
				if storm.Subject == s {
					ratios = append(ratios, float64(storm.P99)/float64(storm.Latency))
				}
			}
			return spreadOf(ratios)
		},
	},
}

// kept reports whether a median keeps the limit. NaN does not.
func (p promise) kept(median, limit float64) bool {
	if p.least {
		return median >= limit
	}
	return median <= limit
}

// promises compares the run with the budget.
func (r Report) promises(b *strings.Builder) {
	b.WriteString("### Budget\n\n| | subject | limit | median (quartiles) | |\n|---|---|---:|---:|---|\n")
	for _, p := range budget {
		for _, subject := range r.Subjects(r.Gate) {
			if subject == r.Anchor || subject == r.Twin || subject == r.Header || slices.Contains(r.Peers, subject) {
				continue
			}
			s := p.figure(r, subject)
			if math.IsNaN(s.Median) {
				continue
			}
			limit, verdict := p.limit(subject), "kept"
			if !p.kept(s.Median, limit) {
				verdict = "**not kept**"
			}
			fmt.Fprintf(b, "| %s | %s | %g | "+p.format+" ("+p.format+"–"+p.format+") | %s |\n", p.what, subject, limit, s.Median, s.Low, s.High, verdict)
		}
	}
	b.WriteString("\n")
}

// milliseconds is for tables.
func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond))
}

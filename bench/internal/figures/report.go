package figures

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
)

// A Report is a run with its circumstances.
type Report struct {
	Run
	Twin       string // a second instance of the baseline
	Header     string // the baseline with a header as long as that with a token
	Peer       string // another login proxy, to which the budget does not apply; "": none
	Gate       Cell   // the cell that decides whether the machine was quiet
	GateRounds int
	Machine    string
	Note       string // the last line

	Refreshing []Run // each compares a subject to itself, with and without tokens that become due
	Storms     []Storm
	Sizes      []Size
}

// The largest accepted distance between 1 and the median of the twin, and between its quartiles.
const twinMedian, twinRange = 0.03, 0.25

// Doubts returns the reasons to distrust the run: too few quiet rounds of the gate, or a twin that
// differs too much from the baseline. It compares CPU per request, the steadiest figure.
func (r Report) Doubts() (doubts []string) {
	quiet := r.Run
	quiet.Noisy = false
	for _, subject := range r.Subjects(r.Gate) {
		if left := quiet.Ratio(r.Gate, subject, Slot.CPUPerRequest).Rounds; 2*left < r.GateRounds {
			doubts = append(doubts, fmt.Sprintf("%s: %d of %d rounds are left, because other processes used more than %.0f %% of a CPU in the others",
				subject, left, r.GateRounds, 100*LeaveOutAbove))
		}
	}
	twin := quiet.Ratio(r.Gate, r.Twin, Slot.CPUPerRequest)
	if twin.Median < 1-twinMedian || twin.Median > 1+twinMedian {
		doubts = append(doubts, fmt.Sprintf("the same program against itself takes %.3f times the CPU in the median; %.2f to %.2f is accepted",
			twin.Median, 1-twinMedian, 1+twinMedian))
	}
	if twin.High-twin.Low > twinRange {
		doubts = append(doubts, fmt.Sprintf("the same program against itself takes %.2f to %.2f times the CPU in half of the rounds; a range of %.2f is accepted",
			twin.Low, twin.High, twinRange))
	}
	return doubts
}

// Print prints the report. If there are doubts about the run, it fails unless forced to print.
func (r Report) Print(force bool) {
	doubts := r.Doubts()
	r.Noisy = len(doubts) > 0
	if r.Noisy && !force {
		check.Failf("the machine was too noisy; no table is printed (-force prints it)\n%d of %d slots were left out\n%s",
			r.loud(), len(r.Slots), strings.Join(doubts, "\n"))
	}
	for i := range r.Refreshing {
		r.Refreshing[i].Noisy = r.Noisy
	}
	fmt.Print(r.table(doubts))
}

// A limit bounds one figure of each subject of this project.
type limit struct {
	name    string
	value   float64
	redis   float64 // if not 0, the value for Redis
	least   bool    // the value is a minimum, otherwise a maximum
	format  string
	measure func(r Report, subject string) Spread
}

// budget holds the limits of the project, compared to plain reverse_proxy.
var budget = []limit{
	// With Redis each change of a session arrives over a connection, which costs CPU time, too.
	{name: "CPU for each request, 16 at a time, ×", value: 1.05, redis: 1.08, format: "%.3f",
		measure: func(r Report, s string) Spread { return r.Ratio(r.Gate, s, Slot.CPUPerRequest) }},
	{name: "throughput, 16 at a time, ×", value: 0.95, least: true, format: "%.3f",
		measure: func(r Report, s string) Spread { return r.Ratio(r.Gate, s, Slot.Throughput) }},
	{name: "added p50, 1 at a time, µs", value: 15, format: "%+.0f", measure: func(r Report, s string) Spread {
		one := r.Gate
		one.Concurrency = 1
		return r.Difference(one, s, p50)
	}},
	{name: "added allocations for each request", value: 12, format: "%+.1f",
		measure: func(r Report, s string) Spread { return r.Difference(r.Gate, s, allocations) }},
	{name: "added bytes for each request", value: 2048, format: "%+.0f",
		measure: func(r Report, s string) Spread { return r.Difference(r.Gate, s, allocatedBytes) }},
	{name: "p99 while tokens become due, × of the run in which none does", value: 1.2, format: "%.2f",
		measure: func(r Report, s string) Spread {
			for _, run := range r.Refreshing {
				if run.Baseline == s && len(run.Slots) > 0 {
					return run.Ratio(run.Slots[0].Cell, s+Refreshing, p99)
				}
			}
			return SpreadOf(nil)
		}},
	{name: "p99 of many sessions whose tokens expire in one second, × of the authorization server's latency", value: 2, format: "%.1f",
		measure: func(r Report, s string) Spread {
			var ratios []float64
			for _, storm := range r.Storms {
				if storm.Subject == s {
					ratios = append(ratios, float64(storm.P99)/float64(storm.Latency))
				}
			}
			return SpreadOf(ratios)
		}},
}

// budget compares the run to the limits.
func (r Report) budget(b *strings.Builder) {
	b.WriteString("\n### Budget\n\n| | subject | limit | median (quartiles) | |\n|---|---|---:|---:|---|\n")
	for _, l := range budget {
		for _, subject := range r.Subjects(r.Gate) {
			s := l.measure(r, subject)
			if slices.Contains([]string{r.Baseline, r.Twin, r.Header, r.Peer}, subject) || math.IsNaN(s.Median) {
				continue
			}
			value, verdict := l.value, "kept"
			if subject == "redis" && l.redis != 0 {
				value = l.redis
			}
			if l.least && s.Median < value || !l.least && s.Median > value {
				verdict = "**not kept**"
			}
			fmt.Fprintf(b, "| %s | %s | %g | "+l.format+" ("+l.format+"–"+l.format+") | %s |\n", l.name, subject, value, s.Median, s.Low, s.High, verdict)
		}
	}
}

// Package figures turns measurements into a report: ratios with their spread, a check that the
// machine was quiet, and a table.
package figures

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// LeaveOutAbove is the CPU share of other processes above which a slot is left out of the figures.
const LeaveOutAbove = 0.15

// Refreshing ends the name of a subject in slots during which its tokens become due.
const Refreshing = ", tokens become due"

// A Cell is one kind of load.
type Cell struct {
	Sessions    int
	HTTP2       bool
	Size        int // of an answer in bytes
	Concurrency int
}

// String is the heading of the cell.
func (c Cell) String() string {
	protocol, sessions := "HTTP/1.1", "1 session"
	if c.HTTP2 {
		protocol = "HTTP/2"
	}
	if c.Sessions != 1 {
		sessions = thousands(c.Sessions) + " sessions"
	}
	return fmt.Sprintf("%s, %s B, %d at a time, %s", protocol, thousands(c.Size), c.Concurrency, sessions)
}

// thousands groups digits.
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// A Slot is one measurement of one subject.
type Slot struct {
	Cell    Cell
	Subject string
	Round   int

	Requests int           // recorded
	Elapsed  time.Duration // of the recording
	CPU      time.Duration // of the subject's process during the recording
	RedisCPU time.Duration
	P50, P99 time.Duration
	// Allocations and AllocatedBytes are per request.
	Allocations, AllocatedBytes float64
	Refreshes                   int     // of tokens during the recording
	Others                      float64 // largest share of a CPU that other processes used
}

// Quiet reports whether the slot counts.
func (s Slot) Quiet() bool { return s.Others <= LeaveOutAbove }

// Throughput is in requests per second.
func (s Slot) Throughput() float64 { return float64(s.Requests) / s.Elapsed.Seconds() }

// CPUPerRequest is in microseconds.
func (s Slot) CPUPerRequest() float64 { return micros(s.CPU) / float64(s.Requests) }

func redisCPU(s Slot) float64       { return micros(s.RedisCPU) / float64(s.Requests) }
func p50(s Slot) float64            { return micros(s.P50) }
func p99(s Slot) float64            { return micros(s.P99) }
func allocations(s Slot) float64    { return s.Allocations }
func allocatedBytes(s Slot) float64 { return s.AllocatedBytes }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// A Storm is one measurement of many sessions whose tokens expire within one second.
type Storm struct {
	Subject  string
	Sessions int
	Latency  time.Duration // of the authorization server, at least
	// Failed counts the requests that did not reach the app with a valid token, Lost the sessions of
	// which the next request failed, too.
	Failed, Lost  int
	Refreshes     int
	P50, P99, Max time.Duration // of all requests
	IssuerP99     time.Duration // of the authorization server under this load
	CrowdP99      time.Duration // of the same number of requests with valid tokens
	Others        float64       // share of a CPU that other processes used
}

// A Size is the memory and disk space of the sessions of a subject.
type Size struct {
	Subject    string
	Sessions   int
	Started    time.Duration // until the subject served with these sessions
	StoreBytes int64         // of all sessions in the file or in the memory of Redis
	// Anonymous and File are the process memory above that of plain Caddy in bytes, after one use of
	// each session. Live is the part of Anonymous that is in use.
	Anonymous, File, Live int64
}

// A Spread summarizes a figure of several rounds: the median and the quartiles, or the smallest and
// the largest value of up to four rounds.
type Spread struct {
	Median, Low, High float64
	Rounds            int
}

// SpreadOf summarizes values. Without values all figures are NaN.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{Median: math.NaN(), Low: math.NaN(), High: math.NaN()}
	}
	v := slices.Sorted(slices.Values(values))
	half := len(v) / 2
	median := v[half]
	if len(v)%2 == 0 {
		median = (v[half-1] + v[half]) / 2
	}
	outside := (len(v) - 1) / 4
	return Spread{Median: median, Low: v[outside], High: v[len(v)-1-outside], Rounds: len(v)}
}

// A Run holds all slots.
type Run struct {
	Baseline string // the subject to which the others are compared
	Slots    []Slot
	Noisy    bool // slots that were not quiet count, too
}

// slots returns the slots of a subject that count.
func (r Run) slots(c Cell, subject string) (slots []Slot) {
	for _, s := range r.Slots {
		if s.Cell == c && s.Subject == subject && (r.Noisy || s.Quiet()) {
			slots = append(slots, s)
		}
	}
	return slots
}

// Of summarizes a figure of a subject.
func (r Run) Of(c Cell, subject string, figure func(Slot) float64) Spread {
	var values []float64
	for _, s := range r.slots(c, subject) {
		values = append(values, figure(s))
	}
	return SpreadOf(values)
}

// Ratio summarizes a figure of a subject, divided by that of the baseline in the same round.
func (r Run) Ratio(c Cell, subject string, figure func(Slot) float64) Spread {
	return r.compare(c, subject, func(s, baseline Slot) float64 { return figure(s) / figure(baseline) })
}

// Difference summarizes a figure of a subject, minus that of the baseline in the same round.
func (r Run) Difference(c Cell, subject string, figure func(Slot) float64) Spread {
	return r.compare(c, subject, func(s, baseline Slot) float64 { return figure(s) - figure(baseline) })
}

func (r Run) compare(c Cell, subject string, compared func(s, baseline Slot) float64) Spread {
	var values []float64
	for _, s := range r.slots(c, subject) {
		for _, baseline := range r.slots(c, r.Baseline) {
			if baseline.Round == s.Round {
				values = append(values, compared(s, baseline))
			}
		}
	}
	return SpreadOf(values)
}

// Cells returns the kinds of load in the order of measurement.
func (r Run) Cells() (cells []Cell) {
	for _, s := range r.Slots {
		if !slices.Contains(cells, s.Cell) {
			cells = append(cells, s.Cell)
		}
	}
	return cells
}

// Subjects returns the subjects of a cell: the baseline first, then the others in the order of the
// first round.
func (r Run) Subjects(c Cell) []string {
	subjects := []string{r.Baseline}
	for _, s := range r.Slots {
		if s.Cell == c && !slices.Contains(subjects, s.Subject) {
			subjects = append(subjects, s.Subject)
		}
	}
	return subjects
}

// loud returns the number of slots that were not quiet.
func (r Run) loud() int {
	return len(slices.DeleteFunc(slices.Clone(r.Slots), Slot.Quiet))
}

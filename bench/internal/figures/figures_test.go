package figures

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
)

var gate = Cell{Sessions: 1, Size: 200, Concurrency: 16}

// slot took a number of microseconds of CPU for each of 1000 requests.
func slot(subject string, round int, cpu float64, others float64) Slot {
	return Slot{
		Cell: gate, Subject: subject, Round: round, Requests: 1000, Elapsed: time.Second,
		CPU: time.Duration(cpu * 1000 * float64(time.Microsecond)), P50: time.Duration(cpu) * time.Microsecond, P99: time.Millisecond,
		Allocations: 200, AllocatedBytes: 17000, Others: others,
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 || math.IsNaN(a) && math.IsNaN(b) }

func TestSpreadIsMedianAndQuartiles(t *testing.T) {
	for _, tc := range []struct {
		values []float64
		want   Spread
	}{
		{nil, Spread{math.NaN(), math.NaN(), math.NaN(), 0}},
		{[]float64{3}, Spread{3, 3, 3, 1}},
		{[]float64{3, 1, 2}, Spread{2, 1, 3, 3}},
		{[]float64{4, 1, 3, 2}, Spread{2.5, 1, 4, 4}},
		{[]float64{9, 8, 7, 6, 5, 4, 3, 2, 1}, Spread{5, 3, 7, 9}},
	} {
		got := SpreadOf(tc.values)
		if !near(got.Median, tc.want.Median) || !near(got.Low, tc.want.Low) || !near(got.High, tc.want.High) || got.Rounds != tc.want.Rounds {
			t.Errorf("%v: got %v, want %v", tc.values, got, tc.want)
		}
	}
}

func TestRatioPairsQuietSlotsOfARound(t *testing.T) {
	otherCell := slot("bolt", 0, 900, 0)
	otherCell.Cell.Concurrency = 1
	r := Run{Baseline: "plain", Slots: []Slot{
		slot("plain", 0, 100, 0), slot("bolt", 0, 110, 0), otherCell,
		slot("bolt", 1, 240, 0.15), slot("plain", 1, 200, 0), // in any order
		slot("plain", 2, 100, 0.16), slot("bolt", 2, 500, 0),
		slot("plain", 3, 100, 0), slot("bolt", 3, 500, 0.5),
		slot("bolt", 4, 500, 0), // without a baseline
	}}
	got := r.Ratio(gate, "bolt", Slot.CPUPerRequest)
	if !near(got.Median, 1.15) || !near(got.Low, 1.1) || !near(got.High, 1.2) || got.Rounds != 2 {
		t.Errorf("got ratio %v, want 1.15 (1.1 to 1.2) of 2 rounds", got)
	}
	if got := r.Difference(gate, "bolt", p50); !near(got.Median, 25) || got.Rounds != 2 {
		t.Errorf("got difference %v, want 25 of 2 rounds", got)
	}
	if got := r.loud(); got != 2 {
		t.Errorf("got %d slots left out, want 2", got)
	}
	r.Noisy = true
	if got := r.Ratio(gate, "bolt", Slot.CPUPerRequest); got.Rounds != 4 || !near(got.High, 5) {
		t.Errorf("noisy: got ratio %v, want up to 5 of 4 rounds", got)
	}
}

// report has n rounds of plain, its twin and bolt; in the first loud ones bolt does not count.
func report(n int, twin func(round int) float64, loud int) Report {
	r := Report{Run: Run{Baseline: "plain"}, Twin: "plain again", Gate: gate, GateRounds: n, Machine: "a machine"}
	for round := range n {
		others := 0.01
		if round < loud {
			others = 0.4
		}
		r.Slots = append(r.Slots, slot("plain", round, 100, 0), slot("plain again", round, 100*twin(round), 0), slot("bolt", round, 104, others))
	}
	return r
}

func same(int) float64 { return 1 }

func TestDoubtsNeedANoisyMachine(t *testing.T) {
	for _, tc := range []struct {
		name   string
		report Report
		want   string // "": no doubt
	}{
		{"quiet", report(8, same, 0), ""},
		{"half of the rounds are left", report(8, same, 4), ""},
		{"fewer are left", report(8, same, 5), "bolt: 3 of 8 rounds are left"},
		{"a slower twin", report(8, func(int) float64 { return 1.04 }, 0), "1.040 times the CPU in the median"},
		{"a faster twin", report(8, func(int) float64 { return 0.96 }, 0), "0.960 times"},
		{"an unsteady twin", report(9, func(r int) float64 { return 1 + 0.13*float64(r%3-1) }, 0), "0.87 to 1.13 times"},
		{"a steady twin", report(9, func(r int) float64 { return 1 + 0.12*float64(r%3-1) }, 0), ""},
	} {
		got := tc.report.Doubts()
		if (len(got) == 0) != (tc.want == "") || !strings.Contains(strings.Join(got, "\n"), tc.want) {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestNoisyRunIsPrintedOnlyWhenForced(t *testing.T) {
	noisy := report(4, same, 4)
	if err := check.Run(func() { noisy.Print(false) }); err == nil || !strings.Contains(err.Error(), "4 of 12 slots were left out") {
		t.Errorf("got error %v, want one with the slots that were left out", err)
	}
	if err := check.Run(func() { noisy.Print(true) }); err != nil {
		t.Errorf("forced: got error %v", err)
	}
}

func TestTableShowsAllFigures(t *testing.T) {
	r := report(3, same, 0)
	alone, loud := slot("plain", 0, 100, 0), slot("bolt", 0, 100, 1)
	alone.Cell.HTTP2, loud.Cell.HTTP2 = true, true
	r.Slots = append(r.Slots, alone, loud, slot("peer", 0, 300, 0))
	r.Peer = "peer"
	r.Storms = []Storm{
		{Subject: "peer", Sessions: 1000, Failed: 3, Refreshes: 1004, Lost: 2, Latency: 50 * time.Millisecond, P99: 400 * time.Millisecond},
		{Subject: "bolt", Sessions: 1000, Refreshes: 1000, Latency: 50 * time.Millisecond, P99: 125 * time.Millisecond, CrowdP99: 2 * time.Millisecond},
	}
	r.Sizes = []Size{{Subject: "bolt", Sessions: 10_000, StoreBytes: 42_000_000, Anonymous: 31_000_000}, {Subject: "redis", Sessions: 1}}
	due := slot("bolt"+Refreshing, 0, 105, 0)
	due.Refreshes, due.P99 = 30, 3*time.Millisecond
	r.Refreshing = []Run{{Baseline: "bolt", Slots: []Slot{slot("bolt", 0, 100, 0), due}}}
	got := r.table(nil)
	for _, want := range []string{
		"### HTTP/1.1, 200 B, 16 at a time, 1 session\n",
		"All subjects but peer are the same",
		"| CPU for each request, 16 at a time, × | bolt | 1.05 | 1.040 (1.040–1.040) | kept |",
		"| throughput, 16 at a time, × | bolt | 0.95 | 1.000 (1.000–1.000) | kept |",
		"× of the authorization server's latency | bolt | 2 | 2.5 (2.5–2.5) | **not kept** |",
		"× of the run in which none does | bolt | 1.2 | 3.00 (3.00–3.00) | **not kept** |",
		"| peer | 1000 | 1.00 | 300.0 | 3.00 |",
		"| bolt | 30 | 1.05 | 1.05 | 1000 | 3000 | 3.00 | 1 |",
		"| bolt | 10,000 | 0 | 4200 | 31.0 | 3100 | 0.0 | 0.0 |",
		"| redis | 1 | 0 | – |",
		"| bolt | 1,000 | 0 | 1000 | 0 | 50.0 | 0.0 | 0.0 | 125.0 | 0.0 | 2.0 | 0 % |\n| peer | 1,000 | 3 | 1004 | 2 | 50.0 | 0.0 | 0.0 | 400.0 | 0.0 | 0.0 | 0 % |",
		"| bolt | – | – |", // of a cell without quiet slots
	} {
		if !strings.Contains(got, want) {
			t.Errorf("want %q in\n%s", want, got)
		}
	}
	for _, unwanted := range []string{"NaN", "noisy", "× | peer"} {
		if strings.Contains(got, unwanted) {
			t.Errorf("want no %q in\n%s", unwanted, got)
		}
	}
}

package figures

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var gate = Cell{Sessions: 1, Size: 200, Concurrency: 16}

// slot took so many microseconds of CPU for each of its 1000 requests.
func slot(subject string, round int, cpu float64, strangers float64) Slot {
	return Slot{
		Cell: gate, Subject: subject, Round: round, Requests: 1000, Elapsed: time.Second,
		CPU: time.Duration(cpu * 1000 * float64(time.Microsecond)), P50: time.Duration(cpu) * time.Microsecond, P99: time.Millisecond,
		Allocations: 200, AllocatedBytes: 17000, Strangers: strangers, Tries: 1,
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 || math.IsNaN(a) && math.IsNaN(b) }

func TestSpreadOf(t *testing.T) {
	for _, tc := range []struct {
		values []float64
		want   Spread
	}{
		{nil, Spread{math.NaN(), math.NaN(), math.NaN(), 0}},
		{[]float64{3}, Spread{3, 3, 3, 1}},
		{[]float64{3, 1, 2}, Spread{2, 1, 3, 3}},
		{[]float64{4, 1, 3, 2}, Spread{2.5, 1, 4, 4}},
	} {
		got := spreadOf(tc.values)
		if !near(got.Median, tc.want.Median) || !near(got.Low, tc.want.Low) || !near(got.High, tc.want.High) || got.Rounds != tc.want.Rounds {
			t.Errorf("%v: got %v, want %v", tc.values, got, tc.want)
		}
	}
}

// TestRatio pairs slots of one round, and leaves out those in which either was
// disturbed.
func TestRatio(t *testing.T) {
	other := slot("bolt", 0, 900, 0)
	other.Cell.Concurrency = 1
	r := Run{Anchor: "plain", Slots: []Slot{
		slot("plain", 0, 100, 0), slot("bolt", 0, 110, 0), other,
		slot("bolt", 1, 240, 0.15), slot("plain", 1, 200, 0), // in any order
		slot("plain", 2, 100, 0.16), slot("bolt", 2, 500, 0),
		slot("plain", 3, 100, 0), slot("bolt", 3, 500, 0.5),
		slot("bolt", 4, 500, 0), // without an anchor
	}}
	got := r.Ratio(gate, "bolt", Slot.CPUPerRequest)
	if !near(got.Median, 1.15) || !near(got.Low, 1.1) || !near(got.High, 1.2) || got.Rounds != 2 {
		t.Errorf("got %v", got)
	}
	if got := r.Difference(gate, "bolt", p50); !near(got.Median, 25) || got.Rounds != 2 {
		t.Errorf("the difference is %v", got)
	}
	r.Noisy = true
	if got := r.Ratio(gate, "bolt", Slot.CPUPerRequest); got.Rounds != 4 || !near(got.High, 5) {
		t.Errorf("with disturbed ones: %v", got)
	}
	if all, out := r.Left(); all != 10 || out != 2 {
		t.Errorf("%d of %d are left out", out, all)
	}
}

// rounds are those of plain, its twin and bolt. disturbed says which do not
// count.
func rounds(n int, twin func(round int) float64, disturbed func(round int) bool) Report {
	r := Report{Run: Run{Anchor: "plain"}, Twin: "plain again", Gate: gate, GateRounds: n, Machine: "a machine"}
	for round := range n {
		strangers := 0.01
		if disturbed(round) {
			strangers = 0.4
		}
		r.Slots = append(r.Slots, slot("plain", round, 100, 0), slot("plain again", round, 100*twin(round), 0), slot("bolt", round, 104, strangers))
	}
	return r
}

func TestDoubts(t *testing.T) {
	never := func(int) bool { return false }
	same := func(int) float64 { return 1 }
	for _, tc := range []struct {
		name   string
		report Report
		doubt  string // ""; none
	}{
		{"quiet", rounds(8, same, never), ""},
		{"half of the rounds are left", rounds(8, same, func(r int) bool { return r < 4 }), ""},
		{"fewer are left", rounds(8, same, func(r int) bool { return r < 5 }), "bolt: 3 of 8 rounds are left"},
		{"the twin is off", rounds(8, func(int) float64 { return 1.04 }, never), "1.040 times the CPU in the median"},
		{"the twin is off, downwards", rounds(8, func(int) float64 { return 0.96 }, never), "0.960 times"},
		{"the twin is unsteady", rounds(9, func(r int) float64 { return 1 + 0.13*float64(r%3-1) }, never), "0.87 to 1.13 times"},
		{"the twin is steady enough", rounds(9, func(r int) float64 { return 1 + 0.12*float64(r%3-1) }, never), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			doubts := tc.report.Doubts()
			if (len(doubts) == 0) != (tc.doubt == "") || !strings.Contains(strings.Join(doubts, "\n"), tc.doubt) {
				t.Errorf("got %q", doubts)
			}
		})
	}
}

func TestWrite(t *testing.T) {
	noisy := rounds(4, func(int) float64 { return 1 }, func(int) bool { return true })
	dir := t.TempDir()
	if err := noisy.Write(dir, false); !errors.Is(err, ErrNoisy) || !strings.Contains(err.Error(), "4 of 12 slots were left out") {
		t.Errorf("a noisy run: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "table.md")); err == nil {
		t.Error("a noisy run has a table")
	}
	if _, err := os.Stat(filepath.Join(dir, "raw.json")); err != nil {
		t.Error("the figures of a noisy run are lost")
	}
	if err := noisy.Write(dir, true); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"table.md", "plot.svg"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(text), "noisy") {
			t.Errorf("%s does not say that the machine was noisy: %v", name, err)
		}
	}
}

func TestTable(t *testing.T) {
	r := rounds(3, func(int) float64 { return 1 }, func(int) bool { return false })
	lonely := slot("plain", 0, 100, 0)
	lonely.Cell.HTTP2 = true
	disturbed := slot("bolt", 0, 100, 1)
	disturbed.Cell.HTTP2 = true
	r.Slots = append(r.Slots, lonely, disturbed)
	r.Storms = []Storm{
		{Subject: "peer", Sessions: 1000, Failed: 3, Refreshes: 1004, Lost: 2, Latency: 50 * time.Millisecond, P99: 400 * time.Millisecond},
		{Subject: "bolt", Sessions: 1000, Refreshes: 1000, Latency: 50 * time.Millisecond, P99: 125 * time.Millisecond, CrowdP99: 2 * time.Millisecond},
	}
	r.Sizes = []Size{{Subject: "bolt", Sessions: 10_000, StoreBytes: 42_000_000, Anonymous: 31_000_000}, {Subject: "redis", Sessions: 1}}
	due := slot("bolt"+Refreshing, 0, 105, 0)
	due.Refreshes, due.P99 = 30, 3*time.Millisecond
	r.Refreshing = []Run{{Anchor: "bolt", Slots: []Slot{slot("bolt", 0, 100, 0), due}}}
	got := r.table(nil)
	for _, want := range []string{
		"### HTTP/1.1, 200 B, 16 at a time, 1 session\n",
		"| CPU for each request, 16 at a time, × | bolt | 1.05 | 1.040 (1.040–1.040) | kept |",
		"| throughput, 16 at a time, × | bolt | 0.95 | 1.000 (1.000–1.000) | kept |",
		"× of the authorization server's latency | bolt | 2 | 2.5 (2.5–2.5) | **not kept** |",
		"× of the run in which none does | bolt | 1.2 | 3.00 (3.00–3.00) | **not kept** |",
		"| bolt | 30 | 1.05 | 1.05 | 1000 | 3000 | 3.00 | 1 |",
		"| bolt | 10,000 | 0 | 4200 | 31.0 | 3100 | 0.0 | 0.0 |",
		"| redis | 1 | 0 | – |",
		"| bolt | 1,000 | 0 | 1000 | 0 | 50.0 | 0.0 | 0.0 | 125.0 | 0.0 | 2.0 | 0 % |\n| peer | 1,000 | 3 | 1004 | 2 | 50.0 | 0.0 | 0.0 | 400.0 | 0.0 | – | 0 % |",
		"| bolt | – | – |", // nothing is left of the disturbed cell
	} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "NaN") || strings.Contains(got, "noisy") {
		t.Errorf("got\n%s", got)
	}
}

// TestPeers has them in the table, and neither in the budget nor in the plot.
func TestPeers(t *testing.T) {
	r := rounds(2, func(int) float64 { return 1 }, func(int) bool { return false })
	r.Slots = append(r.Slots, slot("other", 0, 300, 0), slot("other", 1, 300, 0))
	if !strings.Contains(r.promised(), "| other |") || !strings.Contains(r.plot(), "other 3.000") {
		t.Fatalf("a subject of ours is not judged:\n%s", r.promised())
	}
	r.Peers = []string{"other"}
	if got := r.promised(); strings.Contains(got, "other") || !strings.Contains(got, "| bolt |") {
		t.Errorf("the budget:\n%s", got)
	}
	if strings.Contains(r.plot(), "other") {
		t.Error("a peer is in the plot")
	}
	if got := r.table(nil); !strings.Contains(got, "All subjects but other are the same") || !strings.Contains(got, "| other | 1000 | 1.00 | 300.0 | 3.00 |") {
		t.Errorf("the table:\n%s", got)
	}
}

// promised is the part of the table about the budget.
func (r Report) promised() string {
	var b strings.Builder
	r.promises(&b)
	return b.String()
}

// TestPlot is well-formed, and every number in it is one.
func TestPlot(t *testing.T) {
	r := rounds(3, func(round int) float64 { return 0.9 + 0.1*float64(round) }, func(int) bool { return false })
	odd := slot("<&>", 0, 5000, 0)
	r.Slots = append(r.Slots, odd)
	other := slot("plain", 0, 100, 0)
	other.Cell.HTTP2 = true
	r.Slots = append(r.Slots, other) // a cell with nothing to compare
	svg := r.plot()
	elements := map[string]int{}
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if e, ok := token.(xml.StartElement); ok {
			elements[e.Name.Local]++
		}
	}
	if elements["title"] != 1 || elements["desc"] != 1 || elements["rect"] != 3 || elements["path"] != 3 {
		t.Errorf("there are %v", elements)
	}
	if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Errorf("not all numbers are some in\n%s", svg)
	}
	if !strings.Contains(svg, "plain again 1.000 (0.90 to 1.10)") || !strings.Contains(svg, "prefers-color-scheme:dark") {
		t.Errorf("the description is not in\n%s", svg)
	}
}

func TestGridStep(t *testing.T) {
	for most, want := range map[float64]float64{1: 0.2, 2: 0.2, 2.1: 0.5, 5.1: 1, 11: 2, 50: 5, 51: 10} {
		if got := gridStep(most); !near(got, want) {
			t.Errorf("up to %v: %v, want %v", most, got, want)
		}
	}
}

func TestCellString(t *testing.T) {
	for c, want := range map[Cell]string{
		gate: "HTTP/1.1, 200 B, 16 at a time, 1 session",
		{Sessions: 1_000_000, HTTP2: true, Size: 10240, Concurrency: 1}: "HTTP/2, 10,240 B, 1 at a time, 1,000,000 sessions",
	} {
		if got := c.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

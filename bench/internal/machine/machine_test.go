package machine

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const stat = `cpu  30 3 60 1000 7 2 8 20 0 0
cpu0 10 1 20 500 3 1 2 15 0 0
cpu1 20 2 40 500 4 1 6 5 0 0
intr 1 2 3
ctxt 4
`

func TestParseStat(t *testing.T) {
	for _, tc := range []struct {
		name     string
		text     string
		irqApart bool
		want     []time.Duration // nil: an error
	}{
		{"interrupts are on the bill of a process", stat, false, []time.Duration{490 * time.Millisecond, 740 * time.Millisecond}},
		{"interrupts apart", stat, true, []time.Duration{460 * time.Millisecond, 670 * time.Millisecond}},
		{"no CPU", "intr 1 2 3\n", false, nil},
		{"a CPU is off", strings.Replace(stat, "cpu1", "cpu2", 1), false, nil},
		{"not a number", strings.Replace(stat, "500", "x", 1), false, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseStat(tc.text, tc.irqApart)
			if (err != nil) != (tc.want == nil) {
				t.Fatalf("error %v", err)
			}
			for i := range tc.want {
				if got[i] != tc.want[i] {
					t.Errorf("CPU %d was busy for %v, want %v", i, got[i], tc.want[i])
				}
			}
		})
	}
}

func TestStrangers(t *testing.T) {
	begun := time.Now()
	at := func(ms int, busy, known map[int]int) snapshot {
		s := snapshot{at: begun.Add(time.Duration(ms) * time.Millisecond), busy: map[int]time.Duration{}, known: map[int]time.Duration{}}
		for cpu, ms := range busy {
			s.busy[cpu] = time.Duration(ms) * time.Millisecond
		}
		for cpu, ms := range known {
			s.known[cpu] = time.Duration(ms) * time.Millisecond
		}
		return s
	}
	for _, tc := range []struct {
		name     string
		from, to snapshot
		want     float64
	}{
		{"nobody", at(0, map[int]int{0: 5, 1: 9}, map[int]int{0: 2, 1: 3}), at(1000, map[int]int{0: 905, 1: 509}, map[int]int{0: 902, 1: 503}), 0},
		{"the busier CPU counts", at(0, nil, nil), at(1000, map[int]int{0: 300, 1: 900}, map[int]int{0: 50, 1: 800}), 0.25},
		{"what was before does not count", at(0, map[int]int{0: 1000}, map[int]int{0: 600}), at(1000, map[int]int{0: 1700}, map[int]int{0: 1050}), 0.25},
		{"less than known, for the ticks are coarse", at(0, nil, nil), at(1000, map[int]int{0: 300}, map[int]int{0: 305}), 0},
		{"more than there is", at(0, nil, nil), at(100, map[int]int{0: 110}, nil), 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := strangers(tc.from, tc.to); got < tc.want-1e-9 || got > tc.want+1e-9 {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestParseStatus(t *testing.T) {
	got, err := parseStatus("Name:\tcaddy\nVmRSS:\t  59000 kB\nRssAnon:\t   30 kB\nRssFile:\t    4 kB\nRssShmem:\t0 kB\n")
	if want := (Memory{Anonymous: 30 << 10, File: 4 << 10}); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "RssAnon:\t30 kB\n", "RssAnon:\tx kB\nRssFile:\t4 kB\n", "RssAnon:\t3 MB\nRssFile:\t4 kB\n"} {
		if _, err := parseStatus(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestProcess reads the figures of a process that exists, and of one that does
// not.
func TestProcess(t *testing.T) {
	before, err := ProcessCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for now := before; now == before; {
		if now, err = ProcessCPU(os.Getpid()); err != nil || now < before {
			t.Fatalf("the clock went from %v to %v, %v", before, now, err)
		}
	}
	if m, err := MemoryOf(os.Getpid()); err != nil || m.Anonymous == 0 {
		t.Errorf("memory %v, %v", m, err)
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Skip(err)
	}
	if _, err := ProcessCPU(gone.Process.Pid); err == nil {
		t.Error("a process that has ended has a clock")
	}
	if err := Pin(gone.Process.Pid, Normal, 0); err == nil {
		t.Error("a process that has ended was bound")
	}
}

func TestPin(t *testing.T) {
	cpus, err := CPUs()
	if err != nil || len(cpus) == 0 {
		t.Fatalf("CPUs %v, %v", cpus, err)
	}
	last := cpus[len(cpus)-1]
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Skip(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	if err := Pin(child.Process.Pid, Normal, last); err != nil {
		t.Fatal(err)
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(child.Process.Pid, &set); err != nil {
		t.Fatal(err)
	}
	if set.Count() != 1 || !set.IsSet(last) {
		t.Errorf("bound to %d CPUs, CPU %d among them: %v", set.Count(), last, set.IsSet(last))
	}
}

func TestAwaitQuiet(t *testing.T) {
	w := Watch{Known: map[int][]int{0: {os.Getpid()}}}
	if waited, err := w.AwaitQuiet(t.Context(), 0, 0); err != nil || waited > time.Minute {
		t.Errorf("without patience: %v, %v", waited, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.AwaitQuiet(ctx, 0, time.Hour); err == nil {
		t.Error("it waited although nobody does any more")
	}
	if Describe() == "" {
		t.Error("no description")
	}
}

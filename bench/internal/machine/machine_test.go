package machine

import (
	"os"
	"testing"
	"time"
)

const stat = `cpu  30 3 60 1000 7 2 8 20 0 0
cpu0 10 1 20 500 3 1 2 15 0 0
cpu1 20 2 40 500 4 1 6 5 0 0
intr 1 2 3
`

func TestBusyTimeLeavesOutIdleAndSeparateIRQTime(t *testing.T) {
	for _, tc := range []struct {
		cpu         int
		separateIRQ bool
		want        time.Duration
	}{
		{0, false, 490 * time.Millisecond},
		{1, false, 740 * time.Millisecond},
		{0, true, 460 * time.Millisecond},
	} {
		if got, err := busyTime(stat, tc.cpu, tc.separateIRQ); err != nil || got != tc.want {
			t.Errorf("CPU %d, interrupts apart %v: got %v, error %v; want %v", tc.cpu, tc.separateIRQ, got, err, tc.want)
		}
	}
	if _, err := busyTime(stat, 2, false); err == nil {
		t.Error("CPU 2: got no error")
	}
}

func TestOthersLeavesOutKnownProcesses(t *testing.T) {
	cpus, err := CPUs()
	if err != nil || len(cpus) == 0 {
		t.Fatalf("got CPUs %v, %v", cpus, err)
	}
	work := func() error {
		for begun := time.Now(); time.Since(begun) < 200*time.Millisecond; {
		}
		return nil
	}
	got, err := Others(map[int][]int{cpus[0]: {os.Getpid()}}, work)
	if err != nil || got < 0 || got > 1 {
		t.Errorf("got %v, error %v; want a share", got, err)
	}
	if _, err := Others(map[int][]int{1 << 20: nil}, work); err == nil {
		t.Error("unknown CPU: got no error")
	}
}

func TestMemoryIsReadFromStatus(t *testing.T) {
	got, err := parseStatus("Name:\tcaddy\nVmRSS:\t  59000 kB\nRssAnon:\t   30 kB\nRssFile:\t    4 kB\n")
	if want := (Memory{Anonymous: 30 << 10, File: 4 << 10}); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "RssAnon:\t30 kB\n", "RssAnon:\tx kB\nRssFile:\t4 kB\n"} {
		if _, err := parseStatus(bad); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
}

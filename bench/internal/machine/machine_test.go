package machine

import (
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
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
		if got := busyTime(stat, tc.cpu, tc.separateIRQ); got != tc.want {
			t.Errorf("CPU %d, interrupts apart %v: got %v, want %v", tc.cpu, tc.separateIRQ, got, tc.want)
		}
	}
	if err := check.Run(func() { busyTime(stat, 2, false) }); err == nil {
		t.Error("CPU 2: got no error")
	}
}

func TestFieldIsFirstNumberAfterName(t *testing.T) {
	text := "Name:\tcaddy\nVmRSS:\t  59000 kB\nRssAnon:\t   30 kB\nRssFile:\tx kB\n"
	for name, want := range map[string]float64{"RssAnon:": 30, "RssFile:": 0, "RssShmem:": 0} {
		if got := Field(text, name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

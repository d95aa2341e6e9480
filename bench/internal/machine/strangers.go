package machine

import (
	"context"
	"time"
)

// Watch tells how much of the CPUs is used by processes that have no part in
// the measurement.
type Watch struct {
	// Known are the processes that have a part, by the CPU they are bound to.
	Known map[int][]int
}

// snapshot is what the CPUs and the known processes have worked until now.
type snapshot struct {
	at    time.Time
	busy  map[int]time.Duration
	known map[int]time.Duration
}

func (w Watch) snapshot() (snapshot, error) {
	s := snapshot{busy: map[int]time.Duration{}, known: map[int]time.Duration{}}
	busy, err := busyTimes()
	if err != nil {
		return s, err
	}
	s.at = time.Now()
	for cpu, pids := range w.Known {
		s.busy[cpu] = busy[cpu]
		for _, pid := range pids {
			t, err := ProcessCPU(pid)
			if err != nil {
				return s, err
			}
			s.known[cpu] += t
		}
	}
	return s, nil
}

// strangers returns the largest share of a CPU that others used between two
// snapshots, from 0 to 1.
func strangers(from, to snapshot) float64 {
	most := 0.0
	wall := to.at.Sub(from.at)
	for cpu := range to.busy {
		others := (to.busy[cpu] - from.busy[cpu]) - (to.known[cpu] - from.known[cpu])
		most = max(most, float64(others)/float64(wall))
	}
	return min(most, 1)
}

// Strangers runs f and returns the share of a CPU that others used meanwhile.
func (w Watch) Strangers(f func() error) (float64, error) {
	before, err := w.snapshot()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := w.snapshot()
	if err != nil {
		return 0, err
	}
	return strangers(before, after), nil
}

// AwaitQuiet waits until others use less than the given share of each CPU, for
// as long as patience at most, and returns how long that took.
func (w Watch) AwaitQuiet(ctx context.Context, share float64, patience time.Duration) (time.Duration, error) {
	const look = 100 * time.Millisecond // ten ticks of /proc/stat
	begun := time.Now()
	for time.Since(begun) < patience {
		seen, err := w.Strangers(func() error {
			select {
			case <-time.After(look):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil {
			return 0, err
		}
		if seen < share {
			break
		}
	}
	return time.Since(begun), nil
}

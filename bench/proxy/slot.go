package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/figures"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/fleet"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
)

const (
	warmUp   = 150 * time.Millisecond
	maxTries = 3
)

// bench measures the subjects of one fleet.
type bench struct {
	*fleet.Fleet
	watch machine.Watch
	// slot is how long a measurement takes.
	slot time.Duration
	// patience is what is left of the time for waiting for a quiet machine and
	// for repeating slots, in the whole run.
	patience *time.Duration
}

// measure measures a subject until others have left the machine alone, within
// limits, and keeps the cleanest try. It calls prepare, if not nil, right before
// each.
func (b *bench) measure(ctx context.Context, c figures.Cell, s *fleet.Subject, round int, prepare func() error) (figures.Slot, error) {
	const waitMost = 3 * time.Second
	var best figures.Slot
	for try := 1; ; try++ {
		waited, err := b.watch.AwaitQuiet(ctx, figures.RepeatAbove, min(waitMost, *b.patience))
		if err != nil {
			return best, err
		}
		begun := time.Now()
		if prepare != nil {
			if err := prepare(); err != nil {
				return best, fmt.Errorf("%s, %v: %w", s.Name, c, err)
			}
		}
		slot, err := b.once(ctx, c, s)
		if err != nil {
			return best, fmt.Errorf("%s, %v: %w", s.Name, c, err)
		}
		slot.Round = round
		if try == 1 || slot.Strangers < best.Strangers {
			best = slot
		}
		best.Tries = try
		*b.patience -= waited
		if best.Strangers <= figures.RepeatAbove || try == maxTries || *b.patience <= 0 {
			return best, nil
		}
		*b.patience -= time.Since(begun)
	}
}

// once measures a subject, and checks that the app has seen every request with
// the right token.
func (b *bench) once(ctx context.Context, c figures.Cell, s *fleet.Subject) (figures.Slot, error) {
	slot := figures.Slot{Cell: c, Subject: s.Name}
	requests, bearers := b.Counts()
	empty, before, err := allocatedTwice(ctx, s)
	if err != nil {
		return slot, err
	}
	running, err := load.Start(ctx, target(c, s), c.Concurrency)
	if err != nil {
		return slot, err
	}
	rest(ctx, warmUp)
	slot.Strangers, err = b.watch.Strangers(func() (err error) {
		slot.CPU, slot.RedisCPU, err = b.cpu(s, func() {
			b.IssuerTook() // forgets what was before
			running.Begin()
			rest(ctx, b.slot)
			running.End()
			slot.Refreshes = len(b.IssuerTook())
		})
		return err
	})
	result, errLoad := running.Stop()
	if errLoad != nil {
		return slot, errLoad
	}
	if err != nil {
		return slot, err
	}
	after, err := s.Allocated(ctx)
	if err != nil {
		return slot, err
	}
	if err := b.complete(s, result.All, requests, bearers); err != nil {
		return slot, err
	}
	// The second of two looks saw what the first had cost.
	heap := after.Minus(before).Minus(before.Minus(empty))
	slot.Requests, slot.Elapsed = len(result.Took), result.Elapsed
	slot.P50, slot.P99 = result.Quantile(0.50), result.Quantile(0.99)
	slot.Allocations, slot.AllocatedBytes = heap.Objects/float64(result.All), heap.Bytes/float64(result.All)
	return slot, ctx.Err()
}

func allocatedTwice(ctx context.Context, s *fleet.Subject) (first, second fleet.Heap, err error) {
	if first, err = s.Allocated(ctx); err != nil {
		return first, second, err
	}
	second, err = s.Allocated(ctx)
	return first, second, err
}

// cpu runs f and returns what the subject and Redis worked meanwhile.
func (b *bench) cpu(s *fleet.Subject, f func()) (subject, redis time.Duration, err error) {
	read := func() (subject, redis time.Duration, err error) {
		if pid := b.RedisPID(); pid != 0 {
			if redis, err = machine.ProcessCPU(pid); err != nil {
				return 0, 0, err
			}
		}
		subject, err = machine.ProcessCPU(s.PID())
		return subject, redis, err
	}
	subjectBefore, redisBefore, err := read()
	if err != nil {
		return 0, 0, err
	}
	f()
	subject, redis, err = read()
	return subject - subjectBefore, redis - redisBefore, err
}

// complete demands that the app has seen what was sent, with tokens if the
// subject has sessions.
func (b *bench) complete(s *fleet.Subject, sent int, requests, bearers int64) error {
	requestsNow, bearersNow := b.Counts()
	seen, good := int(requestsNow-requests), int(bearersNow-bearers)
	if seen != sent {
		return fmt.Errorf("%d requests were answered, and the app has seen %d", sent, seen)
	}
	if s.LogsIn() && good != sent || !s.LogsIn() && good != 0 {
		return fmt.Errorf("of %d requests, %d had a valid token", sent, good)
	}
	return nil
}

func target(c figures.Cell, s *fleet.Subject) load.Target {
	t := load.Target{Host: s.Host, Size: c.Size, Cookies: s.Cookies}
	if c.HTTP2 {
		t.HTTP2, t.Host = true, s.HostH2C
	}
	t.Addr = strings.Replace(t.Host, "localhost", "127.0.0.1", 1)
	return t
}

// rest waits, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// newWatch knows the processes of a fleet.
func newWatch(f *fleet.Fleet, subjects, others int) machine.Watch {
	w := machine.Watch{Known: map[int][]int{subjects: f.PIDs()}}
	w.Known[others] = append(w.Known[others], os.Getpid())
	if pid := f.RedisPID(); pid != 0 {
		w.Known[others] = append(w.Known[others], pid)
	}
	return w
}

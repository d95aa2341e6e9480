package oauth

import (
	"context"
	"sync"
	"time"
)

// maxPause is the longest pause after failed fetches while an old copy serves.
const maxPause = 30 * time.Second

// cache keeps the last good copy of a document of the server. One fetch is
// under way at a time, detached from the callers that wait for it, so that a
// caller who gives up costs the others nothing. A failed fetch is followed by a
// pause that grows from one second.
type cache[T any] struct {
	fetch    func(context.Context) (value T, fresh time.Duration, err error)
	timeout  time.Duration // of one fetch
	pause    time.Duration // the longest pause while there is no copy
	maxStale time.Duration // how long after its fetch a copy may serve; 0: for ever

	mu       sync.Mutex
	copy     *snapshot[T]
	flight   *flight[T]
	begun    uint64 // number of fetches begun
	failures failures
}

// snapshot is one good copy; it is never changed.
type snapshot[T any] struct {
	value   T
	number  uint64 // of the fetch it comes from, counted from 1
	fetched time.Time
	fresh   time.Duration
}

// flight is a fetch under way. Copy and err are set before done is closed.
type flight[T any] struct {
	number   uint64
	failures *failures // those of the caller that began the fetch
	budget   *fetchBudget
	done     chan struct{}
	copy     *snapshot[T]
	err      error
}

// get returns the copy there is, renewing a stale one in the background, and
// waits for the first one.
func (c *cache[T]) get(ctx context.Context) (*snapshot[T], error) {
	c.mu.Lock()
	now := time.Now()
	if s := c.usable(now); s != nil {
		if now.Sub(s.fetched) >= s.fresh {
			c.start(ctx, now)
		}
		c.mu.Unlock()
		return s, nil
	}
	f, err := c.start(ctx, now), c.failures.err
	c.mu.Unlock()
	if f == nil {
		return nil, err
	}
	return f.wait(ctx)
}

// renew returns a copy that is newer than seen, or seen itself if the budget
// allows no fetch now. The error says why the last fetch of this budget failed.
// A fetch that somebody else began is shared; if it fails, the caller's own
// budget counts.
func (c *cache[T]) renew(ctx context.Context, seen *snapshot[T], b *fetchBudget, reserve int) (*snapshot[T], error) {
	for {
		c.mu.Lock()
		if c.copy != seen {
			defer c.mu.Unlock()
			return c.copy, nil
		}
		f := c.flight
		own := f == nil
		if own {
			if b.failures.number < seen.number {
				b.failures = failures{} // the server has answered since
			}
			now := time.Now()
			if now.Before(b.failures.notBefore) || !b.take(now, reserve) {
				defer c.mu.Unlock()
				return seen, b.failures.err
			}
			f = c.begin(ctx, &b.failures, b)
		}
		c.mu.Unlock()
		copy, err := f.wait(ctx)
		if err == nil || own || ctx.Err() != nil {
			return copy, err
		}
	}
}

// fetches returns how many fetches were begun: a copy with a higher number
// comes from a later one.
func (c *cache[T]) fetches() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begun
}

// peek returns the copy there is, or nil.
func (c *cache[T]) peek() *snapshot[T] {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usable(time.Now())
}

func (c *cache[T]) usable(now time.Time) *snapshot[T] {
	if c.copy == nil || c.maxStale > 0 && now.Sub(c.copy.fetched) > c.maxStale {
		return nil
	}
	return c.copy
}

// start returns the fetch under way, or begins one. It returns nil in the
// pause after a failure. The caller holds the lock.
func (c *cache[T]) start(ctx context.Context, now time.Time) *flight[T] {
	if c.flight != nil {
		return c.flight
	}
	if now.Before(c.failures.notBefore) {
		return nil
	}
	return c.begin(ctx, &c.failures, nil)
}

// begin begins a fetch. The caller holds the lock.
func (c *cache[T]) begin(ctx context.Context, fails *failures, b *fetchBudget) *flight[T] {
	c.begun++
	f := &flight[T]{number: c.begun, failures: fails, budget: b, done: make(chan struct{})}
	c.flight = f
	go c.run(context.WithoutCancel(ctx), f)
	return f
}

func (c *cache[T]) run(ctx context.Context, f *flight[T]) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	value, fresh, err := c.fetch(ctx)

	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if err != nil {
		limit := c.pause
		if c.usable(now) != nil {
			limit = maxPause
		}
		f.failures.add(f.number, err, now, limit)
		if f.budget != nil {
			f.budget.giveBack()
		}
		f.err = err
	} else {
		f.copy = &snapshot[T]{value: value, number: f.number, fetched: now, fresh: fresh}
		c.copy, c.failures = f.copy, failures{}
		*f.failures = failures{}
	}
	c.flight = nil
	close(f.done)
}

func (f *flight[T]) wait(ctx context.Context) (*snapshot[T], error) {
	select {
	case <-f.done:
		return f.copy, f.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

package oauth

import (
	"context"
	"sync"
	"time"
)

// maxStalePause is the longest pause after failed fetches while a stale copy
// remains usable.
const maxStalePause = 30 * time.Second

// cache keeps the last valid copy of a document of the server. At most one
// fetch runs at a time. It does not depend on the callers that wait for it, so a
// caller that gives up does not cancel it for the others. After a failed fetch
// the cache pauses; the pause doubles with each failure, starting from one
// second.
type cache[T any] struct {
	fetch         func(context.Context) (value T, freshFor time.Duration, err error)
	timeout       time.Duration // of one fetch
	maxEmptyPause time.Duration // longest pause while there is no usable copy
	maxStale      time.Duration // longest age of a usable copy; 0: no limit

	mu       sync.Mutex
	current  *snapshot[T]
	inflight *inflight[T]
	fetches  uint64 // number of fetches started
	failures failures
}

// snapshot is one valid copy. It is immutable.
type snapshot[T any] struct {
	value    T
	number   uint64 // of its fetch, counted from 1
	fetched  time.Time
	freshFor time.Duration
}

// inflight is a running fetch. Result and err are set before done is closed.
type inflight[T any] struct {
	number   uint64
	failures *failures    // where a failure is recorded
	budget   *fetchBudget // refunded after a failure; may be nil
	done     chan struct{}
	result   *snapshot[T]
	err      error
}

// get returns the current copy. If that is stale, get also starts a fetch in
// the background. Without a usable copy, get waits for the first fetch.
func (c *cache[T]) get(ctx context.Context) (*snapshot[T], error) {
	c.mu.Lock()
	now := time.Now()
	if s := c.usable(now); s != nil {
		if now.Sub(s.fetched) >= s.freshFor {
			c.join(ctx, now)
		}
		c.mu.Unlock()
		return s, nil
	}
	f, err := c.join(ctx, now), c.failures.err
	c.mu.Unlock()
	if f == nil {
		return nil, err
	}
	return f.wait(ctx)
}

// renew returns a copy that is newer than seen, or seen itself if the budget
// allows no fetch now. The error is that of the last failed fetch of this
// budget. A fetch that another caller has started is shared; if it fails, renew
// starts one with its own budget.
func (c *cache[T]) renew(ctx context.Context, seen *snapshot[T], b *fetchBudget, reserve int) (*snapshot[T], error) {
	for {
		c.mu.Lock()
		if c.current != seen {
			defer c.mu.Unlock()
			return c.current, nil
		}
		f := c.inflight
		own := f == nil
		if own {
			if b.failures.number < seen.number {
				b.failures = failures{} // a later fetch has succeeded
			}
			now := time.Now()
			if now.Before(b.failures.notBefore) || !b.take(now, reserve) {
				defer c.mu.Unlock()
				return seen, b.failures.err
			}
			f = c.start(ctx, &b.failures, b)
		}
		c.mu.Unlock()
		s, err := f.wait(ctx)
		if err == nil || own || ctx.Err() != nil {
			return s, err
		}
	}
}

// fetchCount returns the number of fetches started. A copy with a higher number
// comes from a fetch that starts later.
func (c *cache[T]) fetchCount() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fetches
}

// peek returns the usable copy, or nil. It never fetches.
func (c *cache[T]) peek() *snapshot[T] {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usable(time.Now())
}

// usable returns the current copy unless it is too old. The caller holds the
// lock.
func (c *cache[T]) usable(now time.Time) *snapshot[T] {
	if c.current == nil || c.maxStale > 0 && now.Sub(c.current.fetched) > c.maxStale {
		return nil
	}
	return c.current
}

// join returns the running fetch, or starts one. It returns nil during the
// pause after a failure. The caller holds the lock.
func (c *cache[T]) join(ctx context.Context, now time.Time) *inflight[T] {
	if c.inflight != nil {
		return c.inflight
	}
	if now.Before(c.failures.notBefore) {
		return nil
	}
	return c.start(ctx, &c.failures, nil)
}

// start starts a fetch. The caller holds the lock.
func (c *cache[T]) start(ctx context.Context, fails *failures, b *fetchBudget) *inflight[T] {
	c.fetches++
	f := &inflight[T]{number: c.fetches, failures: fails, budget: b, done: make(chan struct{})}
	c.inflight = f
	go c.run(context.WithoutCancel(ctx), f)
	return f
}

func (c *cache[T]) run(ctx context.Context, f *inflight[T]) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	value, freshFor, err := c.fetch(ctx)

	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if err != nil {
		limit := c.maxEmptyPause
		if c.usable(now) != nil {
			limit = maxStalePause
		}
		f.failures.add(f.number, err, now, limit)
		if f.budget != nil {
			f.budget.refund()
		}
		f.err = err
	} else {
		f.result = &snapshot[T]{value: value, number: f.number, fetched: now, freshFor: freshFor}
		c.current, c.failures = f.result, failures{}
		*f.failures = failures{}
	}
	c.inflight = nil
	close(f.done)
}

func (f *inflight[T]) wait(ctx context.Context) (*snapshot[T], error) {
	select {
	case <-f.done:
		return f.result, f.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

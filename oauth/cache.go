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
// caller who gives up costs the others nothing. A failure is remembered for a
// pause that grows from one second, never for ever.
type cache[T any] struct {
	fetch    func(context.Context) (value T, fresh time.Duration, err error)
	timeout  time.Duration // of one fetch
	pause    time.Duration // the longest pause while there is no copy
	maxStale time.Duration // how long after its fetch a copy may serve; 0: for ever

	mu        sync.Mutex
	copy      *snapshot[T]
	flight    *flight[T]
	failures  int       // since the last good fetch
	err       error     // of the last fetch
	renewed   time.Time // the last fetch that renew began
	notBefore time.Time // the next fetch after a failure
}

// snapshot is one good copy; it is never changed.
type snapshot[T any] struct {
	value   T
	fetched time.Time
	fresh   time.Duration
}

// flight is a fetch under way. Copy and err are set before done is closed.
type flight[T any] struct {
	done chan struct{}
	copy *snapshot[T]
	err  error
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
	f, err := c.start(ctx, now), c.err
	c.mu.Unlock()
	if f == nil {
		return nil, err
	}
	return f.wait(ctx)
}

// renew returns a copy that is newer than seen, or seen itself when renew began
// a fetch less than gap ago. The error says why there is none newer; it is nil
// if the last fetch was good.
func (c *cache[T]) renew(ctx context.Context, seen *snapshot[T], gap time.Duration) (*snapshot[T], error) {
	c.mu.Lock()
	if c.copy != seen {
		defer c.mu.Unlock()
		return c.copy, nil
	}
	now := time.Now()
	if c.flight == nil {
		if now.Sub(c.renewed) < gap {
			defer c.mu.Unlock()
			return seen, c.err
		}
		c.renewed = now
	}
	f, err := c.start(ctx, now), c.err
	c.mu.Unlock()
	if f == nil {
		return seen, err
	}
	return f.wait(ctx)
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
	if now.Before(c.notBefore) {
		return nil
	}
	f := &flight[T]{done: make(chan struct{})}
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
		c.notBefore = now.Add(min(time.Second<<min(c.failures, 10), limit))
		c.failures++
		f.err = err
	} else {
		f.copy = &snapshot[T]{value: value, fetched: now, fresh: fresh}
		c.copy, c.failures = f.copy, 0
	}
	c.err, c.flight = err, nil
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

package keeper

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

const (
	// breakerThreshold is how many different sessions must fail to refresh, without a
	// success between them, until the circuit opens.
	breakerThreshold = 5
	// The pause between probes doubles from breakerMinPause to breakerMaxPause.
	breakerMinPause = time.Second
	breakerMaxPause = 15 * time.Second
	// breakerRepeatDelay is how much longer a session waits after a failed refresh until
	// it may be the probe. Otherwise a few sessions that the server cannot refresh could be
	// every probe.
	breakerRepeatDelay = 5 * time.Second
	// probeTimeout is how long a probe without a result delays the next one.
	probeTimeout = 10 * time.Second
	// maxConcurrentRefreshes bounds the refreshes in progress at one authorization server.
	maxConcurrentRefreshes = 512
)

// breaker is the circuit breaker of one authorization server, for all its sessions in this
// process, and the slots for its refreshes.
//
// Processes do not share their breakers: whether another process reaches the server says
// little about the network of this one.
type breaker struct {
	slots chan struct{}
	circuit
}

// circuit is the circuit of an authorization server that does not answer, or of a client
// that the server refuses. While it is open, one refresh at a time is sent as a probe. All
// other refreshes fail at once and change nothing. The first success closes the circuit.
type circuit struct {
	mu sync.Mutex
	// failedSessions are the sessions that failed since the last success, at most
	// breakerThreshold of them. With that many, the circuit is open.
	failedSessions []session.ID
	backoff                  // the pause until the next probe
	probeStarted   time.Time // when the current probe began; zero: there is none
	lastSuccess    time.Time // when the last success was recorded
}

func newBreaker() *breaker { return &breaker{slots: make(chan struct{}, maxConcurrentRefreshes)} }

// breaker returns the breaker of the server with this name, or a new one if the name is
// empty.
func (v *Vault) breaker(server string) *breaker {
	if server == "" {
		return newBreaker()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	b := v.breakers[server]
	if b == nil {
		b = newBreaker()
		v.breakers[server] = b
	}
	return b
}

// check returns an error if no refresh may begin now. waiting means that a request cannot be
// served without the refresh, and failed that the last refresh of the session has failed.
func (c *circuit) check(now time.Time, waiting, failed bool) *UnavailableError {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.checkLocked(now, waiting, failed)
}

func (c *circuit) checkLocked(now time.Time, waiting, failed bool) *UnavailableError {
	if len(c.failedSessions) < breakerThreshold {
		return nil
	}
	pause := c.backoff
	if failed {
		pause.until = pause.until.Add(breakerRepeatDelay)
	}
	if err := pause.check(now, waiting); err != nil {
		return err
	}
	if now.Sub(c.probeStarted) < probeTimeout {
		return &UnavailableError{RetryAfter: time.Second, Misconfigured: c.err.Misconfigured, Err: c.err.Err}
	}
	return nil
}

// errBusy means that a refresh got no slot in time.
var errBusy = errors.New("too many refreshes are under way at the authorization server")

// acquireSlot waits for one of maxConcurrentRefreshes slots until ctx or closing ends.
func (b *breaker) acquireSlot(ctx, closing context.Context) *UnavailableError {
	select {
	case b.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case b.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return unavailable(errBusy)
	case <-closing.Done():
		return unavailable(ErrClosed)
	}
}

func (b *breaker) releaseSlot() { <-b.slots }

// admit is check for a refresh that has a slot. If the circuit is open, the refresh becomes
// the probe, which the returned time identifies.
func (c *circuit) admit(now time.Time, waiting, failed bool) (probe time.Time, err *UnavailableError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.checkLocked(now, waiting, failed); err != nil {
		return time.Time{}, err
	}
	if len(c.failedSessions) >= breakerThreshold {
		c.probeStarted = now
		return now, nil
	}
	return time.Time{}, nil
}

// endProbe ends a probe that has no result, so that the next one can begin.
func (c *circuit) endProbe(probe time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.probeStarted.Equal(probe) {
		c.probeStarted = time.Time{}
	}
}

// recordSuccess closes the circuit.
func (c *circuit) recordSuccess() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failedSessions, c.backoff, c.probeStarted, c.lastSuccess = nil, backoff{}, time.Time{}, time.Now()
}

// recordFailure counts a session that got no usable answer. While the circuit is open, only
// the failure of its probe prolongs the pause: the other refreshes began before it opened.
// failingSince is when the session began to fail, or zero. If another session succeeded
// after that, the server works, and the failure does not count. spread is from 0 to 1.
func (c *circuit) recordFailure(id session.ID, failingSince, probe time.Time, failure UnavailableError, spread float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !failingSince.IsZero() && failingSince.Before(c.lastSuccess) {
		return
	}
	open := len(c.failedSessions) >= breakerThreshold
	if !open && !slices.Contains(c.failedSessions, id) {
		c.failedSessions = append(c.failedSessions, id)
	}
	if len(c.failedSessions) < breakerThreshold || open && (probe.IsZero() || !c.probeStarted.Equal(probe)) {
		return
	}
	now := time.Now()
	delay := max(backoffDelay(breakerMinPause, breakerMaxPause, c.failures, spread), failure.RetryAfter)
	c.backoff = backoff{failedAt: now, until: now.Add(delay), failures: c.failures + 1, err: &failure}
	c.probeStarted = time.Time{}
}

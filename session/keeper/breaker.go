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
	// breakerThreshold is how many different sessions must fail to refresh, with
	// no success between them, until the authorization server counts as down.
	breakerThreshold = 5
	// The pause between probes doubles from breakerMinPause to breakerMaxPause.
	breakerMinPause = time.Second
	breakerMaxPause = 15 * time.Second
	// breakerRepeatDelay is how much longer a session that has failed before waits for
	// its turn as the probe. Requests of other sessions come first: a few sessions
	// that the server cannot refresh must not take every probe.
	breakerRepeatDelay = 5 * time.Second
	// probeTimeout is how long a probe keeps the next one back.
	probeTimeout = 10 * time.Second
	// maxConcurrentRefreshes bounds the refreshes under way at one authorization server.
	maxConcurrentRefreshes = 512
)

// breaker is the circuit breaker of one authorization server, for all its
// sessions in this process, with the slots for its refreshes.
//
// Each process finds out by itself: that another one reaches the server, or
// does not, says little about the own network.
type breaker struct {
	slots chan struct{}
	circuit
}

// circuit is the state of a circuit breaker: of an authorization server that is
// down, or of a client that the server refuses. While it is open, one refresh at a
// time is sent as a probe; all others fail at once and leave nothing behind. The
// first success lets everybody refresh again.
type circuit struct {
	mu sync.Mutex
	// failed are the sessions that failed since the last success, up to the
	// threshold.
	failedSessions []session.ID
	backoff
	probeStarted time.Time // when the probe under way began; zero: there is none
	lastSuccess  time.Time // when an answer last showed the server at work
}

func newBreaker() *breaker { return &breaker{slots: make(chan struct{}, maxConcurrentRefreshes)} }

// breaker returns the one for a server's name; without a name, a new one.
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

// check returns the error for a refresh that must not begin now, or nil. failed
// says that the last refresh of the session has failed.
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

// errBusy is the cause for a refresh that did not get its turn.
var errBusy = errors.New("too many refreshes are under way at the authorization server")

// enter waits for one of the slots of maxConcurrentRefreshes, until ctx or stop ends.
func (b *breaker) acquireSlot(ctx, stop context.Context) *UnavailableError {
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
	case <-stop.Done():
		return unavailable(ErrClosed)
	}
}

func (b *breaker) releaseSlot() { <-b.slots }

// admit is check for a refresh that has a slot. If the server is down, that
// refresh becomes the probe, named by the time that admit returns.
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

// withdraw ends a probe that brought no result.
func (c *circuit) endProbe(probe time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.probeStarted.Equal(probe) {
		c.probeStarted = time.Time{}
	}
}

// succeed notes an answer that shows the server at work.
func (c *circuit) recordSuccess() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failedSessions, c.backoff, c.probeStarted, c.lastSuccess = nil, backoff{}, time.Time{}, time.Now()
}

// fail notes that a session got no usable answer. Once the server is down, only
// its probes count: refreshes that began before do not prolong the pause. since is
// when the session began to fail, or zero. If another session was refreshed after
// that, the server works, and the failure does not count.
func (c *circuit) recordFailure(id session.ID, since, probe time.Time, failure UnavailableError, spread float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !since.IsZero() && since.Before(c.lastSuccess) {
		return
	}
	down := len(c.failedSessions) >= breakerThreshold
	if !down && !slices.Contains(c.failedSessions, id) {
		c.failedSessions = append(c.failedSessions, id)
	}
	if len(c.failedSessions) < breakerThreshold || down && (probe.IsZero() || !c.probeStarted.Equal(probe)) {
		return
	}
	now := time.Now()
	delay := max(backoffDelay(breakerMinPause, breakerMaxPause, c.failures, spread), failure.RetryAfter)
	c.backoff = backoff{failedAt: now, until: now.Add(delay), failures: c.failures + 1, err: &failure}
	c.probeStarted = time.Time{}
}

package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

const (
	// breakerThreshold is how many different sessions must fail to refresh, with
	// no success between them, until the authorization server counts as down. The
	// trouble of a few sessions keeps no other session back.
	breakerThreshold = 5
	// The pause between probes doubles from breakerFirst to breakerMax.
	breakerFirst = time.Second
	breakerMax   = 15 * time.Second
	// probeTimeout is how long a probe keeps the next one back.
	probeTimeout = 10 * time.Second
	// refreshesAtOnce bounds the refreshes under way at one authorization server.
	refreshesAtOnce = 512
)

// breaker is the circuit breaker of one authorization server, for all its
// sessions in this process. While the server is down, one refresh at a time is
// sent as a probe; all others fail at once and leave nothing behind. The first
// answer that shows the server at work lets everybody refresh again.
//
// Each process finds out by itself: that another one reaches the server, or
// does not, says little about the own network.
type breaker struct {
	slots chan struct{}

	mu sync.Mutex
	// failed are the sessions that failed since the last success, up to the
	// threshold.
	failed []ID
	backoff
	probe time.Time // when the probe under way began; zero: there is none
}

func newBreaker() *breaker { return &breaker{slots: make(chan struct{}, refreshesAtOnce)} }

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

// check returns the error for a refresh that must not begin now, or nil.
func (b *breaker) check(now time.Time, waiting bool) *UnavailableError {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.checkLocked(now, waiting)
}

func (b *breaker) checkLocked(now time.Time, waiting bool) *UnavailableError {
	if len(b.failed) < breakerThreshold {
		return nil
	}
	if err := b.backoff.check(now, waiting); err != nil {
		return err
	}
	if now.Sub(b.probe) < probeTimeout {
		return &UnavailableError{RetryAfter: time.Second, Misconfigured: b.err.Misconfigured, Err: b.err.Err}
	}
	return nil
}

// errBusy is the cause for a refresh that did not get its turn.
var errBusy = errors.New("too many refreshes are under way at the authorization server")

// enter waits for one of the slots of refreshesAtOnce, until ctx or stop ends.
func (b *breaker) enter(ctx, stop context.Context) *UnavailableError {
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

func (b *breaker) leave() { <-b.slots }

// admit is check for a refresh that has a slot. If the server is down, that
// refresh becomes the probe, named by the time that admit returns.
func (b *breaker) admit(now time.Time, waiting bool) (probe time.Time, err *UnavailableError) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.checkLocked(now, waiting); err != nil {
		return time.Time{}, err
	}
	if len(b.failed) >= breakerThreshold {
		b.probe = now
		return now, nil
	}
	return time.Time{}, nil
}

// withdraw ends a probe that was not sent.
func (b *breaker) withdraw(probe time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.probe.Equal(probe) {
		b.probe = time.Time{}
	}
}

// succeed notes an answer that shows the server at work.
func (b *breaker) succeed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed, b.backoff, b.probe = nil, backoff{}, time.Time{}
}

// fail notes that a session got no usable answer. Once the server is down, only
// its probes count: refreshes that began before do not prolong the pause.
func (b *breaker) fail(id ID, probe time.Time, failure UnavailableError, spread float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	down := len(b.failed) >= breakerThreshold
	if !down && !slices.Contains(b.failed, id) {
		b.failed = append(b.failed, id)
	}
	if len(b.failed) < breakerThreshold || down && (probe.IsZero() || !b.probe.Equal(probe)) {
		return
	}
	now := time.Now()
	delay := max(backoffDelay(breakerFirst, breakerMax, b.failures, spread), failure.RetryAfter)
	b.backoff = backoff{failedAt: now, until: now.Add(delay), failures: b.failures + 1, err: &failure}
	b.probe = time.Time{}
}

package keeper

import (
	"maps"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

const (
	backoffMin = time.Second
	backoffMax = 30 * time.Second
	// backoffMinTimedOut is the shortest back-off after a request that timed out. The server
	// may still be working on it, and must not get two requests with one refresh token at
	// the same time.
	backoffMinTimedOut = 10 * time.Second
	// backoffMaxWaiting bounds every back-off, whatever Retry-After says, while a request
	// with an expired token waits for its end.
	backoffMaxWaiting = 60 * time.Second
	// backoffRetention is how long a back-off is kept after its end, so that the next
	// failure doubles it.
	backoffRetention = 10 * time.Minute
	// backoffPruneSize is the number of back-offs above which expired ones are removed.
	backoffPruneSize = 4096
)

// backoff is the pause of one session, or of one circuit, after failures.
type backoff struct {
	failingSince    time.Time // when the first of the failures was recorded
	failedAt, until time.Time
	failures        int
	err             *UnavailableError
	// unanswered is set if a refresh token was sent and no answer arrived.
	unanswered bool
}

// retryAt returns when the next try may begin. waiting means that a request cannot be served
// before that try.
func (b *backoff) retryAt(waiting bool) time.Time {
	if limit := b.failedAt.Add(backoffMaxWaiting); waiting && b.until.After(limit) {
		return limit
	}
	return b.until
}

// check returns an error during the back-off.
func (b *backoff) check(now time.Time, waiting bool) *UnavailableError {
	left := b.retryAt(waiting).Sub(now)
	if left <= 0 {
		return nil
	}
	return &UnavailableError{RetryAfter: left, Misconfigured: b.err.Misconfigured, Err: b.err.Err}
}

// backoffDelay doubles from first to limit with each failure. spread, from 0 to 1, adds up to
// a quarter of that, so that sessions that failed together do not try again together.
func backoffDelay(first, limit time.Duration, failures int, spread float64) time.Duration {
	delay := min(first<<min(failures, 16), limit)
	return delay + time.Duration(spread*float64(delay)/4)
}

// backoffs are the back-offs of all sessions. They have their own mutex, because removing many
// of them takes time, in which other sessions must be able to refresh.
type backoffs struct {
	mu      sync.Mutex
	all     map[session.ID]backoff
	pruneAt int
}

// check returns an error during the back-off of the session.
func (s *backoffs) check(id session.ID, now time.Time, waiting bool) *UnavailableError {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.all[id]
	if !ok {
		return nil
	}
	return b.check(now, waiting)
}

// recordFailure begins a back-off and returns its length: least, doubled with each earlier
// failure, or failure.RetryAfter if that is longer. It sets failure.RetryAfter to that length,
// but to backoffMaxWaiting at most. spread is as for backoffDelay.
func (s *backoffs) recordFailure(id session.ID, failure *UnavailableError, least time.Duration, unanswered bool, spread float64) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.all[id]
	delay := max(backoffDelay(least, backoffMax, b.failures, spread), failure.RetryAfter)
	failure.RetryAfter = min(delay, backoffMaxWaiting)
	now := time.Now()
	s.prune(now)
	since := b.failingSince
	if since.IsZero() {
		since = now
	}
	s.all[id] = backoff{
		failingSince: since, failedAt: now, until: now.Add(delay), failures: b.failures + 1, err: failure,
		unanswered: unanswered || b.unanswered,
	}
	return delay
}

// prune removes expired back-offs whenever their number has doubled since the last time, so
// that the work for one failure is constant on average.
func (s *backoffs) prune(now time.Time) {
	if s.all == nil {
		s.all = map[session.ID]backoff{}
	}
	if len(s.all) < max(s.pruneAt, backoffPruneSize) {
		return
	}
	maps.DeleteFunc(s.all, func(_ session.ID, b backoff) bool { return now.Sub(b.until) > backoffRetention })
	s.pruneAt = 2 * len(s.all)
}

// unanswered reports whether a refresh of this session got no answer since its last success.
func (s *backoffs) unanswered(id session.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id].unanswered
}

// failingSince returns when the first failure since the last success of the session was
// recorded, or the zero time if there is none.
func (s *backoffs) failingSince(id session.ID) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id].failingSince
}

// clear removes the back-off of a session.
func (s *backoffs) clear(id session.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, id)
}

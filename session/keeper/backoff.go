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
	// backoffMinTimedOut is the shortest back-off after a request without an answer:
	// the server may still be working on it, and two requests with one refresh
	// token must not be under way together.
	backoffMinTimedOut = 10 * time.Second
	// backoffMaxWaiting bounds every back-off, whatever Retry-After says, while a
	// request with an expired token waits for its end.
	backoffMaxWaiting = 60 * time.Second
	// backoffRetention is how long a back-off that has passed is remembered, so that
	// the next failure doubles it.
	backoffRetention = 10 * time.Minute
	// backoffPruneSize is the number of back-offs from which expired ones are removed.
	backoffPruneSize = 4096
)

// backoff is a pause after failures, of one session or of one server.
type backoff struct {
	failingSince    time.Time // of the first of the failures
	failedAt, until time.Time
	failures        int
	err             *UnavailableError
	// unanswered: a refresh token was sent, and its fate is unknown.
	unanswered bool
}

// retryAt returns when the next try may begin. waiting says that a request
// cannot be served before.
func (b *backoff) retryAt(waiting bool) time.Time {
	if limit := b.failedAt.Add(backoffMaxWaiting); waiting && b.until.After(limit) {
		return limit
	}
	return b.until
}

// check returns the error for a request during the back-off, or nil after it.
func (b *backoff) check(now time.Time, waiting bool) *UnavailableError {
	left := b.retryAt(waiting).Sub(now)
	if left <= 0 {
		return nil
	}
	return &UnavailableError{RetryAfter: left, Misconfigured: b.err.Misconfigured, Err: b.err.Err}
}

// backoffDelay doubles from first to limit with each failure. spread, from 0 to
// 1, adds up to a quarter, so that what failed together is not repeated together.
func backoffDelay(first, limit time.Duration, failures int, spread float64) time.Duration {
	delay := min(first<<min(failures, 16), limit)
	return delay + time.Duration(spread*float64(delay)/4)
}

// backoffs are those of all sessions. They have a lock of their own: removing
// many at once must not hold up the refreshes of other sessions.
type backoffs struct {
	mu      sync.Mutex
	all     map[session.ID]backoff
	pruneAt int
}

// check returns the error for a request during the session's back-off, or nil.
func (s *backoffs) check(id session.ID, now time.Time, waiting bool) *UnavailableError {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.all[id]
	if !ok {
		return nil
	}
	return b.check(now, waiting)
}

// add notes a failure and returns the length of the back-off: least, doubling from
// there, or as long as the server asked for if that is longer. It sets the
// failure's RetryAfter to that length, to backoffMaxWaiting at most.
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

// prune removes what is no longer needed, when the number has doubled since the
// last time: the work for one failure stays constant on average.
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

// unanswered reports whether a refresh of this session got no answer since the
// last one that did.
func (s *backoffs) unanswered(id session.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id].unanswered
}

// failingSince returns when a session failed for the first time since its last
// success, or the zero time if it has not.
func (s *backoffs) failingSince(id session.ID) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id].failingSince
}

// clear forgets the failures of a session.
func (s *backoffs) clear(id session.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, id)
}

package keeper

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// A request counts as use of its session from its beginning to its end: an upload may take
// longer than the idle time-out. The keeper records a use whenever the last written one is
// useInterval old, as Fresh does for a request that begins. So a session ends IdleTimeout
// after the end of its last request at the earliest, at every instance.
//
// Streams and passive requests do not count: see BecomeStream and Passive. Decision 0029
// has the reasons.

// AttachUse is Attach for a request that counts as use of its session while it is in
// progress, until Detach or BecomeStream, and until the absolute end of the session at the
// latest.
func (k *Keeper) AttachUse(ctx context.Context, secret seal.Secret, s *Session, a *Attachment) context.Context {
	*a = k.attachment(s)
	a.ref.Secret = secret
	now := time.Now()
	a.lastUse = s.lastUsed
	if !now.Before(a.nextUse()) {
		a.lastUse = now // Fresh has recorded this use (Peek has not, but its requests must not)
	}
	return a.start(ctx, s.epoch)
}

// BecomeStream declares that the answer to a request is a stream: a WebSocket or an event
// stream. From then on the request does not count as use. If tokenEnd is not zero, the
// request's context is cancelled at that time, with the cause ErrTokenExpired.
func (a *Attachment) BecomeStream(tokenEnd time.Time) {
	l := &a.keeper.Vault.live
	s := l.shard(a.ref.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	a.lastUse, a.tokenEnd = time.Time{}, tokenEnd
	l.scheduleBy(s, a.nextLimit())
}

// nextUse is when the request, if it counts as use, must record the next one.
func (a *Attachment) nextUse() time.Time {
	return a.lastUse.Add(time.Duration(a.keeper.siteInterval.Load()))
}

func (a *Attachment) useIsDue(now time.Time) bool {
	return !a.lastUse.IsZero() && !now.Before(a.nextUse())
}

// inUse reports whether a request in progress counts as use of a session.
func (l *liveRequests) inUse(id session.ID) bool {
	s := l.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := s.requests[id]; a != nil; a = a.next {
		if !a.lastUse.IsZero() {
			return true
		}
	}
	return false
}

// setLastUse corrects the last use of a session for its requests in progress, if the
// written one is earlier than they know.
func (l *liveRequests) setLastUse(id session.ID, written time.Time) {
	s := l.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := s.requests[id]; a != nil; a = a.next {
		if a.lastUse.After(written) {
			a.lastUse = written
			l.scheduleBy(s, a.nextLimit())
		}
	}
}

// lastUse returns the last use of a session that may not be written yet, or the zero time.
func (v *Vault) lastUse(id session.ID, now time.Time) time.Time {
	if v.live.inUse(id) {
		return now
	}
	return v.uses.last(id)
}

// shareInterval returns the shortest use interval of all keepers of a site on this vault,
// the given one included. A request may have begun under an older configuration with a
// longer idle time-out: it must record its uses as often as the newer one requires.
func (v *Vault) shareInterval(site *seal.Site, interval time.Duration) *atomic.Int64 {
	id := site.Ref(seal.Secret{}).ID
	v.mu.Lock()
	shortest, known := v.useIntervals[id]
	if !known {
		shortest = new(atomic.Int64)
		v.useIntervals[id] = shortest
	}
	shorter := !known || int64(interval) < shortest.Load()
	if shorter {
		shortest.Store(int64(interval))
	}
	v.mu.Unlock()
	if known && shorter {
		v.live.reschedule()
	}
	return shortest
}

// reschedule lets the timers follow a shorter use interval.
func (l *liveRequests) reschedule() {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for _, first := range s.requests {
			for a := first; a != nil; a = a.next {
				l.scheduleBy(s, a.nextLimit())
			}
		}
		s.mu.Unlock()
	}
}

// Passive returns the methods for passive requests: they are served, and refresh the
// token, but do not count as use of their session.
func (k *Keeper) Passive() Passive { return Passive{k} }

// Passive serves passive requests (see Keeper.Passive).
type Passive struct{ keeper *Keeper }

// Fresh is Keeper.Fresh without a use of the session.
func (p Passive) Fresh(ctx context.Context, secret seal.Secret) (*Session, error) {
	return p.keeper.fresh(ctx, secret, demand{passive: true})
}

// FreshSince is Keeper.FreshSince without a use of the session.
func (p Passive) FreshSince(ctx context.Context, secret seal.Secret, since time.Time) (*Session, error) {
	return p.keeper.fresh(ctx, secret, demand{since: since, passive: true})
}

// FreshOtherThan is Keeper.FreshOtherThan without a use of the session.
func (p Passive) FreshOtherThan(ctx context.Context, secret seal.Secret, refused string) (*Session, error) {
	return p.keeper.fresh(ctx, secret, demand{since: farFuture, other: refused, passive: true})
}

package keeper

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// liveRequests holds the requests in progress of every session, so that the end of a
// session also ends them: a WebSocket or an event stream must not outlive its session.
type liveRequests struct {
	shards [liveShards]liveShard
	// checkIdle is called with sessions whose requests in progress have reached the
	// end of their idle time, as far as those know it. It looks up the last use, and
	// then calls setIdleEnd or cancelAll.
	checkIdle func(...session.ID)
}

const liveShards = 64

type liveShard struct {
	mu sync.Mutex
	// requests has the first request of each session; the others are linked to it.
	requests map[session.ID]*Attachment
	// timer fires when the first of the requests reaches a limit of its session, or
	// earlier. timerAt is when; zero: the timer does not run.
	timer   *time.Timer
	timerAt time.Time
	// epochs counts the notifications about sessions of this shard. A request that
	// begins compares the count before and after, to notice a change in between.
	epochs atomic.Uint64
}

func (l *liveRequests) shard(id session.ID) *liveShard { return &l.shards[id[0]%liveShards] }

// epoch returns the current epoch of a session. It is taken before the session is read,
// and compared when the request is attached.
func (l *liveRequests) epoch(id session.ID) uint64 { return l.shard(id).epochs.Load() }

// keeperOf returns the keeper of one of a session's requests in progress, or nil if there
// are none.
func (l *liveRequests) keeperOf(id session.ID) *Keeper {
	shard := l.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if a := shard.requests[id]; a != nil {
		return a.keeper
	}
	return nil
}

// opener returns a keeper that can read the record of a session, and its ref with the
// secret. Both come from a request that began as use of the session; without one, the
// keeper is nil.
func (l *liveRequests) opener(id session.ID) (*Keeper, seal.Ref) {
	shard := l.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for a := shard.requests[id]; a != nil; a = a.next {
		if a.ref.Secret != (seal.Secret{}) {
			return a.keeper, a.ref
		}
	}
	return nil, seal.Ref{}
}

// invalidate begins a new epoch of sessions that may have changed; nil means all
// sessions. It returns those with requests in progress.
func (l *liveRequests) invalidate(ids []session.ID) (inUse []session.ID) {
	if ids == nil {
		for i := range l.shards {
			inUse = append(inUse, l.shards[i].invalidateAll()...)
		}
	}
	for _, id := range ids {
		shard := l.shard(id)
		shard.epochs.Add(1)
		shard.mu.Lock()
		if shard.requests[id] != nil {
			inUse = append(inUse, id)
		}
		shard.mu.Unlock()
	}
	return inUse
}

func (s *liveShard) invalidateAll() []session.ID {
	s.epochs.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.requests))
}

// Attachment binds a request in progress to its session.
type Attachment struct {
	keeper *Keeper
	ref    seal.Ref // without a secret unless the request began as use (AttachUse)
	// maxEnd and expiry are the absolute ends of the session: by MaxLifetime, and by the
	// authorization server. A refresh may move the second one; zero: there is none.
	maxEnd, expiry time.Time
	// idleCheck is when the last use of the session must be looked up.
	idleCheck time.Time
	// lastUse is the last use of the session that is written or being written, as far as
	// the request knows. Zero: the request does not count as use while it is in progress.
	lastUse time.Time
	// tokenEnd is when a stream ends because its access token expires. Zero: it does not.
	tokenEnd time.Time
	cancel   context.CancelCauseFunc

	prev, next *Attachment
}

// Attach returns a context that is cancelled with the cause ErrNoSession when the session
// ends: by a logout, by a refused refresh, at its absolute end, or because for its idle
// time no other request has used it. The request does not count as use while it is in
// progress; see AttachUse. The caller calls Detach when the request is over.
//
// The Attachment must be new. The caller provides it so that it can be a part of another
// allocation.
func (k *Keeper) Attach(ctx context.Context, s *Session, a *Attachment) context.Context {
	*a = k.attachment(s)
	return a.start(ctx, s.epoch)
}

func (k *Keeper) attachment(s *Session) Attachment {
	return Attachment{keeper: k, ref: seal.Ref{ID: s.ID}, maxEnd: s.maxEnd, expiry: s.sessionExpiry, idleCheck: s.IdleEnd.Add(k.useInterval)}
}

// start attaches the request to its session, which was read at the given epoch.
func (a *Attachment) start(ctx context.Context, epoch uint64) context.Context {
	ctx, a.cancel = context.WithCancelCause(ctx)
	v, id := a.keeper.Vault, a.ref.ID
	v.live.add(a)
	// The session may have ended after it was read, in this process or another.
	if v.overlay.get(id).isEnd() {
		a.cancel(ErrNoSession)
	}
	if v.live.epoch(id) != epoch {
		v.check(id)
	}
	return ctx
}

// Detach ends the binding that Attach began, and cancels its context.
func (a *Attachment) Detach() {
	a.keeper.Vault.live.remove(a)
	a.cancel(nil)
}

func (l *liveRequests) add(a *Attachment) {
	s := l.shard(a.ref.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.requests == nil {
		s.requests = map[session.ID]*Attachment{}
	}
	if a.next = s.requests[a.ref.ID]; a.next != nil {
		a.next.prev = a
	}
	s.requests[a.ref.ID] = a
	l.scheduleBy(s, a.nextLimit())
}

func (l *liveRequests) remove(a *Attachment) {
	s := l.shard(a.ref.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	// Another request of the session takes over the earlier check: this one may have
	// begun under a new configuration with a shorter idle time.
	if a.prev != nil {
		a.prev.checkBy(a.idleCheck)
	} else if a.next != nil {
		a.next.checkBy(a.idleCheck)
	}
	if a.next != nil {
		a.next.prev = a.prev
	}
	switch {
	case a.prev != nil:
		a.prev.next = a.next
	case a.next != nil:
		s.requests[a.ref.ID] = a.next
	default:
		delete(s.requests, a.ref.ID)
	}
}

// nextLimit is the earliest time at which something must be done about the request.
func (a *Attachment) nextLimit() time.Time {
	limit := earliest(a.idleCheck, a.end())
	if !a.lastUse.IsZero() {
		limit = earliest(limit, a.nextUse())
	}
	if !a.tokenEnd.IsZero() {
		limit = earliest(limit, a.tokenEnd)
	}
	return limit
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (a *Attachment) end() time.Time { return earlierEnd(a.maxEnd, a.expiry) }

// checkBy moves the idle check to the given time, unless it is earlier.
func (a *Attachment) checkBy(at time.Time) {
	if at.Before(a.idleCheck) {
		a.idleCheck = at
	}
}

// scheduleBy makes the timer of a shard fire at the given time, unless it fires earlier.
func (l *liveRequests) scheduleBy(s *liveShard, at time.Time) {
	if s.timerAt.IsZero() || at.Before(s.timerAt) {
		l.scheduleAt(s, at)
	}
}

func (l *liveRequests) scheduleAt(s *liveShard, at time.Time) {
	s.timerAt = at
	if s.timer == nil {
		s.timer = time.AfterFunc(time.Until(at), func() { l.runTimer(s) })
	} else {
		s.timer.Reset(time.Until(at))
	}
}

func (l *liveRequests) runTimer(s *liveShard) {
	idle, used := l.expire(s)
	for _, u := range used {
		u.keeper.recordUse(u.ref, u.at)
	}
	if idle != nil {
		l.checkIdle(idle...)
	}
}

// expire cancels the requests that have reached a limit. It returns the sessions that may
// be idle, and the uses of sessions by requests in progress that must be recorded.
func (l *liveRequests) expire(s *liveShard) (idle []session.ID, used []use) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var next time.Time
	for id, first := range s.requests {
		check, recorded := false, false
		for a := first; a != nil; a = a.next {
			if a.cancelIfOver(now) {
				continue
			}
			if !now.Before(a.idleCheck) {
				check, a.idleCheck = true, a.end() // until setIdleEnd
			}
			if a.useIsDue(now) {
				if !recorded {
					used = append(used, use{at: now, keeper: a.keeper, ref: a.ref})
				}
				recorded, a.lastUse = true, now
			}
			if limit := a.nextLimit(); next.IsZero() || limit.Before(next) {
				next = limit
			}
		}
		if check {
			idle = append(idle, id)
		}
	}
	s.timerAt = time.Time{}
	if !next.IsZero() {
		l.scheduleAt(s, next)
	}
	return idle, used
}

// cancelIfOver cancels a request whose session has reached its absolute end, or a stream
// whose access token has expired. It reports whether it did.
func (a *Attachment) cancelIfOver(now time.Time) bool {
	switch {
	case !now.Before(a.end()):
		a.cancel(ErrNoSession) // has no effect the second time
	case !a.tokenEnd.IsZero() && !now.Before(a.tokenEnd):
		a.cancel(ErrTokenExpired)
	default:
		return false
	}
	a.lastUse = time.Time{}
	return true
}

// setIdleEnd sets when the idle time of a session ends, for its requests in progress.
func (l *liveRequests) setIdleEnd(id session.ID, idleEnd time.Time) {
	s := l.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := s.requests[id]; a != nil; a = a.next {
		a.idleCheck = idleEnd
		l.scheduleBy(s, a.nextLimit())
	}
}

// setExpiry moves the end that the authorization server has set, for the requests of a
// session in progress.
func (l *liveRequests) setExpiry(id session.ID, expiry time.Time) {
	s := l.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := s.requests[id]; a != nil; a = a.next {
		a.expiry = expiry
		l.scheduleBy(s, a.nextLimit())
	}
}

// cancelAll cancels all requests of a session.
func (l *liveRequests) cancelAll(id session.ID) {
	shard := l.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for a := shard.requests[id]; a != nil; a = a.next {
		a.cancel(ErrNoSession)
		a.lastUse = time.Time{}
	}
}

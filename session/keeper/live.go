package keeper

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// live knows the requests in progress of every session, so that the end of a
// session ends them too: a WebSocket or an event stream must not outlive it.
type liveRequests struct {
	shards [64]liveShard
	// idle is called with sessions with requests in progress that have reached
	// the end of their idle time, unless they were used since. It finds out when
	// that ends now, and calls used or end.
	checkIdle func(...session.ID)
}

type liveShard struct {
	mu sync.Mutex
	// requests are the first of each session's, which are linked.
	requests map[session.ID]*Attachment
	// limit fires when the first of the requests reaches a limit of its session,
	// or earlier; at is when, and zero if it does not run.
	timer   *time.Timer
	timerAt time.Time
	// changes counts what other processes may have done to sessions of this
	// shard, so that a request which begins meanwhile notices.
	epoch atomic.Uint64
}

func (l *liveRequests) shard(id session.ID) *liveShard { return &l.shards[id[0]%64] }

// mark is taken before a session is read, to be compared when the request has
// been registered.
func (l *liveRequests) epoch(id session.ID) uint64 { return l.shard(id).epoch.Load() }

// keeper returns the keeper of one of a session's requests in progress, or nil if
// there are none.
func (l *liveRequests) keeperOf(id session.ID) *Keeper {
	shard := l.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if a := shard.requests[id]; a != nil {
		return a.keeper
	}
	return nil
}

// changed notes that sessions were changed, or with nil that any may have been,
// and returns those with requests in progress.
func (l *liveRequests) invalidate(ids []session.ID) (inUse []session.ID) {
	if ids == nil {
		for i := range l.shards {
			inUse = append(inUse, l.shards[i].invalidateAll()...)
		}
	}
	for _, id := range ids {
		shard := l.shard(id)
		shard.epoch.Add(1)
		shard.mu.Lock()
		if shard.requests[id] != nil {
			inUse = append(inUse, id)
		}
		shard.mu.Unlock()
	}
	return inUse
}

func (s *liveShard) invalidateAll() []session.ID {
	s.epoch.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.requests))
}

// Attachment binds a request in progress to its session.
type Attachment struct {
	keeper    *Keeper
	id        session.ID
	end       time.Time // absolute limit
	idleCheck time.Time // when the last use of the session is to be looked up
	cancel    context.CancelCauseFunc

	prev, next *Attachment
}

// Attach returns a context that is cancelled when the session ends, by logout,
// by a refused refresh, at its absolute limit or because nothing but this
// request has used it for its idle time. The context's cause is then
// ErrNoSession. The caller calls Detach when the request is over.
//
// The Attachment is new; it is the caller's so that it can be a part of what
// that keeps for a request anyway.
func (k *Keeper) Attach(ctx context.Context, s *Session, a *Attachment) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	l := &k.Vault.live
	*a = Attachment{keeper: k, id: s.ID, end: s.End, idleCheck: s.IdleEnd.Add(k.useInterval), cancel: cancel}
	l.add(a)
	// It may have ended since it was looked up, here or elsewhere.
	if k.Vault.overlay.get(s.ID).isEnd() {
		cancel(ErrNoSession)
	}
	if l.epoch(s.ID) != s.epoch {
		k.Vault.check(s.ID)
	}
	return ctx
}

// Detach ends what Attach began, and cancels its context.
func (a *Attachment) Detach() {
	a.keeper.Vault.live.remove(a)
	a.cancel(nil)
}

func (l *liveRequests) add(a *Attachment) {
	s := l.shard(a.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.requests == nil {
		s.requests = map[session.ID]*Attachment{}
	}
	if a.next = s.requests[a.id]; a.next != nil {
		a.next.prev = a
	}
	s.requests[a.id] = a
	l.scheduleBy(s, a.nextLimit())
}

func (l *liveRequests) remove(a *Attachment) {
	s := l.shard(a.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	// What this request knew of a nearer end counts for the others: a new
	// configuration may have shortened the idle time.
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
		s.requests[a.id] = a.next
	default:
		delete(s.requests, a.id)
	}
}

// limit is when something is to be done about a request.
func (a *Attachment) nextLimit() time.Time {
	if a.idleCheck.Before(a.end) {
		return a.idleCheck
	}
	return a.end
}

// lookBy makes a request be looked at by then, if not before.
func (a *Attachment) checkBy(idle time.Time) {
	if idle.Before(a.idleCheck) {
		a.idleCheck = idle
	}
}

// fireBy makes the timer of a shard fire by then, if not before.
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

// fire cancels the requests whose sessions have reached their absolute limit,
// and has those looked at that may be idle.
func (l *liveRequests) runTimer(s *liveShard) {
	if idle := l.expire(s); idle != nil {
		l.checkIdle(idle...)
	}
}

func (l *liveRequests) expire(s *liveShard) (idle []session.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var next time.Time
	for id, first := range s.requests {
		look := false
		for a := first; a != nil; a = a.next {
			if !now.Before(a.end) {
				a.cancel(ErrNoSession) // once more does nothing
				continue
			}
			if !now.Before(a.idleCheck) {
				look, a.idleCheck = true, a.end // until it is known
			}
			if limit := a.nextLimit(); next.IsZero() || limit.Before(next) {
				next = limit
			}
		}
		if look {
			idle = append(idle, id)
		}
	}
	s.timerAt = time.Time{}
	if !next.IsZero() {
		l.scheduleAt(s, next)
	}
	return idle
}

// used sets when the idle time of a session ends.
func (l *liveRequests) setIdleEnd(id session.ID, idleEnd time.Time) {
	s := l.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := s.requests[id]; a != nil; a = a.next {
		a.idleCheck = idleEnd
		l.scheduleBy(s, a.nextLimit())
	}
}

// end cancels all requests of a session.
func (l *liveRequests) cancelAll(id session.ID) {
	shard := l.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for a := shard.requests[id]; a != nil; a = a.next {
		a.cancel(ErrNoSession)
	}
}

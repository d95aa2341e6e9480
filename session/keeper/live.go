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
type live struct {
	shards [64]liveShard
	// idle is called with sessions with requests in progress that have reached
	// the end of their idle time, unless they were used since. It finds out when
	// that ends now, and calls used or end.
	idle func(...session.ID)
}

type liveShard struct {
	mu sync.Mutex
	// requests are the first of each session's, which are linked.
	requests map[session.ID]*Attachment
	// limit fires when the first of the requests reaches a limit of its session,
	// or earlier; at is when, and zero if it does not run.
	limit *time.Timer
	at    time.Time
	// changes counts what other processes may have done to sessions of this
	// shard, so that a request which begins meanwhile notices.
	changes atomic.Uint64
}

func (l *live) shard(id session.ID) *liveShard { return &l.shards[id[0]%64] }

// mark is taken before a session is read, to be compared when the request has
// been registered.
func (l *live) mark(id session.ID) uint64 { return l.shard(id).changes.Load() }

// keeper returns the keeper of one of a session's requests in progress, or nil if
// there are none.
func (l *live) keeper(id session.ID) *Keeper {
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
func (l *live) changed(ids []session.ID) (inUse []session.ID) {
	if ids == nil {
		for i := range l.shards {
			inUse = append(inUse, l.shards[i].changed()...)
		}
	}
	for _, id := range ids {
		shard := l.shard(id)
		shard.changes.Add(1)
		shard.mu.Lock()
		if shard.requests[id] != nil {
			inUse = append(inUse, id)
		}
		shard.mu.Unlock()
	}
	return inUse
}

func (s *liveShard) changed() []session.ID {
	s.changes.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.requests))
}

// Attachment binds a request in progress to its session.
type Attachment struct {
	keeper *Keeper
	id     session.ID
	end    time.Time // absolute limit
	idle   time.Time // when the last use of the session is to be looked up
	cancel context.CancelCauseFunc

	before, after *Attachment
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
	l := &k.vault.live
	*a = Attachment{keeper: k, id: s.ID, end: s.End, idle: s.IdleEnd.Add(k.touchEvery), cancel: cancel}
	l.add(a)
	// It may have ended since it was looked up, here or elsewhere.
	if k.vault.overlay.get(s.ID).isEnd() {
		cancel(ErrNoSession)
	}
	if l.mark(s.ID) != s.mark {
		k.vault.check(s.ID)
	}
	return ctx
}

// Detach ends what Attach began, and cancels its context.
func (a *Attachment) Detach() {
	a.keeper.vault.live.remove(a)
	a.cancel(nil)
}

func (l *live) add(a *Attachment) {
	s := l.shard(a.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.requests == nil {
		s.requests = map[session.ID]*Attachment{}
	}
	if a.after = s.requests[a.id]; a.after != nil {
		a.after.before = a
	}
	s.requests[a.id] = a
	l.fireBy(s, a.limit())
}

func (l *live) remove(a *Attachment) {
	s := l.shard(a.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	// What this request knew of a nearer end counts for the others: a new
	// configuration may have shortened the idle time.
	if a.before != nil {
		a.before.lookBy(a.idle)
	} else if a.after != nil {
		a.after.lookBy(a.idle)
	}
	if a.after != nil {
		a.after.before = a.before
	}
	switch {
	case a.before != nil:
		a.before.after = a.after
	case a.after != nil:
		s.requests[a.id] = a.after
	default:
		delete(s.requests, a.id)
	}
}

// limit is when something is to be done about a request.
func (a *Attachment) limit() time.Time {
	if a.idle.Before(a.end) {
		return a.idle
	}
	return a.end
}

// lookBy makes a request be looked at by then, if not before.
func (a *Attachment) lookBy(idle time.Time) {
	if idle.Before(a.idle) {
		a.idle = idle
	}
}

// fireBy makes the timer of a shard fire by then, if not before.
func (l *live) fireBy(s *liveShard, at time.Time) {
	if s.at.IsZero() || at.Before(s.at) {
		l.fireAt(s, at)
	}
}

func (l *live) fireAt(s *liveShard, at time.Time) {
	s.at = at
	if s.limit == nil {
		s.limit = time.AfterFunc(time.Until(at), func() { l.fire(s) })
	} else {
		s.limit.Reset(time.Until(at))
	}
}

// fire cancels the requests whose sessions have reached their absolute limit,
// and has those looked at that may be idle.
func (l *live) fire(s *liveShard) {
	if idle := l.overdue(s); idle != nil {
		l.idle(idle...)
	}
}

func (l *live) overdue(s *liveShard) (idle []session.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var next time.Time
	for id, first := range s.requests {
		look := false
		for a := first; a != nil; a = a.after {
			if !now.Before(a.end) {
				a.cancel(ErrNoSession) // once more does nothing
				continue
			}
			if !now.Before(a.idle) {
				look, a.idle = true, a.end // until it is known
			}
			if limit := a.limit(); next.IsZero() || limit.Before(next) {
				next = limit
			}
		}
		if look {
			idle = append(idle, id)
		}
	}
	s.at = time.Time{}
	if !next.IsZero() {
		l.fireAt(s, next)
	}
	return idle
}

// used sets when the idle time of a session ends.
func (l *live) used(id session.ID, idleEnd time.Time) {
	s := l.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := s.requests[id]; a != nil; a = a.after {
		a.idle = idleEnd
		l.fireBy(s, a.limit())
	}
}

// end cancels all requests of a session.
func (l *live) end(id session.ID) {
	shard := l.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for a := shard.requests[id]; a != nil; a = a.after {
		a.cancel(ErrNoSession)
	}
}

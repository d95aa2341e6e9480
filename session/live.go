package session

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// live knows the requests in progress of every session, so that the end of a
// session ends them too: a WebSocket or an event stream must not outlive it.
type live struct{ shards [64]liveShard }

type liveShard struct {
	mu sync.Mutex
	// requests are the first of each session's, which are linked.
	requests map[ID]*Attachment
	// limit fires when the first of the requests reaches its session's absolute
	// limit, or earlier; at is when, and zero if it does not run.
	limit *time.Timer
	at    time.Time
	// changes counts what other processes may have done to sessions of this
	// shard, so that a request which begins meanwhile notices.
	changes atomic.Uint64
}

func (l *live) shard(id ID) *liveShard { return &l.shards[id[0]%64] }

// mark is taken before a session is read, to be compared when the request has
// been registered.
func (l *live) mark(id ID) uint64 { return l.shard(id).changes.Load() }

// inUse reports whether a session has requests in progress.
func (l *live) inUse(id ID) bool {
	shard := l.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return shard.requests[id] != nil
}

// changed notes that sessions were changed, or with nil that any may have been,
// and returns those with requests in progress.
func (l *live) changed(ids []ID) (inUse []ID) {
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

func (s *liveShard) changed() []ID {
	s.changes.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.requests))
}

// Attachment binds a request in progress to its session.
type Attachment struct {
	shard  *liveShard
	id     ID
	end    time.Time // absolute limit
	cancel context.CancelCauseFunc

	before, after *Attachment
}

// Attach returns a context that is cancelled when the session ends, by logout,
// by a refused refresh or at its absolute limit. The context's cause is then
// ErrNoSession. The caller calls Detach when the request is over.
func (k *Keeper) Attach(ctx context.Context, s *Session) (context.Context, *Attachment) {
	ctx, cancel := context.WithCancelCause(ctx)
	shard := k.vault.live.shard(s.ID)
	a := &Attachment{shard: shard, id: s.ID, end: s.End, cancel: cancel}
	shard.add(a)
	// It may have ended since it was looked up, here or elsewhere.
	if k.vault.overlay.get(s.ID).isEnd() {
		cancel(ErrNoSession)
	}
	if shard.changes.Load() != s.mark {
		k.vault.check(s.ID)
	}
	return ctx, a
}

// Detach ends what Attach began, and cancels its context.
func (a *Attachment) Detach() {
	a.shard.remove(a)
	a.cancel(nil)
}

func (s *liveShard) add(a *Attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.requests == nil {
		s.requests = map[ID]*Attachment{}
	}
	if a.after = s.requests[a.id]; a.after != nil {
		a.after.before = a
	}
	s.requests[a.id] = a
	if s.at.IsZero() || a.end.Before(s.at) {
		s.limitAt(a.end)
	}
}

func (s *liveShard) remove(a *Attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
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

func (s *liveShard) limitAt(at time.Time) {
	s.at = at
	if s.limit == nil {
		s.limit = time.AfterFunc(time.Until(at), s.endOverdue)
	} else {
		s.limit.Reset(time.Until(at))
	}
}

// endOverdue cancels the requests whose sessions have reached their limit.
func (s *liveShard) endOverdue() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var next time.Time
	for _, first := range s.requests {
		for a := first; a != nil; a = a.after {
			switch {
			case !now.Before(a.end):
				a.cancel(ErrNoSession) // once more does nothing
			case next.IsZero() || a.end.Before(next):
				next = a.end
			}
		}
	}
	s.at = time.Time{}
	if !next.IsZero() {
		s.limitAt(next)
	}
}

// end cancels all requests of a session.
func (l *live) end(id ID) {
	shard := l.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for a := shard.requests[id]; a != nil; a = a.after {
		a.cancel(ErrNoSession)
	}
}

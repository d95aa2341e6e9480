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
	mu       sync.Mutex
	requests map[ID]map[*liveRequest]struct{}
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
	return len(shard.requests[id]) > 0
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
		if len(shard.requests[id]) > 0 {
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

type liveRequest struct{ cancel context.CancelCauseFunc }

// Attach returns a context that is cancelled when the session ends, by logout,
// by a refused refresh or at its absolute limit. The context's cause is then
// ErrNoSession. The caller calls detach when the request is over.
func (k *Keeper) Attach(ctx context.Context, s *Session) (attached context.Context, detach func()) {
	attached, cancel := context.WithCancelCause(ctx)
	r := &liveRequest{cancel: cancel}
	limit := time.AfterFunc(time.Until(s.End), func() { cancel(ErrNoSession) })
	shard := k.vault.live.shard(s.ID)
	shard.mu.Lock()
	if shard.requests == nil {
		shard.requests = map[ID]map[*liveRequest]struct{}{}
	}
	set := shard.requests[s.ID]
	if set == nil {
		set = map[*liveRequest]struct{}{}
		shard.requests[s.ID] = set
	}
	set[r] = struct{}{}
	shard.mu.Unlock()
	// It may have ended since it was looked up, here or elsewhere.
	if k.vault.overlay.get(s.ID).isEnd() {
		cancel(ErrNoSession)
	}
	if shard.changes.Load() != s.mark {
		k.vault.check(s.ID)
	}
	return attached, func() {
		limit.Stop()
		shard.mu.Lock()
		delete(set, r)
		if len(set) == 0 && len(shard.requests[s.ID]) == 0 {
			delete(shard.requests, s.ID)
		}
		shard.mu.Unlock()
		cancel(nil)
	}
}

// end cancels all requests of a session.
func (l *live) end(id ID) {
	shard := l.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for r := range shard.requests[id] {
		r.cancel(ErrNoSession)
	}
}

package session

import (
	"context"
	"sync"
	"time"
)

// live knows the requests in progress of every session, so that the end of a
// session ends them too: a WebSocket or an event stream must not outlive it.
type live struct {
	shards [16]struct {
		mu       sync.Mutex
		requests map[ID]map[*liveRequest]struct{}
	}
}

type liveRequest struct{ cancel context.CancelCauseFunc }

// Attach returns a context that is cancelled when the session ends, by logout,
// by a refused refresh or at its absolute limit. The context's cause is then
// ErrNoSession. The caller calls detach when the request is over.
func (k *Keeper) Attach(ctx context.Context, s *Session) (attached context.Context, detach func()) {
	attached, cancel := context.WithCancelCause(ctx)
	r := &liveRequest{cancel: cancel}
	limit := time.AfterFunc(time.Until(s.End), func() { cancel(ErrNoSession) })
	shard := &k.vault.live.shards[s.ID[0]%16]
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
	// It may have ended since it was looked up.
	if e := k.vault.overlay.get(s.ID); e != nil && e.rec == nil {
		cancel(ErrNoSession)
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
	shard := &l.shards[id[0]%16]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for r := range shard.requests[id] {
		r.cancel(ErrNoSession)
	}
}

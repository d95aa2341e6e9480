package keeper

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// uses holds the last uses of sessions that the store does not have yet. They count as
// uses all the same: a store that takes no writes ends no session that is in use.
type uses struct {
	mu      sync.Mutex
	pending map[session.ID]*use
	// queue has the next uses to write. There are useWriters writers at most:
	// many sessions may be used again at once, and each writer waits for the store.
	queue    []session.ID
	writers  int
	retrying bool      // retryUses is running
	prunedAt time.Time // when uses of expired sessions were last removed
}

// use is the last use of one session.
type use struct {
	at      time.Time
	keeper  *Keeper
	ref     seal.Ref
	queued  bool      // it is in the queue, or being written
	retryAt time.Time // after a failure: no request queues it before
}

const (
	// useRetry is the pause before a failed write of a use is repeated.
	useRetry = 5 * time.Second
	// maxRetryFailures is the number of failed writes after which a round of retries
	// ends.
	maxRetryFailures = 3
	// maxPendingUses bounds the memory during a long outage of the store. Beyond it,
	// uses of further sessions are not kept.
	maxPendingUses = 1 << 18
	// useWriters is the number of writes that a store handles well at a time.
	useWriters = 256
)

// recordUse records a use of a session and has it written.
func (k *Keeper) recordUse(ref seal.Ref, now time.Time) {
	u := &k.Vault.uses
	if u.noteAndQueue(ref, k, now) && !k.Vault.background(u.writeQueue) {
		u.mu.Lock()
		u.writers-- // the vault is closing, and its flush writes the queue
		u.mu.Unlock()
	}
}

// recordUseAfterRefresh has a use written that happened during a refresh, if it is later
// than the one that the refresh has written by useInterval or more. The zero time means
// that the refresh has written none.
func (k *Keeper) recordUseAfterRefresh(id session.ID, written time.Time) {
	if n, ok := k.Vault.uses.takeLater(id, written, k.useInterval); ok {
		k.recordUse(n.ref, n.at)
	}
}

// noteForRefresh keeps a use that the refresh in progress will write with its tokens.
func (u *uses) noteForRefresh(ref seal.Ref, k *Keeper, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.noteLocked(ref, k, now)
}

// noteAndQueue keeps a use and queues it, except during the pause after a failure. It
// reports whether the caller must start a writer.
func (u *uses) noteAndQueue(ref seal.Ref, k *Keeper, now time.Time) (startWriter bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.noteLocked(ref, k, now)
	if n == nil || n.queued || now.Before(n.retryAt) {
		return false
	}
	n.queued = true
	u.queue = append(u.queue, ref.ID)
	if u.writers == useWriters {
		return false
	}
	u.writers++
	return true
}

// noteLocked keeps a use and returns it, or nil if there are too many.
func (u *uses) noteLocked(ref seal.Ref, k *Keeper, now time.Time) *use {
	n := u.pending[ref.ID]
	if n == nil {
		if len(u.pending) >= maxPendingUses && now.Sub(u.prunedAt) > useRetry {
			u.prunedAt = now
			maps.DeleteFunc(u.pending, func(_ session.ID, n *use) bool { return now.Sub(n.at) > n.keeper.IdleTimeout })
		}
		if len(u.pending) >= maxPendingUses {
			return nil
		}
		if u.pending == nil {
			u.pending = map[session.ID]*use{}
		}
		n = &use{ref: ref}
		u.pending[ref.ID] = n
	}
	n.at, n.keeper = now, k
	return n
}

// last returns the last use that is not written yet, or the zero time.
func (u *uses) last(id session.ID) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := u.pending[id]; n != nil {
		return n.at
	}
	return time.Time{}
}

func (u *uses) forget(id session.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.pending, id)
}

// takeLater returns the pending use of a session if it is later than the written one by
// interval or more, and forgets it otherwise. A use in the queue stays there.
func (u *uses) takeLater(id session.ID, written time.Time, interval time.Duration) (later use, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.pending[id]
	if n == nil || n.queued {
		return use{}, false
	}
	if n.at.Sub(written) < interval {
		delete(u.pending, id)
		return use{}, false
	}
	return *n, true
}

// flush has all pending uses written once more.
func (u *uses) flush(v *Vault) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, n := range u.pending {
		if !n.queued {
			n.queued = true
			u.queue = append(u.queue, id)
		}
	}
	for range min(len(u.queue), useWriters-u.writers) {
		u.writers++
		v.running.Go(u.writeQueue)
	}
}

// writeQueue is one writer. It ends when the queue is empty.
func (u *uses) writeQueue() {
	for n, ok := u.nextQueued(); ok; n, ok = u.nextQueued() {
		if !n.write() {
			n.keeper.Vault.retryUses()
		}
	}
}

// nextQueued takes a use out of the queue. If there is none, the writer ends.
func (u *uses) nextQueued() (n use, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.queue) > 0 {
		id := u.queue[0]
		u.queue = u.queue[1:]
		if found := u.pending[id]; found != nil {
			return *found, true
		}
	}
	u.queue = nil
	u.writers--
	return use{}, false
}

// retryUses writes the pending uses every useRetry until none is left, also if no request
// uses their sessions again: other instances decide by the written use.
func (v *Vault) retryUses() {
	v.uses.mu.Lock()
	retrying := v.uses.retrying
	v.uses.retrying = true
	v.uses.mu.Unlock() // join locks the vault first, then uses
	if retrying {
		return
	}
	v.background(func() {
		for sleep(v.closing, useRetry) && v.uses.retry() {
		}
	})
}

// retry writes the pending uses one after the other, until maxRetryFailures have failed.
// It reports whether another round is needed.
func (u *uses) retry() (more bool) {
	tried := map[session.ID]bool{}
	for failures := 0; failures < maxRetryFailures; {
		n, left := u.nextPending(tried)
		if n == nil {
			return left
		}
		if !n.write() {
			failures++
		}
	}
	return true
}

// nextPending returns a use that is neither tried nor queued, or nil. left reports whether
// any use is pending; if none is, the retries end.
func (u *uses) nextPending(tried map[session.ID]bool) (next *use, left bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.pending) == 0 {
		u.retrying = false
		return nil, false
	}
	for id, n := range u.pending {
		if !n.queued && !tried[id] {
			tried[id], n.queued = true, true
			taken := *n
			return &taken, true
		}
	}
	return nil, true
}

// write writes a use and reports whether that is done.
func (n *use) write() (done bool) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	var err error
	// A refresh may write the session at the same time, with an earlier use.
	for range 3 {
		if err = n.keeper.writeUse(ctx, n.ref, n.at); !errors.Is(err, errRefreshedElsewhere) {
			break
		}
	}
	done = err == nil || errors.Is(err, ErrNoSession)
	n.keeper.Vault.uses.finishWrite(n.ref.ID, n.at, done)
	return done
}

// finishWrite removes a written use, unless there is a later one now. After a failure it
// keeps the use for the next try.
func (u *uses) finishWrite(id session.ID, at time.Time, done bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.pending[id]
	switch {
	case n == nil:
	case done && !n.at.After(at):
		delete(u.pending, id)
	case done:
		n.queued = false
	default:
		n.queued, n.retryAt = false, time.Now().Add(useRetry)
	}
}

func (k *Keeper) writeUse(ctx context.Context, ref seal.Ref, at time.Time) error {
	if e := k.Vault.overlay.get(ref.ID); e != nil {
		if e.rec != nil {
			rec := *e.rec
			rec.lastUsed = at
			k.Vault.overlay.replace(ref.ID, e, &overlayEntry{rec: &rec, ref: ref})
		}
		return nil
	}
	// The cache entry of this session may be older than the item: a write that was
	// reported to fail may have been done.
	defer k.Vault.cache.forget(ref.ID)
	rec, err := k.readStored(ctx, ref)
	if err != nil {
		return readError(err)
	}
	if at.Sub(rec.lastUsed) < time.Duration(k.siteInterval.Load()) {
		k.Vault.live.setLastUse(ref.ID, rec.lastUsed)
		return nil
	}
	rec.lastUsed = at
	return k.write(ctx, ref, rec)
}

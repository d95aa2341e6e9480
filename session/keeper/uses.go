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

// uses are the last uses of sessions that are not written down yet. What is
// noted here counts, so that a store that takes no writes for a while ends no
// session that was used meanwhile.
type uses struct {
	mu       sync.Mutex
	pending  map[session.ID]*use
	retrying bool
	// due are those to be written now, by a few writers: many sessions may come
	// back at once, and each writer waits for the store.
	due     []session.ID
	writers int
	cleaned time.Time // when what is of no use any more was looked for
}

// use is the last use of one session.
type use struct {
	at      time.Time
	keeper  *Keeper
	ref     seal.Ref
	queued  bool      // it is due, or being written
	retryAt time.Time // not before, after a failure
}

const (
	useRetry = 5 * time.Second
	// usesNoted bounds what a long outage of the store takes in memory. Beyond
	// it, uses are not noted.
	maxPendingUses = 1 << 18
	// useWriters is as many writes as a store takes well at a time.
	useWriters = 256
)

// keep notes a use, which is written with something else.
func (u *uses) noteForRefresh(ref seal.Ref, k *Keeper, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.noteLocked(ref, k, now)
}

// noteLocked notes a use and returns it, or nil if there are too many.
func (u *uses) noteLocked(ref seal.Ref, k *Keeper, now time.Time) *use {
	n := u.pending[ref.ID]
	if n == nil {
		if len(u.pending) >= maxPendingUses && now.Sub(u.cleaned) > useRetry {
			u.cleaned = now
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

// note keeps a use until it is written, and reports whether a writer is wanted.
func (u *uses) noteAndQueue(ref seal.Ref, k *Keeper, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.noteLocked(ref, k, now)
	if n == nil || n.queued || now.Before(n.retryAt) {
		return false
	}
	n.queued = true
	u.due = append(u.due, ref.ID)
	if u.writers == useWriters {
		return false
	}
	u.writers++ // those there are are at work
	return true
}

// next returns a use that is due. Without one the writer is done.
func (u *uses) next() (n use, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.due) > 0 {
		id := u.due[0]
		u.due = u.due[1:]
		if found := u.pending[id]; found != nil {
			return *found, true
		}
	}
	u.due = nil
	u.writers--
	return use{}, false
}

// write writes what is due.
func (u *uses) write() {
	for {
		n, ok := u.next()
		if !ok {
			return
		}
		n.keeper.writeUse(n.ref, n.at)
	}
}

// tried takes a use away that has been written, unless a later one came
// meanwhile, and otherwise keeps it for the next try.
func (u *uses) finishWrite(id session.ID, at time.Time, written bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.pending[id]
	switch {
	case n == nil:
	case written && !n.at.After(at):
		delete(u.pending, id)
	case written:
		n.queued = false
	default:
		n.queued, n.retryAt = false, time.Now().Add(useRetry)
	}
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

// flush tries once more to write what is noted.
func (u *uses) flush(v *Vault) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, n := range u.pending {
		if !n.queued {
			n.queued = true
			u.due = append(u.due, id)
		}
	}
	for range min(len(u.due), useWriters-u.writers) {
		u.writers++
		v.running.Go(u.write)
	}
}

// touch writes down that a session is used.
func (k *Keeper) recordUse(ref seal.Ref, now time.Time) {
	u := &k.Vault.uses
	if u.noteAndQueue(ref, k, now) && !k.Vault.background(u.write) {
		u.mu.Lock()
		u.writers-- // the vault is closed: what is due stays so
		u.mu.Unlock()
	}
}

// touchAfter follows a refresh, which has written down a use at a time, or none
// if that is zero: what was noted meanwhile and is later is still to be written.
func (k *Keeper) recordUseAfterRefresh(id session.ID, written time.Time) {
	if n, wanted := k.Vault.uses.takeLater(id, written, k.useInterval); wanted {
		k.recordUse(n.ref, n.at)
	}
}

// after returns a noted use that nobody writes, if it is that much later than
// the one which was written; if not, it is forgotten.
func (u *uses) takeLater(id session.ID, written time.Time, every time.Duration) (later use, wanted bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.pending[id]
	if n == nil || n.queued {
		return use{}, false
	}
	if n.at.Sub(written) < every {
		delete(u.pending, id)
		return use{}, false
	}
	return *n, true
}

func (k *Keeper) writeUse(ref seal.Ref, at time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	var err error
	// Somebody may refresh at the same time, with an earlier use.
	for range 3 {
		if err = k.tryWriteUse(ctx, ref, at); !errors.Is(err, errRefreshedElsewhere) {
			break
		}
	}
	written := err == nil || errors.Is(err, ErrNoSession)
	k.Vault.uses.finishWrite(ref.ID, at, written)
	if !written {
		k.Vault.retryUses()
	}
}

// retryUses sees to it that what is noted gets written also if the session is
// not used again: another instance judges by what is written.
func (v *Vault) retryUses() {
	v.uses.mu.Lock()
	retrying := v.uses.retrying
	v.uses.retrying = true
	v.uses.mu.Unlock() // before the vault's, which a flight that begins has
	if retrying {
		return
	}
	v.background(func() {
		for pending := true; pending; {
			select {
			case <-time.After(useRetry):
			case <-v.closing.Done():
				return
			}
			pending = v.uses.retry()
		}
	})
}

// retry tries to write all that is noted, one after the other, until several
// fail. It reports whether anything is left.
func (u *uses) retry() bool {
	tried := map[session.ID]bool{}
	for failed := 0; failed < 3; {
		u.mu.Lock()
		if len(u.pending) == 0 {
			u.retrying = false
			u.mu.Unlock()
			return false
		}
		var id session.ID
		var n *use
		for id, n = range u.pending {
			if !n.queued && !tried[id] {
				break
			}
			n = nil
		}
		if n == nil {
			u.mu.Unlock()
			return true
		}
		tried[id], n.queued = true, true
		k, ref, at := n.keeper, n.ref, n.at
		u.mu.Unlock()
		k.writeUse(ref, at)
		if !u.last(id).IsZero() {
			failed++
		}
	}
	return true
}

func (k *Keeper) tryWriteUse(ctx context.Context, ref seal.Ref, at time.Time) error {
	if e := k.Vault.overlay.get(ref.ID); e != nil {
		if e.rec != nil {
			rec := *e.rec
			rec.lastUsed = at
			k.Vault.overlay.replace(ref.ID, e, &overlayEntry{rec: &rec, ref: ref})
		}
		return nil
	}
	// What made the request note its use may be behind what the store has, after a
	// write that was reported to fail.
	defer k.Vault.cache.forget(ref.ID)
	rec, err := k.readStored(ctx, ref)
	if err != nil {
		return readError(err)
	}
	if at.Sub(rec.lastUsed) < k.useInterval {
		return nil
	}
	rec.lastUsed = at
	return k.write(ctx, ref, rec)
}

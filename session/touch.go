package session

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"
)

// uses are the last uses of sessions that are not written down yet. What is
// noted here counts, so that a store that takes no writes for a while ends no
// session that was used meanwhile.
type uses struct {
	mu       sync.Mutex
	noted    map[ID]*use
	retrying bool
}

// use is the last use of one session.
type use struct {
	at      time.Time
	keeper  *Keeper
	secret  Secret
	busy    bool      // it is being written
	retryAt time.Time // not before, after a failure
}

const (
	touchRetry = 5 * time.Second
	// usesNoted bounds what a long outage of the store takes in memory. Beyond
	// it, uses are not noted.
	usesNoted = 1 << 18
)

// note keeps a use until it is written, and reports whether it is time to try.
func (u *uses) note(id ID, k *Keeper, secret Secret, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.noted[id]
	if n == nil {
		if len(u.noted) >= usesNoted {
			maps.DeleteFunc(u.noted, func(_ ID, n *use) bool { return now.Sub(n.at) > n.keeper.IdleTimeout })
		}
		if len(u.noted) >= usesNoted {
			return false
		}
		if u.noted == nil {
			u.noted = map[ID]*use{}
		}
		n = &use{}
		u.noted[id] = n
	}
	n.at, n.keeper, n.secret = now, k, secret
	if n.busy || now.Before(n.retryAt) {
		return false
	}
	n.busy = true
	return true
}

// tried takes a use away that has been written, unless a later one came
// meanwhile, and otherwise keeps it for the next try.
func (u *uses) tried(id ID, at time.Time, written bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.noted[id]
	switch {
	case n == nil:
	case written && !n.at.After(at):
		delete(u.noted, id)
	case written:
		n.busy = false
	default:
		n.busy, n.retryAt = false, time.Now().Add(touchRetry)
	}
}

// last returns the last use that is not written yet, or the zero time.
func (u *uses) last(id ID) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := u.noted[id]; n != nil {
		return n.at
	}
	return time.Time{}
}

func (u *uses) forget(id ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.noted, id)
}

// flush tries once more to write what is noted.
func (u *uses) flush(v *Vault) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, n := range u.noted {
		if !n.busy {
			n.busy = true
			k, secret, at := n.keeper, n.secret, n.at
			v.running.Go(func() { k.writeUse(id, secret, at) })
		}
	}
}

// touch writes down that a session is used.
func (k *Keeper) touch(id ID, secret Secret, now time.Time) {
	if k.vault.uses.note(id, k, secret, now) {
		k.vault.background(func() { k.writeUse(id, secret, now) })
	}
}

func (k *Keeper) writeUse(id ID, secret Secret, at time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	var err error
	// Somebody may refresh at the same time, with an earlier use.
	for range 3 {
		if err = k.tryWriteUse(ctx, id, secret, at); !errors.Is(err, errOvertaken) {
			break
		}
	}
	written := err == nil || errors.Is(err, ErrNoSession)
	k.vault.uses.tried(id, at, written)
	if !written {
		k.vault.retryUses()
	}
}

// retryUses sees to it that what is noted gets written also if the session is
// not used again: another instance judges by what is written.
func (v *Vault) retryUses() {
	v.uses.mu.Lock()
	defer v.uses.mu.Unlock()
	if v.uses.retrying {
		return
	}
	v.uses.retrying = true
	v.background(func() {
		for pending := true; pending; {
			select {
			case <-time.After(touchRetry):
			case <-v.stop.Done():
				return
			}
			pending = v.uses.retry()
		}
	})
}

// retry tries to write all that is noted, one after the other, until several
// fail. It reports whether anything is left.
func (u *uses) retry() bool {
	tried := map[ID]bool{}
	for failed := 0; failed < 3; {
		u.mu.Lock()
		if len(u.noted) == 0 {
			u.retrying = false
			u.mu.Unlock()
			return false
		}
		var id ID
		var n *use
		for id, n = range u.noted {
			if !n.busy && !tried[id] {
				break
			}
			n = nil
		}
		if n == nil {
			u.mu.Unlock()
			return true
		}
		tried[id], n.busy = true, true
		k, secret, at := n.keeper, n.secret, n.at
		u.mu.Unlock()
		k.writeUse(id, secret, at)
		if !u.last(id).IsZero() {
			failed++
		}
	}
	return true
}

func (k *Keeper) tryWriteUse(ctx context.Context, id ID, secret Secret, at time.Time) error {
	if e := k.vault.overlay.get(id); e != nil {
		if e.rec != nil {
			rec := *e.rec
			rec.seen = at
			k.vault.overlay.replace(id, e, &overlayEntry{rec: &rec, secret: e.secret})
		}
		return nil
	}
	rec, err := k.readStored(ctx, id, secret)
	if err != nil {
		return readError(err)
	}
	if at.Sub(rec.seen) < k.touchEvery {
		return nil
	}
	rec.seen = at
	return k.write(ctx, id, secret, rec)
}

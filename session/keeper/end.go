package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// Ended is what is left of a session that was ended on purpose.
type Ended struct {
	Subject      string
	SID          string
	IDToken      string
	RefreshToken string
	AccessToken  string
}

// End ends a session, whatever is in flight. If the store cannot delete the
// record now, the session is over in this process all the same, and the
// deletion is repeated until it succeeds.
//
// The error is ErrNoSession; or an *UnavailableError when the record could not
// be read, so that its tokens are not known, or when other processes use the
// store and it did not take the deletion: for them the session goes on, and
// ending it has to be repeated. It is ErrNotEnded too, then, and what is known
// of the session is returned as well.
func (k *Keeper) End(ctx context.Context, secret seal.Secret, reason EndReason) (Ended, error) {
	ref := k.Site.Ref(secret)
	if k.endIsUnwritten(ref.ID) {
		return Ended{}, k.retryEnd(ctx, ref.ID)
	}
	for tries := 1; ; tries++ {
		rec, err := k.read(ctx, ref)
		if errors.Is(err, ErrNoSession) {
			return Ended{}, err
		}
		if err != nil && k.Vault.overlay.count.Load() >= maxUnverifiedEnds {
			return Ended{}, err
		}
		if err != nil {
			_ = k.endSession(ctx, ref.ID, reason)
			if k.endIsUnwritten(ref.ID) {
				err = errEndUnwritten
			}
			return Ended{}, err
		}
		// Where somebody refreshes at the same time, it is the newest token that
		// has to be given back.
		if k.Vault.shared != nil && tries < 3 && errors.Is(k.endSessionAt(ctx, ref.ID, rec.version, session.Holder{}, reason), errStale) {
			continue
		}
		_ = k.endSession(ctx, ref.ID, reason) // nothing, if it is ended by now
		ended := Ended{
			Subject: rec.subject, SID: rec.sid, IDToken: rec.idToken,
			RefreshToken: rec.refreshToken, AccessToken: rec.token.value,
		}
		if k.endIsUnwritten(ref.ID) {
			return ended, errEndUnwritten
		}
		return ended, nil
	}
}

var errEndUnwritten = unavailable(ErrNotEnded)

// endIsOnlyHere reports whether other processes do not know yet that a session
// has ended.
func (k *Keeper) endIsUnwritten(id session.ID) bool {
	return k.Vault.shared != nil && k.Vault.overlay.get(id).isEnd() && k.Vault.hasUnwritten(id)
}

// endAgain repeats an end that the store did not take.
func (k *Keeper) retryEnd(ctx context.Context, id session.ID) error {
	if err := k.Vault.store.Delete(ctx, id); err != nil {
		return errEndUnwritten
	}
	if e := k.Vault.overlay.get(id); e.isEnd() {
		k.forgetEnd(id, e)
	}
	return ErrNoSession
}

// maxUnsureEnds bounds how many sessions of which nobody can tell whether they
// exist are remembered as ended while the store is down.
const maxUnverifiedEnds = 4096

// errAgain: the session was changed by somebody else since it was read, so that
// what follows from that must be judged anew.
var errStale = errors.New("the session has changed meanwhile")

// finish ends a session, whatever is in flight: in this process at once, and
// in the store as soon as that can be. It returns the error for the request
// that found the end.
func (k *Keeper) endSession(ctx context.Context, id session.ID, reason EndReason) error {
	entry := &overlayEntry{}
	done, there := k.Vault.overlay.set(id, entry)
	if !done {
		return ErrNoSession
	}
	k.cleanup(id, reason)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := k.Vault.store.Delete(ctx, id); err == nil {
		k.forgetEnd(id, entry)
	} else if !there {
		k.Vault.background(func() { k.retryUntilWritten(id) })
	}
	return &EndedError{Reason: reason}
}

// finishAt ends a session because of what was read in the given version. Where
// other processes write too, it ends only if that still is the version, and if
// the holder, unless it is the zero one, still has the lease: if not, the error
// is errAgain. A store that cannot say ends nothing.
func (k *Keeper) endSessionAt(ctx context.Context, id session.ID, version uint64, holder session.Holder, reason EndReason) error {
	if k.Vault.shared == nil {
		return k.endSession(ctx, id, reason)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	err := k.Vault.shared.DeleteAt(ctx, id, version, holder)
	switch {
	case errors.Is(err, session.ErrConflict):
		return errStale
	case err != nil:
		return unavailable(fmt.Errorf("ending session: %w", err))
	}
	entry := &overlayEntry{}
	if done, _ := k.Vault.overlay.set(id, entry); !done {
		return ErrNoSession
	}
	k.cleanup(id, reason)
	k.forgetEnd(id, entry)
	return &EndedError{Reason: reason}
}

// endIfOver ends a session that seemed to be over, or returns it as it is now:
// what was read first may have been a copy that knew less.
func (k *Keeper) endIfExpired(ctx context.Context, ref seal.Ref) (hot, error) {
	for range 3 {
		rec, err := k.read(ctx, ref)
		if err != nil {
			return hot{}, err
		}
		reason := k.endReason(ref.ID, &rec.hot, time.Now())
		if reason == "" {
			return rec.hot, nil
		}
		if err := k.endSessionAt(ctx, ref.ID, rec.version, session.Holder{}, reason); !errors.Is(err, errStale) {
			return hot{}, err
		}
	}
	return hot{}, unavailable(errStale)
}

// over ends what this process does for a session.
func (k *Keeper) cleanup(id session.ID, reason EndReason) {
	k.Vault.forgetSession(id)
	k.Observe(Event{Kind: EventEnded, ID: id, Reason: reason})
}

// forget ends the requests of a session that is over and drops what was noted
// of it.
func (v *Vault) forgetSession(id session.ID) {
	v.cache.forget(id)
	v.live.cancelAll(id)
	v.backoffs.clear(id)
	v.uses.forget(id)
}

// forgetEnd forgets an ended session when nothing can bring it back any more.
func (k *Keeper) forgetEnd(id session.ID, entry *overlayEntry) {
	// Once more: a request that began before the end may have read the record
	// after it, while the deletion was under way.
	k.Vault.cache.forget(id)
	entry.deleted.Store(true)
	time.AfterFunc(endRetention, func() { k.Vault.dropEnd(id, entry) })
}

// dropEnd removes the end of a session from memory, unless a refresh of it is still
// under way. If the store did not take what that refresh brings, its tokens would
// be kept in memory, and the session would be served again.
func (v *Vault) dropEnd(id session.ID, entry *overlayEntry) {
	v.mu.Lock()
	_, refreshing := v.flights[id]
	v.mu.Unlock()
	if refreshing {
		time.AfterFunc(endRetention, func() { v.dropEnd(id, entry) })
		return
	}
	v.overlay.remove(id, entry)
}

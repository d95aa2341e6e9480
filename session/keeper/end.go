package keeper

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// Ended describes a session that End has ended, and holds its tokens, for their
// revocation and for the logout at the authorization server.
type Ended struct {
	ID           session.ID
	Subject      string
	SID          string // `sid` of the ID token, or empty
	IDToken      string
	RefreshToken string
	AccessToken  string
}

// End ends a session, also during a refresh. If the store cannot delete the record now,
// the session has ended in this process all the same, and the keeper repeats the
// deletion until it succeeds.
//
// The error is ErrNoSession, or an *UnavailableError in two cases:
//   - The record could not be read, so that its tokens are not known.
//   - Other processes use the store, and it did not take the deletion. They still serve
//     the session, and the caller must repeat End. The error wraps ErrNotEnded, and
//     Ended holds the known data of the session.
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
			_ = k.endSession(ctx, ref.ID, ending{reason: reason})
			if k.endIsUnwritten(ref.ID) {
				err = errEndUnwritten
			}
			return Ended{}, err
		}
		// If another process refreshes at the same time, the caller must get the
		// newest tokens, to revoke them.
		if k.Vault.shared != nil && tries < maxEndTries && errors.Is(k.endSessionAt(ctx, ref.ID, rec.version, session.Holder{}, ending{reason, rec.subject}), errStale) {
			continue
		}
		_ = k.endSession(ctx, ref.ID, ending{reason, rec.subject}) // does nothing if it has ended already
		ended := Ended{
			ID: ref.ID, Subject: rec.subject, SID: rec.sid, IDToken: rec.idToken,
			RefreshToken: rec.refreshToken, AccessToken: rec.token.value,
		}
		if k.endIsUnwritten(ref.ID) {
			return ended, errEndUnwritten
		}
		return ended, nil
	}
}

// EndIfSID is End for a session with the given `sid`, and returns ErrNoSession for any
// other one.
func (k *Keeper) EndIfSID(ctx context.Context, secret seal.Secret, sid string) (Ended, error) {
	ref := k.Site.Ref(secret)
	if !k.endIsUnwritten(ref.ID) {
		rec, err := k.read(ctx, ref)
		if err != nil {
			return Ended{}, err
		}
		if rec.sid == "" || subtle.ConstantTimeCompare([]byte(rec.sid), []byte(sid)) != 1 {
			return Ended{}, ErrNoSession
		}
	}
	return k.End(ctx, secret, EndFrontchannel)
}

// maxEndTries bounds how often a session is read again because it changed before its end.
const maxEndTries = 3

var errEndUnwritten = unavailable(ErrNotEnded)

// endIsUnwritten reports whether a session has ended in this process but still exists for
// other processes.
func (k *Keeper) endIsUnwritten(id session.ID) bool {
	return k.Vault.shared != nil && k.Vault.overlay.get(id).isEnd() && k.Vault.hasUnwritten(id)
}

// retryEnd repeats a deletion that the store did not take.
func (k *Keeper) retryEnd(ctx context.Context, id session.ID) error {
	if err := k.Vault.store.Delete(ctx, id); err != nil {
		return errEndUnwritten
	}
	if e := k.Vault.overlay.get(id); e.isEnd() {
		k.forgetEnd(id, e)
	}
	return ErrNoSession
}

// maxUnverifiedEnds bounds the ends in memory above which End adds no more for sessions
// that it could not read: anonymous requests must not fill the memory while the store is
// down.
const maxUnverifiedEnds = 4096

// errStale means that another process has changed the session since it was read. The
// caller reads it again and decides again.
var errStale = errors.New("the session has changed since it was read")

// ending is why a session ends, and whose it is. The subject is empty if it is not known.
type ending struct {
	reason  EndReason
	subject string
}

// endSession ends a session, also during a refresh: at once in this process, and in the
// store as soon as possible. It returns the error for the request that found the end.
func (k *Keeper) endSession(ctx context.Context, id session.ID, e ending) error {
	entry := &overlayEntry{}
	done, existed := k.Vault.overlay.set(id, entry)
	if !done {
		return ErrNoSession
	}
	k.cleanup(id, e)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := k.Vault.store.Delete(ctx, id); err == nil {
		k.forgetEnd(id, entry)
	} else if !existed {
		k.Vault.background(func() { k.retryUntilWritten(id) })
	}
	return &EndedError{Reason: e.reason}
}

// endSessionAt ends a session because of what was read in the given version. On a shared
// store it ends the session only if that is still the version, and if holder has the
// lease; the zero Holder accepts any lease. Otherwise the error is errStale. If the store
// fails, the session goes on.
func (k *Keeper) endSessionAt(ctx context.Context, id session.ID, version uint64, holder session.Holder, e ending) error {
	if k.Vault.shared == nil {
		return k.endSession(ctx, id, e)
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
	k.cleanup(id, e)
	k.forgetEnd(id, entry)
	return &EndedError{Reason: e.reason}
}

// endIfExpired reads a session past the store's copies and ends it if it has expired. If
// it has not, because the copy lacked a later use, endIfExpired returns it.
func (k *Keeper) endIfExpired(ctx context.Context, ref seal.Ref) (hot, error) {
	for range maxEndTries {
		rec, err := k.read(ctx, ref)
		if err != nil {
			return hot{}, err
		}
		reason := k.endReason(ref.ID, &rec.hot, time.Now())
		if reason == "" {
			return rec.hot, nil
		}
		if err := k.endSessionAt(ctx, ref.ID, rec.version, session.Holder{}, ending{reason, rec.subject}); !errors.Is(err, errStale) {
			return hot{}, err
		}
	}
	return hot{}, unavailable(errStale)
}

// cleanup ends the requests of a session in this process and reports its end.
func (k *Keeper) cleanup(id session.ID, e ending) {
	k.Vault.forgetSession(id)
	k.Observe(Event{Kind: EventEnded, ID: id, Subject: e.subject, Reason: e.reason})
}

// forgetSession ends the requests of an ended session and drops its state in memory,
// except its end.
func (v *Vault) forgetSession(id session.ID) {
	v.cache.forget(id)
	v.live.cancelAll(id)
	v.backoffs.clear(id)
	v.uses.forget(id)
}

// forgetEnd removes the end of a session, which the store has deleted, from memory after
// endRetention.
func (k *Keeper) forgetEnd(id session.ID, entry *overlayEntry) {
	// A request that began before the end may have read the record during the
	// deletion and cached it.
	k.Vault.cache.forget(id)
	entry.deleted.Store(true)
	time.AfterFunc(endRetention, func() { k.Vault.dropEnd(id, entry) })
}

// dropEnd removes the end of a session from memory, unless a refresh of it is still in
// progress. Without the end, that refresh could keep its tokens in memory if the store
// did not take them, and the keeper would serve the session again.
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

package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

const (
	writeRetryMin = 100 * time.Millisecond
	writeRetryMax = 2 * time.Second
	// storeTimeout bounds one attempt to write outside of a request.
	storeTimeout = 5 * time.Second
	// expirySlack keeps an item longer than its session, for uses that a store
	// could not take down for a while, and so that the last request can still
	// tell why the session ended.
	expirySlack = time.Hour
)

// item seals a record as the version after the one it was read from.
func (k *Keeper) sealItem(ref seal.Ref, rec *record) (session.Item, error) {
	version := rec.version + 1
	value, err := sealRecord(k.Site, ref, rec, version)
	if err != nil {
		return session.Item{}, err
	}
	expires := rec.lastUsed.Add(k.IdleTimeout + k.useInterval)
	if end := k.absoluteEnd(&rec.hot); end.Before(expires) {
		expires = end
	}
	tags, err := k.Site.Tags(rec.sid, rec.subject)
	if err != nil {
		return session.Item{}, err
	}
	return session.Item{Version: version, Expires: expires.Add(expirySlack), Value: value, Tags: tags}, nil
}

// errRefreshedElsewhere: somebody else has refreshed this session. What they wrote is
// as good as ours and stays.
var errRefreshedElsewhere = errors.New("the session was refreshed elsewhere at the same time")

// commit makes next the session's record. If the store does not take it now,
// next is the truth of this process from here on, and is written as soon as
// the store can: that is no error. The error is ErrNoSession if the session has
// ended meanwhile, or errRefreshedElsewhere.
func (k *Keeper) commit(ctx context.Context, ref seal.Ref, next *record) error {
	if k.Vault.overlay.get(ref.ID).isEnd() {
		return k.reportDiscarded(ref.ID)
	}
	// A store that hangs must not hold up tokens that are here already.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	err := k.write(ctx, ref, next)
	if err == nil || errors.Is(err, ErrNoSession) || errors.Is(err, errRefreshedElsewhere) {
		held, alive := k.Vault.overlay.clearWritten(ref.ID)
		if !alive || errors.Is(err, ErrNoSession) {
			return k.reportDiscarded(ref.ID)
		}
		if held {
			k.Observe(Event{Kind: EventWritten, ID: ref.ID})
		}
		return err
	}
	held := *next
	done, there := k.Vault.overlay.set(ref.ID, &overlayEntry{rec: &held, ref: ref})
	if !done {
		return k.reportDiscarded(ref.ID)
	}
	k.Observe(Event{Kind: EventUnwritten, ID: ref.ID, Err: err})
	if !there {
		k.Vault.running.Go(func() { k.retryUntilWritten(ref.ID) })
	}
	return nil
}

// discarded reports tokens that came too late.
func (k *Keeper) reportDiscarded(id session.ID) error {
	k.Observe(Event{Kind: EventDiscarded, ID: id})
	return ErrNoSession
}

// write seals and writes a record. Where only the last use was written
// meanwhile, it is merged. On success next carries its new version.
func (k *Keeper) write(ctx context.Context, ref seal.Ref, next *record) error {
	// Whatever comes of it: what was reported to fail may have been done.
	defer k.Vault.cache.forget(ref.ID)
	for range 16 {
		item, err := k.sealItem(ref, next)
		if err != nil {
			return err
		}
		err = k.Vault.store.Replace(ctx, ref.ID, item)
		if err == nil {
			next.version = item.Version
			return nil
		}
		if !errors.Is(err, session.ErrConflict) {
			return fmt.Errorf("writing session: %w", err)
		}
		current, err := k.readStored(ctx, ref)
		switch {
		case errors.Is(err, seal.ErrUnreadable):
			// Written under a key that this keeper does not have: a newer
			// configuration's. What we have must not be thrown away for that.
			return fmt.Errorf("writing session: %w", err)
		case err != nil:
			return readError(err)
		}
		switch {
		case current.version == item.Version-1:
			return fmt.Errorf("writing session: %w", session.ErrConflict)
		case current.covers(next):
			// An earlier attempt has landed although it was reported to fail.
			next.version = current.version
			return nil
		case current.rotation > next.rotation, current.rotation == next.rotation && !current.sameTokens(next):
			return errRefreshedElsewhere
		}
		next.version = current.version
		if current.lastUsed.After(next.lastUsed) {
			next.lastUsed = current.lastUsed
		}
	}
	return fmt.Errorf("writing session: %w", session.ErrConflict) // it changes all the time
}

// retryUntilWritten repeats a write that failed until it lands or the session
// ends. When the vault closes it tries once more.
func (k *Keeper) retryUntilWritten(id session.ID) {
	defer k.Vault.releaseIfWritten(id)
	for wait := writeRetryMin; ; wait = min(2*wait, writeRetryMax) {
		closing := false
		select {
		case <-time.After(wait):
		case <-k.Vault.closing.Done():
			closing = true
		}
		entry := k.Vault.overlay.get(id)
		if entry == nil {
			return
		}
		if k.retryWrite(id, entry) || closing && k.Vault.overlay.get(id) == entry {
			return
		}
	}
}

// endedWhileUnwritten reports whether a session is over that nobody could write for
// long. Where others use it too, its last use may be one that only they know.
func (k *Keeper) endedWhileUnwritten(id session.ID, h *hot) bool {
	reason := k.endReason(id, h, time.Now())
	return reason == EndLifetime || reason != "" && k.Vault.shared == nil
}

// retry reports whether there is nothing left to do for this goroutine.
func (k *Keeper) retryWrite(id session.ID, entry *overlayEntry) bool {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if entry.rec == nil {
		if k.Vault.store.Delete(ctx, id) != nil {
			return false
		}
		k.forgetEnd(id, entry)
		return true
	}
	next := *entry.rec
	err := errRefreshedElsewhere // so to say: the time has
	if !k.endedWhileUnwritten(id, &entry.rec.hot) {
		err = k.write(ctx, entry.ref, &next)
	}
	switch {
	case errors.Is(err, ErrNoSession):
		// It was ended elsewhere, by somebody who did not know these tokens.
		k.discard(Tokens{RefreshToken: next.refreshToken, AccessToken: next.token.value})
	case err != nil && !errors.Is(err, errRefreshedElsewhere):
		return false
	}
	// If a newer entry has come meanwhile, this goroutine goes on with it.
	if !k.Vault.overlay.remove(id, entry) {
		return false
	}
	if err == nil {
		k.Observe(Event{Kind: EventWritten, ID: id})
	}
	return true
}

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
	// storeTimeout bounds one write, or one read, in the background.
	storeTimeout = 5 * time.Second
	// expirySlack is how much longer an item is stored than its session can last. The store
	// may fail to write uses for a while, and the request that finds the session expired
	// needs the item to report the reason.
	expirySlack = time.Hour
)

// sealItem seals a record as an item with the next version after the one it was read from.
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
	label, err := sealLabel(k.Site, ref.ID, rec)
	if err != nil {
		return session.Item{}, err
	}
	return session.Item{Version: version, Expires: expires.Add(expirySlack), Value: value, Tags: tags, Label: label}, nil
}

// errRefreshedElsewhere means that another process has refreshed the session. The record
// that it has written is valid and stays.
var errRefreshedElsewhere = errors.New("the session was refreshed elsewhere at the same time")

// commit makes next the record of the session. If the store does not take it now, this
// process serves it from memory and repeats the write until the store takes it: commit then
// returns nil. The error is ErrNoSession if the session has ended, or
// errRefreshedElsewhere.
func (k *Keeper) commit(ctx context.Context, ref seal.Ref, next *record) error {
	if k.Vault.overlay.get(ref.ID).isEnd() {
		return k.reportDiscarded(ref.ID)
	}
	// A store that does not answer must not delay tokens that this process has.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	err := k.write(ctx, ref, next)
	if err == nil || errors.Is(err, ErrNoSession) || errors.Is(err, errRefreshedElsewhere) {
		held, alive := k.Vault.overlay.clearWritten(ref.ID)
		if !alive || errors.Is(err, ErrNoSession) {
			return k.reportDiscarded(ref.ID)
		}
		if held {
			k.Observe(Event{Kind: EventWritten, ID: ref.ID, Subject: next.subject})
		}
		return err
	}
	held := *next
	done, there := k.Vault.overlay.set(ref.ID, &overlayEntry{rec: &held, ref: ref})
	if !done {
		return k.reportDiscarded(ref.ID)
	}
	k.Observe(Event{Kind: EventUnwritten, ID: ref.ID, Subject: next.subject, Err: err})
	if !there {
		k.Vault.running.Go(func() { k.retryUntilWritten(ref.ID) })
	}
	return nil
}

// reportDiscarded reports tokens that arrived after their session had ended.
func (k *Keeper) reportDiscarded(id session.ID) error {
	k.Observe(Event{Kind: EventDiscarded, ID: id})
	return ErrNoSession
}

// write seals and writes a record. If the stored item has changed only by a use, write merges
// the use and tries again. On success next has its new version.
func (k *Keeper) write(ctx context.Context, ref seal.Ref, next *record) error {
	// A write that reports an error may have succeeded.
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
			// The item is sealed with a key of a newer configuration, which this keeper
			// does not have. That is no reason to drop the new tokens.
			return fmt.Errorf("writing session: %w", err)
		case err != nil:
			return readError(err)
		}
		switch {
		case current.version == item.Version-1:
			return fmt.Errorf("writing session: %w", session.ErrConflict)
		case current.covers(next):
			// An earlier attempt has succeeded although it reported an error.
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
	return fmt.Errorf("writing session: %w", session.ErrConflict) // it keeps changing
}

// retryUntilWritten repeats a write that failed until it succeeds or the session ends. When
// the vault closes, it tries once more and gives up.
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

// endedWhileUnwritten reports whether a session has ended before its record could be written.
// With a shared store the idle time-out does not count, because another process may know of
// a later use.
func (k *Keeper) endedWhileUnwritten(id session.ID, h *hot) bool {
	reason := k.endReason(id, h, time.Now())
	return reason == EndLifetime || reason != "" && k.Vault.shared == nil
}

// retryWrite tries once to write an entry of the overlay. It reports whether the caller has
// nothing left to do.
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
	ended := k.endedWhileUnwritten(id, &entry.rec.hot)
	var err error
	if !ended {
		err = k.write(ctx, entry.ref, &next)
	}
	switch {
	case errors.Is(err, ErrNoSession):
		// Another process has ended the session and did not know these tokens.
		k.discard(Tokens{RefreshToken: next.refreshToken, AccessToken: next.token.value})
	case err != nil && !errors.Is(err, errRefreshedElsewhere):
		return false
	}
	// If the session has a newer entry, the caller goes on with that.
	if !k.Vault.overlay.remove(id, entry) {
		return false
	}
	if err == nil && !ended {
		k.Observe(Event{Kind: EventWritten, ID: id, Subject: next.subject})
	}
	return true
}

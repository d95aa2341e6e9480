package keeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// readHot reads the hot part of a session for a request. On a shared store it may come
// from a copy in this process: a change by another process shows after its notification,
// or after the time limit that session.SharedStore.View gives.
func (k *Keeper) readHot(ctx context.Context, ref seal.Ref) (h hot, err error) {
	epoch := k.Vault.live.epoch(ref.ID)
	entry := k.Vault.overlay.get(ref.ID)
	if entry.isEnd() {
		return hot{}, ErrNoSession
	}
	if entry == nil || k.Vault.shared != nil {
		var cached *cacheEntry
		if cached, err = k.readCached(ctx, ref, epoch); err == nil {
			h = cached.hot
			h.cached = cached
		}
	}
	if entry.supersedes(h.rotation, err) {
		h, err = entry.rec.hot, nil
	}
	h.epoch = epoch
	return h, readError(err)
}

// readCached returns the session's cache entry. It validates the entry against the store
// if other processes may have changed the item, and decrypts the item if there is no
// valid entry.
func (k *Keeper) readCached(ctx context.Context, ref seal.Ref, epoch uint64) (*cacheEntry, error) {
	cached, writes := k.Vault.cache.get(ref.ID)
	if cached != nil {
		// A new configuration may have removed the key since.
		if err := k.Site.CanOpen(cached.keyID); err != nil {
			k.reportUnreadable(ref.ID, err)
			return nil, err
		}
		if k.Vault.shared == nil || cached.isCurrent(epoch) {
			return cached, nil
		}
	}
	now := time.Now()
	r := hotReads.Get().(*hotRead)
	defer r.release()
	r.site, r.ref, r.cached = k.Site, ref, cached
	if err := k.Vault.store.View(ctx, ref.ID, r.view); err != nil {
		k.reportUnreadable(ref.ID, err)
		return nil, err
	}
	if k.Vault.shared != nil {
		r.read.validated.Store(&validation{at: now, epoch: epoch})
	}
	if r.read != cached {
		k.Vault.cache.put(ref.ID, r.read, writes)
	}
	return r.read, nil
}

// hotRead is one read of an item. A pool keeps it for reuse, because a new callback for
// View would cost each request an allocation.
type hotRead struct {
	view   func(session.Item) error // the method open
	site   *seal.Site
	ref    seal.Ref
	cached *cacheEntry // the entry before the read, or nil
	read   *cacheEntry // the result
}

var hotReads = sync.Pool{New: func() any {
	r := new(hotRead)
	r.view = r.open
	return r
}}

func (r *hotRead) open(item session.Item) error {
	if r.cached != nil && r.cached.matches(item) {
		r.read = r.cached
		return nil
	}
	h, err := openHot(r.site, r.ref, item)
	if err != nil {
		return err
	}
	r.read = newCacheEntry(item, h)
	return nil
}

func (r *hotRead) release() {
	*r = hotRead{view: r.view}
	hotReads.Put(r)
}

// viewFunc is the type of session.Store.View.
type viewFunc func(ctx context.Context, id session.ID, f func(session.Item) error) error

// viewCurrent views an item past every copy in this process.
func (v *Vault) viewCurrent(ctx context.Context, id session.ID, f func(session.Item) error) error {
	if v.shared != nil {
		return v.shared.ViewCurrent(ctx, id, f)
	}
	return v.store.View(ctx, id, f)
}

// read reads the current record, past every copy. The result has no epoch: ViewCurrent
// does not subscribe to changes, so a request keeps the epoch of its readHot.
func (k *Keeper) read(ctx context.Context, ref seal.Ref) (*record, error) {
	return k.readThrough(ctx, ref, k.Vault.viewCurrent)
}

// readCopy is read with View, which may answer from a copy. Its caller's next step fails
// with a conflict if the copy is old.
func (k *Keeper) readCopy(ctx context.Context, ref seal.Ref) (*record, error) {
	return k.readThrough(ctx, ref, k.Vault.store.View)
}

func (k *Keeper) readThrough(ctx context.Context, ref seal.Ref, view viewFunc) (*record, error) {
	entry := k.Vault.overlay.get(ref.ID)
	if entry.isEnd() {
		return nil, ErrNoSession
	}
	rec, err := &record{}, error(nil)
	if entry == nil || k.Vault.shared != nil {
		rec, err = k.openThrough(ctx, ref, view)
	}
	if err != nil {
		rec = &record{}
	}
	if entry.supersedes(rec.rotation, err) {
		version := rec.version
		*rec = *entry.rec
		if err == nil && k.Vault.shared != nil {
			rec.version = version // Acquire and DeleteAt compare the store's version
		}
		err = nil
	}
	return rec, readError(err)
}

// readStored reads the current record of the store, without the overlay. It returns the
// store's errors unchanged.
func (k *Keeper) readStored(ctx context.Context, ref seal.Ref) (*record, error) {
	return k.openThrough(ctx, ref, k.Vault.viewCurrent)
}

func (k *Keeper) openThrough(ctx context.Context, ref seal.Ref, view viewFunc) (rec *record, err error) {
	err = view(ctx, ref.ID, func(item session.Item) (err error) {
		rec, err = openRecord(k.Site, ref, item)
		return err
	})
	k.reportUnreadable(ref.ID, err)
	return rec, err
}

// readError turns an error of reading an item into ErrNoSession if the item is missing or
// unreadable, and into an *UnavailableError if the store failed.
func readError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, session.ErrNotFound), errors.Is(err, seal.ErrUnreadable):
		return ErrNoSession
	default:
		return unavailable(fmt.Errorf("reading session: %w", err))
	}
}

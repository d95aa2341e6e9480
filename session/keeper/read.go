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

// readHot reads what a request needs. With a shared store it may come from a
// copy, and be as old as the push that has not arrived.
func (k *Keeper) readHot(ctx context.Context, ref seal.Ref) (h hot, err error) {
	mark := k.Vault.live.epoch(ref.ID)
	held := k.Vault.overlay.get(ref.ID)
	if held.isEnd() {
		return hot{}, ErrNoSession
	}
	if held == nil || k.Vault.shared != nil {
		var o *cacheEntry
		if o, err = k.readCached(ctx, ref, mark); err == nil {
			h = o.hot
			h.cached = o
		}
	}
	if held.supersedes(h.rotation, err) {
		h, err = held.rec.hot, nil
	}
	h.epoch = mark
	return h, readError(err)
}

// readOpened reads the hot part that the store has, and decrypts it if that was
// not done lately. The store need not be asked for what cannot have changed since.
func (k *Keeper) readCached(ctx context.Context, ref seal.Ref, mark uint64) (*cacheEntry, error) {
	known, writes := k.Vault.cache.get(ref.ID)
	if known != nil {
		// Its key may have been dropped since.
		if err := k.Site.CanOpen(known.keyID); err != nil {
			k.reportUnreadable(ref.ID, err)
			return nil, err
		}
		if k.Vault.shared == nil || known.isCurrent(mark) {
			return known, nil
		}
	}
	now := time.Now()
	r := hotReads.Get().(*hotRead)
	defer r.release()
	r.site, r.ref, r.cached = k.Site, ref, known
	if err := k.Vault.store.View(ctx, ref.ID, r.view); err != nil {
		k.reportUnreadable(ref.ID, err)
		return nil, err
	}
	if k.Vault.shared != nil {
		r.read.validatedAt.Store(&validation{at: now, epoch: mark})
	}
	if r.read != known {
		k.Vault.cache.put(ref.ID, r.read, writes)
	}
	return r.read, nil
}

// hotRead is one look at an item. They are used again, as a request would
// otherwise pay for what a store gets to call.
type hotRead struct {
	view   func(session.Item) error
	site   *seal.Site
	ref    seal.Ref
	cached *cacheEntry
	read   *cacheEntry
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

// read reads the whole record as it is now. The result has no mark: what is
// read past the copies is not pushed, so a request keeps that of its View.
func (k *Keeper) read(ctx context.Context, ref seal.Ref) (*record, error) {
	return k.readThrough(ctx, ref, k.readStored)
}

// readCopy is read for somebody who finds out in the next step whether what was
// read is still so.
func (k *Keeper) readCopy(ctx context.Context, ref seal.Ref) (*record, error) {
	return k.readThrough(ctx, ref, k.readView)
}

func (k *Keeper) readThrough(ctx context.Context, ref seal.Ref, stored func(context.Context, seal.Ref) (*record, error)) (*record, error) {
	held := k.Vault.overlay.get(ref.ID)
	if held.isEnd() {
		return nil, ErrNoSession
	}
	rec, err := &record{}, error(nil)
	if held == nil || k.Vault.shared != nil {
		rec, err = stored(ctx, ref)
	}
	if err != nil {
		rec = &record{}
	}
	if held.supersedes(rec.rotation, err) {
		version := rec.version
		*rec = *held.rec
		if err == nil && k.Vault.shared != nil {
			rec.version = version // what a step of the store is compared with
		}
		err = nil
	}
	return rec, readError(err)
}

// readStored reads what the store has now, and leaves its errors as they are.
func (k *Keeper) readStored(ctx context.Context, ref seal.Ref) (*record, error) {
	if k.Vault.shared != nil {
		return k.openThrough(ctx, ref, k.Vault.shared.ViewCurrent)
	}
	return k.readView(ctx, ref)
}

func (k *Keeper) readView(ctx context.Context, ref seal.Ref) (*record, error) {
	return k.openThrough(ctx, ref, k.Vault.store.View)
}

func (k *Keeper) openThrough(ctx context.Context, ref seal.Ref, view func(context.Context, session.ID, func(session.Item) error) error) (rec *record, err error) {
	err = view(ctx, ref.ID, func(item session.Item) (err error) {
		rec, err = openRecord(k.Site, ref, item)
		return err
	})
	k.reportUnreadable(ref.ID, err)
	return rec, err
}

// readError tells a session that is not there from a store that cannot say.
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

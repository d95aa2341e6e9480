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
	mark := k.vault.live.mark(ref.ID)
	held := k.vault.overlay.get(ref.ID)
	if held.isEnd() {
		return hot{}, ErrNoSession
	}
	if held == nil || k.vault.shared != nil {
		var o *opened
		if o, err = k.readOpened(ctx, ref, mark); err == nil {
			h = o.hot
			h.opened = o
		}
	}
	if held.counts(h.rotation, err) {
		h, err = held.rec.hot, nil
	}
	h.mark = mark
	return h, readError(err)
}

// readOpened reads the hot part that the store has, and decrypts it if that was
// not done lately. The store need not be asked for what cannot have changed since.
func (k *Keeper) readOpened(ctx context.Context, ref seal.Ref, mark uint64) (*opened, error) {
	known, writes := k.vault.opened.get(ref.ID)
	if known != nil {
		// Its key may have been dropped since.
		if err := k.site.CanOpen(known.sealer); err != nil {
			k.reportUnreadable(ref.ID, err)
			return nil, err
		}
		if k.vault.shared == nil || known.isCurrent(mark) {
			return known, nil
		}
	}
	now := time.Now()
	r := hotReads.Get().(*hotRead)
	defer r.release()
	r.site, r.ref, r.known = k.site, ref, known
	if err := k.vault.store.View(ctx, ref.ID, r.view); err != nil {
		k.reportUnreadable(ref.ID, err)
		return nil, err
	}
	if k.vault.shared != nil {
		r.read.asked.Store(&asked{at: now, mark: mark})
	}
	if r.read != known {
		k.vault.opened.put(ref.ID, r.read, writes)
	}
	return r.read, nil
}

// hotRead is one look at an item. They are used again, as a request would
// otherwise pay for what a store gets to call.
type hotRead struct {
	view  func(session.Item) error
	site  *seal.Site
	ref   seal.Ref
	known *opened
	read  *opened
}

var hotReads = sync.Pool{New: func() any {
	r := new(hotRead)
	r.view = r.look
	return r
}}

func (r *hotRead) look(item session.Item) error {
	if r.known != nil && r.known.isOf(item) {
		r.read = r.known
		return nil
	}
	h, err := openHot(r.site, r.ref, item)
	if err != nil {
		return err
	}
	r.read = newOpened(item, h)
	return nil
}

func (r *hotRead) release() {
	*r = hotRead{view: r.view}
	hotReads.Put(r)
}

// read reads the whole record as it is now. The result has no mark: what is
// read past the copies is not pushed, so a request keeps that of its View.
func (k *Keeper) read(ctx context.Context, ref seal.Ref) (*record, error) {
	return k.readWith(ctx, ref, k.readStored)
}

// readCopy is read for somebody who finds out in the next step whether what was
// read is still so.
func (k *Keeper) readCopy(ctx context.Context, ref seal.Ref) (*record, error) {
	return k.readWith(ctx, ref, k.readViewed)
}

func (k *Keeper) readWith(ctx context.Context, ref seal.Ref, stored func(context.Context, seal.Ref) (*record, error)) (*record, error) {
	held := k.vault.overlay.get(ref.ID)
	if held.isEnd() {
		return nil, ErrNoSession
	}
	rec, err := &record{}, error(nil)
	if held == nil || k.vault.shared != nil {
		rec, err = stored(ctx, ref)
	}
	if err != nil {
		rec = &record{}
	}
	if held.counts(rec.rotation, err) {
		version := rec.version
		*rec = *held.rec
		if err == nil && k.vault.shared != nil {
			rec.version = version // what a step of the store is compared with
		}
		err = nil
	}
	return rec, readError(err)
}

// readStored reads what the store has now, and leaves its errors as they are.
func (k *Keeper) readStored(ctx context.Context, ref seal.Ref) (*record, error) {
	if k.vault.shared != nil {
		return k.openWith(ctx, ref, k.vault.shared.ViewCurrent)
	}
	return k.readViewed(ctx, ref)
}

func (k *Keeper) readViewed(ctx context.Context, ref seal.Ref) (*record, error) {
	return k.openWith(ctx, ref, k.vault.store.View)
}

func (k *Keeper) openWith(ctx context.Context, ref seal.Ref, view func(context.Context, session.ID, func(session.Item) error) error) (rec *record, err error) {
	err = view(ctx, ref.ID, func(item session.Item) (err error) {
		rec, err = openRecord(k.site, ref, item)
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
		return &UnavailableError{RetryAfter: time.Second, Err: fmt.Errorf("reading session: %w", err)}
	}
}

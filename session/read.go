package session

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// readHot reads what a request needs. With a shared store it may come from a
// copy, and be as old as the push that has not arrived.
func (k *Keeper) readHot(ctx context.Context, id ID, secret Secret) (h hot, err error) {
	mark := k.vault.live.mark(id)
	held := k.vault.overlay.get(id)
	if held.isEnd() {
		return hot{}, ErrNoSession
	}
	if held == nil || k.vault.shared != nil {
		err = k.vault.store.View(ctx, id, func(item Item) (err error) {
			h, err = k.site.openHot(secret, id, item)
			return err
		})
	}
	if held.counts(h.rotation, err) {
		h, err = held.rec.hot, nil
	}
	h.mark = mark
	return h, readError(err)
}

// read reads the whole record as it is now. The result has no mark: what is
// read past the copies is not pushed, so a request keeps that of its View.
func (k *Keeper) read(ctx context.Context, id ID, secret Secret) (*record, error) {
	held := k.vault.overlay.get(id)
	if held.isEnd() {
		return nil, ErrNoSession
	}
	rec, err := &record{}, error(nil)
	if held == nil || k.vault.shared != nil {
		rec, err = k.readStored(ctx, id, secret)
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
func (k *Keeper) readStored(ctx context.Context, id ID, secret Secret) (rec *record, err error) {
	view := k.vault.store.View
	if k.vault.shared != nil {
		view = k.vault.shared.ViewCurrent
	}
	err = view(ctx, id, func(item Item) (err error) {
		rec, err = k.site.openRecord(secret, id, item)
		return err
	})
	return rec, err
}

// readError tells a session that is not there from a store that cannot say.
func readError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNotFound), errors.Is(err, errUnreadable):
		return ErrNoSession
	default:
		return &UnavailableError{RetryAfter: time.Second, Err: fmt.Errorf("reading session: %w", err)}
	}
}

package session

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	retryFirst = 100 * time.Millisecond
	retryMax   = 5 * time.Second
	// storeTimeout bounds one attempt to write outside of a request.
	storeTimeout = 5 * time.Second
	// expirySlack keeps an item longer than its session, for uses that a store
	// could not take down for a while, and so that the last request can still
	// tell why the session ended.
	expirySlack = time.Hour
)

// readHot reads what a request needs.
func (k *Keeper) readHot(ctx context.Context, id ID, secret Secret) (hot, error) {
	if e := k.vault.overlay.get(id); e != nil {
		if e.rec == nil {
			return hot{}, ErrNoSession
		}
		return e.rec.hot, nil
	}
	var h hot
	err := k.vault.store.View(ctx, id, func(item Item) (err error) {
		h, err = k.site.openHot(secret, id, item)
		return err
	})
	return h, readError(err)
}

// read reads a whole record.
func (k *Keeper) read(ctx context.Context, id ID, secret Secret) (*record, error) {
	if e := k.vault.overlay.get(id); e != nil {
		if e.rec == nil {
			return nil, ErrNoSession
		}
		rec := *e.rec
		return &rec, nil
	}
	rec, err := k.readStored(ctx, id, secret)
	return rec, readError(err)
}

// readStored reads what the store has, and leaves its errors as they are.
func (k *Keeper) readStored(ctx context.Context, id ID, secret Secret) (*record, error) {
	var rec *record
	err := k.vault.store.View(ctx, id, func(item Item) (err error) {
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

// item seals a record as the version after the one it was read from.
func (k *Keeper) item(secret Secret, id ID, rec *record) (Item, error) {
	version := rec.version + 1
	value, err := k.site.sealRecord(secret, id, rec, version)
	if err != nil {
		return Item{}, err
	}
	expires := rec.seen.Add(k.IdleTimeout + k.touchEvery)
	if end := k.absoluteEnd(&rec.hot); end.Before(expires) {
		expires = end
	}
	return Item{Version: version, Expires: expires.Add(expirySlack), Value: value}, nil
}

// errOvertaken: somebody else has refreshed this session. What they wrote is
// as good as ours and stays.
var errOvertaken = errors.New("the session was refreshed elsewhere at the same time")

// commit makes next the session's record. If the store does not take it now,
// next is the truth of this process from here on, and is written as soon as
// the store can: that is no error. The error is ErrNoSession if the session has
// ended meanwhile, or errOvertaken.
func (k *Keeper) commit(ctx context.Context, id ID, secret Secret, next *record) error {
	if e := k.vault.overlay.get(id); e != nil && e.rec == nil {
		return k.discarded(id)
	}
	// A store that hangs must not hold up tokens that are here already.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	err := k.write(ctx, id, secret, next)
	if err == nil || errors.Is(err, ErrNoSession) || errors.Is(err, errOvertaken) {
		held, alive := k.vault.overlay.written(id)
		if !alive || errors.Is(err, ErrNoSession) {
			return k.discarded(id)
		}
		if held {
			k.Observe(Event{Kind: EventWritten, ID: id})
		}
		return err
	}
	held := *next
	done, there := k.vault.overlay.put(id, &overlayEntry{rec: &held, secret: secret})
	if !done {
		return k.discarded(id)
	}
	k.Observe(Event{Kind: EventUnwritten, ID: id, Err: err})
	if !there {
		k.vault.running.Go(func() { k.writeUntilLanded(id) })
	}
	return nil
}

// discarded reports tokens that came too late.
func (k *Keeper) discarded(id ID) error {
	k.Observe(Event{Kind: EventDiscarded, ID: id})
	return ErrNoSession
}

// write seals and writes a record. Where only the last use was written
// meanwhile, it is merged. On success next carries its new version.
func (k *Keeper) write(ctx context.Context, id ID, secret Secret, next *record) error {
	for {
		item, err := k.item(secret, id, next)
		if err != nil {
			return err
		}
		err = k.vault.store.Replace(ctx, id, item)
		if err == nil {
			next.version = item.Version
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			return fmt.Errorf("writing session: %w", err)
		}
		current, err := k.readStored(ctx, id, secret)
		switch {
		case errors.Is(err, errUnreadable):
			// Written under a key that this keeper does not have: a newer
			// configuration's. What we have must not be thrown away for that.
			return fmt.Errorf("writing session: %w", err)
		case err != nil:
			return readError(err)
		}
		switch {
		case current.version < item.Version:
			return fmt.Errorf("writing session: %w", ErrConflict)
		case current.covers(next):
			// An earlier attempt has landed although it was reported to fail.
			next.version = current.version
			return nil
		case current.rotation > next.rotation, current.rotation == next.rotation && current.refreshToken != next.refreshToken:
			return errOvertaken
		}
		next.version = current.version
		if current.seen.After(next.seen) {
			next.seen = current.seen
		}
	}
}

// writeUntilLanded repeats a write that failed until it lands or the session
// ends. When the vault closes it tries once more.
func (k *Keeper) writeUntilLanded(id ID) {
	for wait := retryFirst; ; wait = min(2*wait, retryMax) {
		closing := false
		select {
		case <-time.After(wait):
		case <-k.vault.stop.Done():
			closing = true
		}
		entry := k.vault.overlay.get(id)
		if entry == nil {
			return
		}
		if k.retry(id, entry) || closing && k.vault.overlay.get(id) == entry {
			return
		}
	}
}

// retry reports whether there is nothing left to do for this goroutine.
func (k *Keeper) retry(id ID, entry *overlayEntry) bool {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if entry.rec == nil {
		if k.vault.store.Delete(ctx, id) != nil {
			return false
		}
		k.forgetEnd(id, entry)
		return true
	}
	next := *entry.rec
	err := errOvertaken // so to say: the time has
	if k.ended(id, &entry.rec.hot, time.Now()) == "" {
		err = k.write(ctx, id, entry.secret, &next)
	}
	if err != nil && !errors.Is(err, ErrNoSession) && !errors.Is(err, errOvertaken) {
		return false
	}
	// If a newer entry has come meanwhile, this goroutine goes on with it.
	if !k.vault.overlay.remove(id, entry) {
		return false
	}
	if err == nil {
		k.Observe(Event{Kind: EventWritten, ID: id})
	}
	return true
}

// finish ends a session in this process at once, and in the store as soon as
// that can be. It returns the error for the request that found the end.
func (k *Keeper) finish(ctx context.Context, id ID, reason EndReason) error {
	entry := &overlayEntry{}
	done, there := k.vault.overlay.put(id, entry)
	if !done {
		return ErrNoSession
	}
	k.vault.live.end(id)
	k.vault.resume(id)
	k.vault.uses.forget(id)
	k.Observe(Event{Kind: EventEnded, ID: id, Reason: reason})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := k.vault.store.Delete(ctx, id); err == nil {
		k.forgetEnd(id, entry)
	} else if !there {
		k.vault.background(func() { k.writeUntilLanded(id) })
	}
	return &EndedError{Reason: reason}
}

// forgetEnd forgets an ended session when nothing can bring it back any more.
func (k *Keeper) forgetEnd(id ID, entry *overlayEntry) {
	time.AfterFunc(endedKept, func() { k.vault.overlay.remove(id, entry) })
}

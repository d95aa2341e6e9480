package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// leaseSilence is how long a lease must stay as it is, in time in which the
	// store answers, until its holder is taken for dead. A holder that stands
	// still for longer than that loses the lease, and perhaps the session.
	leaseSilence = 3 * time.Second
	// leaseBeat is how often a holder raises its beat, and how often others look
	// at it.
	leaseBeat = leaseSilence / 4
)

// hold is a lease that this process has. A nil hold is that of a store which
// no other process uses.
type hold struct {
	vault    *Vault
	id       ID
	holder   Holder
	tookOver bool // from somebody taken for dead
	stop     func()

	// flying: the refresh is still under way. Guarded by the vault's mutex.
	flying bool

	mu        sync.Mutex
	beat      uint64
	confirmed time.Time // when the last beat was sent that the store confirmed
	lost      bool      // taken by somebody else
}

// acquire takes the lease of a session that was read in the given version. If
// another process has it, acquire waits until it has refreshed, let go, or
// fallen silent. It returns no hold where the store needs none. The error is
// errAgain, ErrNoSession or an *UnavailableError.
func (v *Vault) acquire(ctx context.Context, id ID, version uint64) (*hold, error) {
	if v.shared == nil {
		return nil, nil
	}
	ear := v.ears.listen(id)
	defer v.ears.leave(id)
	var w watch
	for {
		holder, began := newHolder(), time.Now()
		seen := w.silent(began)
		lease, err := v.tryAcquire(ctx, id, version, holder, seen)
		switch {
		case err == nil:
			return v.hold(id, holder, began, seen != Lease{}), nil
		case errors.Is(err, ErrNotFound):
			return nil, ErrNoSession
		case errors.Is(err, ErrConflict):
			return nil, errAgain
		case !errors.Is(err, ErrLeased):
			// It may be ours without our knowing.
			v.background(func() { v.release(id, holder) })
			return nil, &UnavailableError{RetryAfter: time.Second, Err: fmt.Errorf("taking the lease: %w", err)}
		}
		w.saw(lease, began, time.Now())
		if v.moved(ctx, id, version) {
			return nil, errAgain
		}
		select {
		case <-ear:
		case <-time.After(leaseBeat):
		case <-v.stop.Done():
			return nil, &UnavailableError{RetryAfter: time.Second, Err: ErrClosed}
		case <-ctx.Done():
			return nil, &UnavailableError{RetryAfter: time.Second, Err: errors.New("another instance takes long to refresh")}
		}
	}
}

// moved reports whether the item has a later version by now. It also sees to it
// that the next one is pushed: a store may push once for each View.
func (v *Vault) moved(ctx context.Context, id ID, version uint64) (moved bool) {
	ctx, cancel := context.WithTimeout(ctx, leaseBeat)
	defer cancel()
	_ = v.store.View(ctx, id, func(item Item) error {
		moved = item.Version > version // less is a copy whose push is on its way
		return nil
	})
	return moved
}

func (v *Vault) tryAcquire(ctx context.Context, id ID, version uint64, holder Holder, seen Lease) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseSilence)
	defer cancel()
	return v.shared.Acquire(ctx, id, version, holder, seen)
}

// watch is what a process knows of a lease that another one has.
type watch struct {
	seen Lease
	// since is when it was first seen so. Every look since then was answered in
	// time, the last at the time last.
	since, last time.Time
}

// saw notes the answer to a look. One that comes late, or long after the one
// before, starts the count anew: in the meantime the holder may have been kept
// from beating by what kept us from looking.
func (w *watch) saw(lease Lease, began, now time.Time) {
	if lease != w.seen || now.Sub(began) > leaseBeat || now.Sub(w.last) > 2*leaseBeat {
		w.since = now
	}
	w.seen, w.last = lease, now
}

// silent returns the lease if its holder is to be taken for dead.
func (w *watch) silent(now time.Time) Lease {
	if w.since.IsZero() || now.Sub(w.since) < leaseSilence || now.Sub(w.last) > 2*leaseBeat {
		return Lease{}
	}
	return w.seen
}

// hold starts to hold a lease that was acquired by a request sent at a time.
func (v *Vault) hold(id ID, holder Holder, confirmed time.Time, tookOver bool) *hold {
	ctx, cancel := context.WithCancel(v.over)
	h := &hold{vault: v, id: id, holder: holder, tookOver: tookOver, flying: true, confirmed: confirmed}
	// Most are over before the first beat.
	first := time.AfterFunc(leaseBeat, func() { h.beatUntil(ctx) })
	h.stop = func() {
		first.Stop()
		cancel()
	}
	v.mu.Lock()
	v.holds[id] = h
	v.mu.Unlock()
	return h
}

func (h *hold) beatUntil(ctx context.Context) {
	ticker := time.NewTicker(leaseBeat)
	defer ticker.Stop()
	for ctx.Err() == nil && !errors.Is(h.raise(ctx), errAgain) {
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// raise sends one beat.
func (h *hold) raise(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaseSilence/2)
	defer cancel()
	h.mu.Lock()
	h.beat++
	lease := Lease{Holder: h.holder, Beat: h.beat}
	h.mu.Unlock()
	began := time.Now()
	err := h.vault.shared.Beat(ctx, h.id, lease)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case errors.Is(err, ErrConflict):
		h.lost = true
		return errAgain
	case err == nil && began.After(h.confirmed):
		h.confirmed = began
	}
	return err
}

// confirm makes sure, right before a refresh token is sent, that the lease is
// still ours: whoever has not heard that for half a silence must not send. Any
// error means to let go.
func (h *hold) confirm(ctx context.Context) error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	lost, age := h.lost, time.Since(h.confirmed)
	h.mu.Unlock()
	if lost {
		return errAgain
	}
	if age < leaseSilence/2 {
		return nil
	}
	began := time.Now()
	if err := h.raise(ctx); err != nil {
		return err
	}
	if time.Since(began) >= leaseSilence/2 {
		return errAgain
	}
	return nil
}

// name returns who holds the lease, for a step that demands it.
func (h *hold) name() Holder {
	if h == nil {
		return Holder{}
	}
	return h.holder
}

// landed ends the part of the refresh in a hold.
func (h *hold) landed() {
	if h == nil {
		return
	}
	h.vault.mu.Lock()
	h.flying = false
	h.vault.mu.Unlock()
	h.vault.letGo(h.id)
}

// letGo releases the lease of a session, once its refresh is over and what that
// brought is written: whoever got the lease before that would find the old
// refresh token in the store and send it again.
func (v *Vault) letGo(id ID) {
	v.mu.Lock()
	h := v.holds[id]
	if h == nil || h.flying || v.unwritten(id) {
		v.mu.Unlock()
		return
	}
	delete(v.holds, id)
	v.mu.Unlock()
	h.stop()
	// Behind those who wait for the refresh.
	v.running.Go(func() { v.release(id, h.holder) })
}

// unwritten reports whether there is a record, or an end, that the store does
// not have yet.
func (v *Vault) unwritten(id ID) bool {
	e := v.overlay.get(id)
	return e != nil && !e.landed.Load()
}

// release frees a lease. If that fails, others wait until it has been silent.
func (v *Vault) release(id ID, holder Holder) {
	ctx, cancel := context.WithTimeout(context.Background(), leaseSilence)
	defer cancel()
	_ = v.shared.Release(ctx, id, holder)
}

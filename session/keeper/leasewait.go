package keeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// leaseWaiter takes the lease of one session, which was read in one version.
type leaseWaiter struct {
	vault   *Vault
	id      session.ID
	version uint64
	changes <-chan struct{}
	observedLease
}

func (v *Vault) newLeaseWaiter(id session.ID, version uint64) *leaseWaiter {
	w := &leaseWaiter{vault: v, id: id, version: version}
	if v.shared != nil {
		w.changes = v.waiters.subscribe(id)
	}
	return w
}

func (w *leaseWaiter) close() {
	if w.vault.shared != nil {
		w.vault.waiters.unsubscribe(w.id)
	}
}

// try takes the lease if it is free, or if its holder has fallen silent. It
// returns no hold where the store needs none. The error is ErrLeased, errAgain,
// ErrNoSession or an *UnavailableError.
func (w *leaseWaiter) try(ctx context.Context) (*heldLease, error) {
	v := w.vault
	if v.shared == nil {
		return nil, nil
	}
	holder, began := newHolder(), time.Now()
	seen := w.expired(began)
	lease, err := v.tryAcquire(ctx, w.id, w.version, holder, seen)
	switch {
	case err == nil:
		return v.startHolding(w.id, holder, began, seen != session.Lease{}), nil
	case errors.Is(err, session.ErrNotFound):
		return nil, ErrNoSession
	case errors.Is(err, session.ErrConflict):
		return nil, errStale
	case !errors.Is(err, session.ErrLeased):
		// It may be ours without our knowing.
		v.background(func() { v.release(w.id, holder) })
		return nil, unavailable(fmt.Errorf("taking the lease: %w", err))
	}
	w.observe(lease, began, time.Now())
	return nil, err
}

// changed waits until the lease is worth another try. The error is errAgain or an
// *UnavailableError.
func (w *leaseWaiter) awaitChange(ctx context.Context) error {
	if w.vault.hasNewerVersion(ctx, w.id, w.version) {
		return errStale
	}
	select {
	case <-w.changes:
	case <-time.After(renewInterval):
	case <-w.vault.closing.Done():
		return unavailable(ErrClosed)
	case <-ctx.Done():
		return unavailable(errors.New("another instance takes long to refresh"))
	}
	return nil
}

// moved reports whether the item has a later version by now. It also sees to it
// that the next one is pushed: a store may push once for each View.
func (v *Vault) hasNewerVersion(ctx context.Context, id session.ID, version uint64) (moved bool) {
	ctx, cancel := context.WithTimeout(ctx, renewInterval)
	defer cancel()
	_ = v.store.View(ctx, id, func(item session.Item) error {
		moved = item.Version > version // less is a copy whose push is on its way
		return nil
	})
	return moved
}

func (v *Vault) tryAcquire(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	return v.shared.Acquire(ctx, id, version, holder, seen)
}

// watch is what a process knows of a lease that another one has.
type observedLease struct {
	lease session.Lease
	// since is when it was first seen so. Every look since then was answered in
	// time, the last at the time last.
	unchangedSince, lastSeen time.Time
}

// saw notes the answer to a look. One that comes late, or long after the one
// before, starts the count anew: in the meantime the holder may have been kept
// from beating by what kept us from looking.
func (w *observedLease) observe(lease session.Lease, began, now time.Time) {
	if lease != w.lease || now.Sub(began) > renewInterval || now.Sub(w.lastSeen) > 2*renewInterval {
		w.unchangedSince = now
	}
	w.lease, w.lastSeen = lease, now
}

// silent returns the lease if its holder is to be taken for dead.
func (w *observedLease) expired(now time.Time) session.Lease {
	if w.unchangedSince.IsZero() || now.Sub(w.unchangedSince) < leaseTimeout || now.Sub(w.lastSeen) > 2*renewInterval {
		return session.Lease{}
	}
	return w.lease
}

// ears wake the refreshes that wait for another process.
type waiters struct {
	mu  sync.Mutex
	all map[session.ID]chan struct{}
}

// listen returns a channel that tells of changes of a session. There is one
// refresh of a session at a time, hence one ear.
func (e *waiters) subscribe(id session.ID) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.all == nil {
		e.all = map[session.ID]chan struct{}{}
	}
	ear := make(chan struct{}, 1)
	e.all[id] = ear
	return ear
}

func (e *waiters) unsubscribe(id session.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.all, id)
}

// wake tells who listens to these sessions, or with nil to any.
func (e *waiters) notify(ids []session.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ids == nil {
		for _, ear := range e.all {
			signal(ear)
		}
	}
	for _, id := range ids {
		signal(e.all[id])
	}
}

// ring does nothing for a nil ear, or one that was told already.
func signal(ear chan struct{}) {
	select {
	case ear <- struct{}{}:
	default:
	}
}

// changed is what a shared store calls when items were written or removed.
// Where requests are in progress it is found out whether their session is over:
// what a logout at another instance means for a WebSocket here.
func (v *Vault) itemsChanged(ids []session.ID) {
	v.waiters.notify(ids)
	if ids := v.live.invalidate(ids); len(ids) > 0 {
		v.check(ids...)
	}
}

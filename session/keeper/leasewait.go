package keeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// leaseWaiter waits for the lease of one session. version is that of the record that was
// read; the lease is of no use if it has changed.
type leaseWaiter struct {
	vault    *Vault
	id       session.ID
	version  uint64
	changes  <-chan struct{} // see waiters
	observed observedLease
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

// try takes the lease if it is free or has expired. Without a shared store it returns nil:
// no lease is needed. The error is session.ErrLeased, errStale, ErrNoSession or an
// *UnavailableError.
func (w *leaseWaiter) try(ctx context.Context) (*heldLease, error) {
	v := w.vault
	if v.shared == nil {
		return nil, nil
	}
	holder, sent := newHolder(), time.Now()
	expired := w.observed.expired(sent)
	lease, err := v.tryAcquire(ctx, w.id, w.version, holder, expired)
	switch {
	case err == nil:
		return v.startHolding(w.id, holder, sent, expired != session.Lease{}), nil
	case errors.Is(err, session.ErrNotFound):
		return nil, ErrNoSession
	case errors.Is(err, session.ErrConflict):
		return nil, errStale
	case !errors.Is(err, session.ErrLeased):
		// The store may have given the lease to this process although it reports an error.
		v.background(func() { v.release(w.id, holder) })
		return nil, unavailable(fmt.Errorf("taking the lease: %w", err))
	}
	w.observed.observe(lease, sent, time.Now())
	return nil, err
}

// awaitChange waits until it is worth trying again: the session has changed, or the lease
// may have expired. The error is errStale or an *UnavailableError.
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

// hasNewerVersion reports whether the item has a version later than the given one. Its
// View also subscribes to the next change of the item: a store may push only one change
// after each View.
func (v *Vault) hasNewerVersion(ctx context.Context, id session.ID, version uint64) (newer bool) {
	ctx, cancel := context.WithTimeout(ctx, renewInterval)
	defer cancel()
	_ = v.store.View(ctx, id, func(item session.Item) error {
		newer = item.Version > version // an earlier version is an outdated copy
		return nil
	})
	return newer
}

func (v *Vault) tryAcquire(ctx context.Context, id session.ID, version uint64, holder session.Holder, expired session.Lease) (session.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	return v.shared.Acquire(ctx, id, version, holder, expired)
}

// observedLease is a lease of another process, as this process has observed it.
type observedLease struct {
	lease session.Lease
	// unchangedSince is the time of the first observation of the lease in its present
	// state, and lastSeen that of the last. The store answered every observation between
	// them in time.
	unchangedSince, lastSeen time.Time
}

// observe records the answer to an observation that was sent at a time. If the answer is
// late, or long after the previous one, the count starts again: the same fault may have kept
// this process from observing the lease and the holder from renewing it.
func (o *observedLease) observe(lease session.Lease, sent, now time.Time) {
	if lease != o.lease || now.Sub(sent) > renewInterval || now.Sub(o.lastSeen) > 2*renewInterval {
		o.unchangedSince = now
	}
	o.lease, o.lastSeen = lease, now
}

// expired returns the lease if it has expired, and the zero Lease otherwise.
func (o *observedLease) expired(now time.Time) session.Lease {
	if o.unchangedSince.IsZero() || now.Sub(o.unchangedSince) < leaseTimeout || now.Sub(o.lastSeen) > 2*renewInterval {
		return session.Lease{}
	}
	return o.lease
}

// waiters are the refreshes that wait for another process. Each subscribes to the changes
// of its session. A session has one refresh at a time in this process, so it has at most
// one subscription.
type waiters struct {
	mu  sync.Mutex
	all map[session.ID]chan struct{}
}

// subscribe returns a channel that receives a value after changes of a session.
func (w *waiters) subscribe(id session.ID) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[session.ID]chan struct{}{}
	}
	changes := make(chan struct{}, 1)
	w.all[id] = changes
	return changes
}

func (w *waiters) unsubscribe(id session.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, id)
}

// notify wakes the subscribers of the sessions, or all subscribers if ids is nil.
func (w *waiters) notify(ids []session.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ids == nil {
		for _, changes := range w.all {
			signal(changes)
		}
	}
	for _, id := range ids {
		signal(w.all[id])
	}
}

// signal does nothing if the channel is nil or already holds a value.
func signal(changes chan struct{}) {
	select {
	case changes <- struct{}{}:
	default:
	}
}

// itemsChanged is the callback of a shared store: items were written or removed, or, if ids
// is nil, any may have been. It also checks the sessions with requests in progress, so that
// a logout at another instance ends a WebSocket here.
func (v *Vault) itemsChanged(ids []session.ID) {
	v.waiters.notify(ids)
	if inUse := v.live.invalidate(ids); len(inUse) > 0 {
		v.check(inUse...)
	}
}

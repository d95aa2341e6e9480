package keeper

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

const (
	// leaseTimeout is how long a lease must stay unchanged, while the store answers, until
	// it counts as expired. A holder that stops for longer loses the lease, and the session
	// if it had sent the refresh token and the server has rotated it.
	leaseTimeout = 3 * time.Second
	// renewInterval is how often the holder renews its lease, and how often other processes
	// observe it.
	renewInterval = leaseTimeout / 4
)

// heldLease is a lease that this process holds. It is nil if no other process uses the
// store: then no lease is needed.
type heldLease struct {
	vault    *Vault
	id       session.ID
	holderID session.Holder
	tookOver bool // the lease of another holder had expired
	stop     func()

	// refreshing is set until the refresh is done. Vault.mu guards it.
	refreshing bool

	mu          sync.Mutex
	beat        uint64
	confirmedAt time.Time // when the last successful renewal was sent
	lost        bool      // another process has the lease
	onLost      func()    // called when a renewal shows that the lease is lost
}

// startHolding renews a lease from now on. sent is when the request that acquired it was
// sent, and tookOver whether it was another holder's.
func (v *Vault) startHolding(id session.ID, holder session.Holder, sent time.Time, tookOver bool) *heldLease {
	ctx, cancel := context.WithCancel(v.closed)
	h := &heldLease{vault: v, id: id, holderID: holder, tookOver: tookOver, refreshing: true, confirmedAt: sent}
	// Most refreshes end before the first renewal, so that needs no goroutine yet.
	first := time.AfterFunc(renewInterval, func() { h.renewUntil(ctx) })
	h.stop = func() {
		first.Stop()
		cancel()
	}
	v.mu.Lock()
	v.heldLeases[id] = h
	v.mu.Unlock()
	return h
}

// renewUntil renews the lease until ctx ends or the lease is lost.
func (h *heldLease) renewUntil(ctx context.Context) {
	ticker := time.NewTicker(renewInterval)
	defer ticker.Stop()
	for ctx.Err() == nil && !errors.Is(h.renew(ctx), errStale) {
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	h.mu.Lock()
	onLost := h.onLost
	h.mu.Unlock()
	if ctx.Err() == nil && onLost != nil {
		onLost()
	}
}

// whenLost registers a function that is called at most once, on the goroutine that renews
// the lease, if a later renewal shows that the lease is lost.
func (h *heldLease) whenLost(f func()) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onLost = f
}

// renew renews the lease once. It returns errStale if the lease is lost.
func (h *heldLease) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout/2)
	defer cancel()
	h.mu.Lock()
	h.beat++
	lease := session.Lease{Holder: h.holderID, Beat: h.beat}
	h.mu.Unlock()
	sent := time.Now()
	err := h.vault.shared.Beat(ctx, h.id, lease)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case errors.Is(err, session.ErrConflict):
		h.lost = true
		return errStale
	case err == nil && sent.After(h.confirmedAt):
		h.confirmedAt = sent
	}
	return err
}

// confirm makes sure, immediately before a refresh token is sent, that this process still
// has the lease. It renews a lease that was not confirmed within half of leaseTimeout. After
// any error the token must not be sent.
func (h *heldLease) confirm(ctx context.Context) error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	lost, age := h.lost, elapsed(h.confirmedAt)
	h.mu.Unlock()
	if lost {
		return errStale
	}
	if age < leaseTimeout/2 {
		return nil
	}
	sent := time.Now()
	if err := h.renew(ctx); err != nil {
		return err
	}
	if elapsed(sent) >= leaseTimeout/2 {
		return errStale
	}
	return nil
}

// elapsed returns the longer of the monotonic and the wall-clock time since t. The
// monotonic clock stops while a machine is suspended, and the wall clock may be set back.
func elapsed(t time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}

// holder returns the holder of the lease, for DeleteAt.
func (h *heldLease) holder() session.Holder {
	if h == nil {
		return session.Holder{}
	}
	return h.holderID
}

// refreshDoneAfter calls refreshDone after a delay. If the vault is closed before, the lease
// is no longer renewed, and another process takes it over.
func (h *heldLease) refreshDoneAfter(delay time.Duration) {
	switch {
	case h == nil:
	case delay > 0:
		// The lease is free when the back-off of the session ends.
		time.AfterFunc(delay-renewInterval, h.refreshDone)
	default:
		h.refreshDone()
	}
}

// refreshDone records that the refresh no longer needs the lease.
func (h *heldLease) refreshDone() {
	h.vault.mu.Lock()
	h.refreshing = false
	h.vault.mu.Unlock()
	h.vault.releaseIfWritten(h.id)
}

// releaseIfWritten releases the lease of a session if its refresh is done and the store has
// the result. Before that, another process with the lease would read the old refresh token
// from the store and send it again.
func (v *Vault) releaseIfWritten(id session.ID) {
	v.mu.Lock()
	h := v.heldLeases[id]
	if h == nil || h.refreshing || v.hasUnwritten(id) {
		v.mu.Unlock()
		return
	}
	delete(v.heldLeases, id)
	v.mu.Unlock()
	h.stop()
	// Requests that wait for the refresh need not wait for the release.
	v.running.Go(func() { v.release(id, h.holderID) })
}

// hasUnwritten reports whether this process has a record, or the end, of a session that the
// store does not have yet.
func (v *Vault) hasUnwritten(id session.ID) bool {
	e := v.overlay.get(id)
	return e != nil && !e.deleted.Load()
}

// release releases a lease. If that fails, other processes wait until the lease expires.
func (v *Vault) release(id session.ID, holder session.Holder) {
	ctx, cancel := context.WithTimeout(context.Background(), leaseTimeout)
	defer cancel()
	_ = v.shared.Release(ctx, id, holder)
}

// newHolder draws a holder for one acquisition of a lease.
func newHolder() (h session.Holder) {
	_, _ = rand.Read(h[:]) // never fails: crypto/rand.Read ends the program instead
	return h
}

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
	// leaseTimeout is how long a lease must stay as it is, in time in which the
	// store answers, until its holder is taken for dead. A holder that stands
	// still for longer than that loses the lease, and perhaps the session.
	leaseTimeout = 3 * time.Second
	// renewInterval is how often a holder raises its beat, and how often others look
	// at it.
	renewInterval = leaseTimeout / 4
)

// hold is a lease that this process has. A nil hold is that of a store which
// no other process uses.
type heldLease struct {
	vault    *Vault
	id       session.ID
	holderID session.Holder
	tookOver bool // from somebody taken for dead
	stop     func()

	// flying: the refresh is still under way. Guarded by the vault's mutex.
	refreshing bool

	mu          sync.Mutex
	beat        uint64
	confirmedAt time.Time // when the last beat was sent that the store confirmed
	lost        bool      // taken by somebody else
	onLost      func()    // called when a renewal finds that out
}

// hold starts to hold a lease that was acquired by a request sent at a time.
func (v *Vault) startHolding(id session.ID, holder session.Holder, confirmed time.Time, tookOver bool) *heldLease {
	ctx, cancel := context.WithCancel(v.closed)
	h := &heldLease{vault: v, id: id, holderID: holder, tookOver: tookOver, refreshing: true, confirmedAt: confirmed}
	// Most are over before the first beat.
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

// whenLost has f called once, on a goroutine of the hold, if the lease turns out to
// be lost from now on.
func (h *heldLease) whenLost(f func()) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onLost = f
}

// raise sends one beat.
func (h *heldLease) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout/2)
	defer cancel()
	h.mu.Lock()
	h.beat++
	lease := session.Lease{Holder: h.holderID, Beat: h.beat}
	h.mu.Unlock()
	began := time.Now()
	err := h.vault.shared.Beat(ctx, h.id, lease)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case errors.Is(err, session.ErrConflict):
		h.lost = true
		return errStale
	case err == nil && began.After(h.confirmedAt):
		h.confirmedAt = began
	}
	return err
}

// confirm makes sure, right before a refresh token is sent, that the lease is
// still ours: whoever has not heard that for half a silence must not send. Any
// error means to let go.
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
	began := time.Now()
	if err := h.renew(ctx); err != nil {
		return err
	}
	if elapsed(began) >= leaseTimeout/2 {
		return errStale
	}
	return nil
}

// elapsed returns the larger of the monotonic and the wall-clock time since t. The
// monotonic clock stands still while a machine is suspended, and the other one may
// be set back.
func elapsed(t time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}

// name returns who holds the lease, for a step that demands it.
func (h *heldLease) holder() session.Holder {
	if h == nil {
		return session.Holder{}
	}
	return h.holderID
}

// refreshDoneAfter ends the part of the refresh in a hold, after a delay. A holder
// that is closed meanwhile stops renewing the lease, and others take it over.
func (h *heldLease) refreshDoneAfter(delay time.Duration) {
	switch {
	case h == nil:
	case delay > 0:
		// Free when the back-off of the session ends.
		time.AfterFunc(delay-renewInterval, h.refreshDone)
	default:
		h.refreshDone()
	}
}

func (h *heldLease) refreshDone() {
	h.vault.mu.Lock()
	h.refreshing = false
	h.vault.mu.Unlock()
	h.vault.releaseIfWritten(h.id)
}

// letGo releases the lease of a session, once its refresh is over and what that
// brought is written: whoever got the lease before that would find the old
// refresh token in the store and send it again.
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
	// Behind those who wait for the refresh.
	v.running.Go(func() { v.release(id, h.holderID) })
}

// unwritten reports whether there is a record, or an end, that the store does
// not have yet.
func (v *Vault) hasUnwritten(id session.ID) bool {
	e := v.overlay.get(id)
	return e != nil && !e.deleted.Load()
}

// release frees a lease. If that fails, others wait until it has been silent.
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

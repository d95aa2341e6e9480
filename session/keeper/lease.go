package keeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
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
	id       session.ID
	holder   session.Holder
	tookOver bool // from somebody taken for dead
	stop     func()

	// flying: the refresh is still under way. Guarded by the vault's mutex.
	flying bool

	mu        sync.Mutex
	beat      uint64
	confirmed time.Time // when the last beat was sent that the store confirmed
	lost      bool      // taken by somebody else
	onLost    func()    // called when a renewal finds that out
}

// leaseWaiter takes the lease of one session, which was read in one version.
type leaseWaiter struct {
	vault   *Vault
	id      session.ID
	version uint64
	ear     <-chan struct{}
	watch
}

func (v *Vault) waitForLease(id session.ID, version uint64) *leaseWaiter {
	w := &leaseWaiter{vault: v, id: id, version: version}
	if v.shared != nil {
		w.ear = v.ears.listen(id)
	}
	return w
}

func (w *leaseWaiter) end() {
	if w.vault.shared != nil {
		w.vault.ears.leave(w.id)
	}
}

// try takes the lease if it is free, or if its holder has fallen silent. It
// returns no hold where the store needs none. The error is ErrLeased, errAgain,
// ErrNoSession or an *UnavailableError.
func (w *leaseWaiter) try(ctx context.Context) (*hold, error) {
	v := w.vault
	if v.shared == nil {
		return nil, nil
	}
	holder, began := newHolder(), time.Now()
	seen := w.silent(began)
	lease, err := v.tryAcquire(ctx, w.id, w.version, holder, seen)
	switch {
	case err == nil:
		return v.hold(w.id, holder, began, seen != session.Lease{}), nil
	case errors.Is(err, session.ErrNotFound):
		return nil, ErrNoSession
	case errors.Is(err, session.ErrConflict):
		return nil, errStale
	case !errors.Is(err, session.ErrLeased):
		// It may be ours without our knowing.
		v.background(func() { v.release(w.id, holder) })
		return nil, unavailable(fmt.Errorf("taking the lease: %w", err))
	}
	w.saw(lease, began, time.Now())
	return nil, err
}

// changed waits until the lease is worth another try. The error is errAgain or an
// *UnavailableError.
func (w *leaseWaiter) changed(ctx context.Context) error {
	if w.vault.moved(ctx, w.id, w.version) {
		return errStale
	}
	select {
	case <-w.ear:
	case <-time.After(leaseBeat):
	case <-w.vault.closing.Done():
		return unavailable(ErrClosed)
	case <-ctx.Done():
		return unavailable(errors.New("another instance takes long to refresh"))
	}
	return nil
}

// moved reports whether the item has a later version by now. It also sees to it
// that the next one is pushed: a store may push once for each View.
func (v *Vault) moved(ctx context.Context, id session.ID, version uint64) (moved bool) {
	ctx, cancel := context.WithTimeout(ctx, leaseBeat)
	defer cancel()
	_ = v.store.View(ctx, id, func(item session.Item) error {
		moved = item.Version > version // less is a copy whose push is on its way
		return nil
	})
	return moved
}

func (v *Vault) tryAcquire(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseSilence)
	defer cancel()
	return v.shared.Acquire(ctx, id, version, holder, seen)
}

// watch is what a process knows of a lease that another one has.
type watch struct {
	seen session.Lease
	// since is when it was first seen so. Every look since then was answered in
	// time, the last at the time last.
	since, last time.Time
}

// saw notes the answer to a look. One that comes late, or long after the one
// before, starts the count anew: in the meantime the holder may have been kept
// from beating by what kept us from looking.
func (w *watch) saw(lease session.Lease, began, now time.Time) {
	if lease != w.seen || now.Sub(began) > leaseBeat || now.Sub(w.last) > 2*leaseBeat {
		w.since = now
	}
	w.seen, w.last = lease, now
}

// silent returns the lease if its holder is to be taken for dead.
func (w *watch) silent(now time.Time) session.Lease {
	if w.since.IsZero() || now.Sub(w.since) < leaseSilence || now.Sub(w.last) > 2*leaseBeat {
		return session.Lease{}
	}
	return w.seen
}

// hold starts to hold a lease that was acquired by a request sent at a time.
func (v *Vault) hold(id session.ID, holder session.Holder, confirmed time.Time, tookOver bool) *hold {
	ctx, cancel := context.WithCancel(v.closed)
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
	for ctx.Err() == nil && !errors.Is(h.raise(ctx), errStale) {
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
func (h *hold) whenLost(f func()) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onLost = f
}

// raise sends one beat.
func (h *hold) raise(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaseSilence/2)
	defer cancel()
	h.mu.Lock()
	h.beat++
	lease := session.Lease{Holder: h.holder, Beat: h.beat}
	h.mu.Unlock()
	began := time.Now()
	err := h.vault.shared.Beat(ctx, h.id, lease)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case errors.Is(err, session.ErrConflict):
		h.lost = true
		return errStale
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
	lost, age := h.lost, elapsed(h.confirmed)
	h.mu.Unlock()
	if lost {
		return errStale
	}
	if age < leaseSilence/2 {
		return nil
	}
	began := time.Now()
	if err := h.raise(ctx); err != nil {
		return err
	}
	if elapsed(began) >= leaseSilence/2 {
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
func (h *hold) name() session.Holder {
	if h == nil {
		return session.Holder{}
	}
	return h.holder
}

// landedAfter ends the part of the refresh in a hold, after a delay. A holder
// that is closed meanwhile stops renewing the lease, and others take it over.
func (h *hold) landedAfter(delay time.Duration) {
	switch {
	case h == nil:
	case delay > 0:
		// Free when the back-off of the session ends.
		time.AfterFunc(delay-leaseBeat, h.landed)
	default:
		h.landed()
	}
}

func (h *hold) landed() {
	h.vault.mu.Lock()
	h.flying = false
	h.vault.mu.Unlock()
	h.vault.letGo(h.id)
}

// letGo releases the lease of a session, once its refresh is over and what that
// brought is written: whoever got the lease before that would find the old
// refresh token in the store and send it again.
func (v *Vault) letGo(id session.ID) {
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
func (v *Vault) unwritten(id session.ID) bool {
	e := v.overlay.get(id)
	return e != nil && !e.deleted.Load()
}

// release frees a lease. If that fails, others wait until it has been silent.
func (v *Vault) release(id session.ID, holder session.Holder) {
	ctx, cancel := context.WithTimeout(context.Background(), leaseSilence)
	defer cancel()
	_ = v.shared.Release(ctx, id, holder)
}

// newHolder draws a holder for one acquisition of a lease.
func newHolder() (h session.Holder) {
	_, _ = rand.Read(h[:]) // never fails: crypto/rand.Read ends the program instead
	return h
}

package keeper

import (
	"errors"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// flight is one refresh under way, for all who want it.
type flight struct {
	// told is closed when there is something to know: the result, or new tokens
	// that have been judged and take long to be written (early).
	told  chan struct{}
	early *hot
	// done is closed when nothing is left to do, and another flight can begin.
	// Then hot and err are set.
	done chan struct{}
	hot  hot
	err  error
}

// tell lets those go on who wait, while the tokens are being written.
func (f *flight) tell(h hot) {
	f.early = &h
	close(f.told)
}

func (f *flight) land(h hot, err error) {
	f.hot, f.err = h, err
	if f.early == nil {
		close(f.told)
	}
	close(f.done)
}

// early returns the session's tokens that take long to be written, or nil.
func (v *Vault) early(id session.ID) *hot {
	v.mu.Lock()
	f := v.flights[id]
	v.mu.Unlock()
	if f == nil {
		return nil
	}
	select {
	case <-f.told:
		return f.early
	default:
		return nil
	}
}

// join returns the session's flight, and starts one if there is none. During a
// back-off, or when the vault is closed, it starts none and returns the reason
// instead. waiting says that the request cannot be served without the flight.
// The use of the session, if there is one to be written down, is noted, and
// written with the new tokens; without a flight, at once.
func (k *Keeper) join(ref seal.Ref, d demand, use time.Time, waiting bool) (*flight, *UnavailableError) {
	f, paused := k.joinOrStart(ref, d, use, waiting)
	if paused != nil && !use.IsZero() {
		k.recordUse(ref, use)
	}
	return f, paused
}

func (k *Keeper) joinOrStart(ref seal.Ref, d demand, use time.Time, waiting bool) (*flight, *UnavailableError) {
	v := k.Vault
	// Before the lock, which all sessions share. A flight looks again before it
	// sends anything.
	paused := k.paused(ref.ID, waiting)
	v.mu.Lock()
	defer v.mu.Unlock()
	f := v.flights[ref.ID]
	if f == nil {
		if v.closing.Err() != nil {
			return nil, unavailable(ErrClosed)
		}
		if paused != nil {
			return nil, paused
		}
		f = &flight{told: make(chan struct{}), done: make(chan struct{})}
		v.flights[ref.ID] = f
		r := refresh{Keeper: k, flight: f, ref: ref, demand: d, asked: time.Now()}
		v.running.Go(r.fly)
	}
	if !use.IsZero() {
		v.uses.noteForRefresh(ref, k, use)
	}
	return f, nil
}

// paused returns why no refresh of a session may begin now, or nil.
func (k *Keeper) paused(id session.ID, waiting bool) *UnavailableError {
	now := time.Now()
	if err := k.Vault.backoffs.check(id, now, waiting); err != nil {
		return err
	}
	failed := !k.Vault.backoffs.failingSince(id).IsZero()
	if err := k.breaker.check(now, waiting, failed); err != nil {
		return err
	}
	return k.client.check(now, waiting, failed)
}

// fly is the whole of a flight.
func (r *refresh) fly() {
	h, err := r.run()
	r.Vault.mu.Lock()
	delete(r.Vault.flights, r.ref.ID)
	r.Vault.mu.Unlock()
	r.flight.land(h, err)
	switch {
	case err == nil:
		r.recordUseAfterRefresh(r.ref.ID, h.lastUsed)
	case errors.Is(err, ErrNoSession):
		r.Vault.uses.forget(r.ref.ID)
	default:
		r.recordUseAfterRefresh(r.ref.ID, time.Time{})
	}
}

package keeper

import (
	"context"
	"errors"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// flight is one refresh under way, for all who want it.
type flight struct {
	// told is closed when there is something to know: the result, or new tokens
	// that have been judged and take long to be written (early).
	ready       chan struct{}
	uncommitted *hot
	// done is closed when nothing is left to do, and another flight can begin.
	// Then hot and err are set.
	done chan struct{}
	hot  hot
	err  error
}

// tell lets those go on who wait, while the tokens are being written.
func (f *flight) publish(h hot) {
	f.uncommitted = &h
	close(f.ready)
}

func (f *flight) finish(h hot, err error) {
	f.hot, f.err = h, err
	if f.uncommitted == nil {
		close(f.ready)
	}
	close(f.done)
}

// early returns the session's tokens that take long to be written, or nil.
func (v *Vault) uncommitted(id session.ID) *hot {
	v.mu.Lock()
	f := v.flights[id]
	v.mu.Unlock()
	if f == nil {
		return nil
	}
	select {
	case <-f.ready:
		return f.uncommitted
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
	paused := k.checkPause(ref.ID, waiting)
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
		f = &flight{ready: make(chan struct{}), done: make(chan struct{})}
		v.flights[ref.ID] = f
		r := refresh{Keeper: k, flight: f, ref: ref, demand: d, requestedAt: time.Now()}
		v.running.Go(r.run)
	}
	if !use.IsZero() {
		v.uses.noteForRefresh(ref, k, use)
	}
	return f, nil
}

// paused returns why no refresh of a session may begin now, or nil.
func (k *Keeper) checkPause(id session.ID, waiting bool) *UnavailableError {
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
func (r *refresh) run() {
	h, err := r.retryOnConflict()
	r.Vault.mu.Lock()
	delete(r.Vault.flights, r.ref.ID)
	r.Vault.mu.Unlock()
	r.flight.finish(h, err)
	switch {
	case err == nil:
		r.recordUseAfterRefresh(r.ref.ID, h.lastUsed)
	case errors.Is(err, ErrNoSession):
		r.Vault.uses.forget(r.ref.ID)
	default:
		r.recordUseAfterRefresh(r.ref.ID, time.Time{})
	}
}

// demand is how fresh a request wants its token to be.
type demand struct {
	// since is when the token must have been obtained, or later; zero: any
	// usable token will do.
	since time.Time
	// other is the token at hand, which will not do. Any other one was obtained
	// while the request waited, and is fresh enough whatever the clock says.
	other string
}

// met reports whether a token may be sent with the request.
func (d demand) met(t *accessToken, now time.Time) bool {
	return t.usable(now) && (d.since.IsZero() || !t.obtained.Before(d.since) || t.value != d.other)
}

// refreshed serves a request that found its token due, or not as fresh as it
// wants it. If it can have the token at hand, it does not wait for the refresh
// that it starts. A use that is not zero is to be written down.
func (k *Keeper) serveWithRefresh(ctx context.Context, ref seal.Ref, h *hot, d demand, use time.Time) (*Session, error) {
	var wait context.Context
	for ; ; use = (time.Time{}) {
		now := time.Now()
		met := d.met(&h.token, now)
		if met && !h.token.due(now) {
			return k.sessionOf(ref.ID, h), nil
		}
		f, paused := k.join(ref, d, use, !met)
		if met {
			return k.sessionOf(ref.ID, h), nil
		}
		if paused != nil {
			return nil, paused
		}
		if wait == nil {
			var cancel context.CancelFunc
			wait, cancel = context.WithTimeout(ctx, k.RefreshTimeout)
			defer cancel()
		}
		fresh, err := k.awaitResult(wait, f, ref, d, h.epoch)
		switch {
		case wait.Err() != nil && ctx.Err() == nil && fresh == nil:
			return nil, unavailable(errors.New("the refresh takes longer than refresh_timeout"))
		case err == nil:
			h = fresh
		case errors.Is(err, ErrNotRefreshable) && d.since.IsZero():
			// Somebody else wanted more than this request does.
		default:
			return nil, err
		}
		// Good, but for a token that lives shorter than this took, and for a
		// flight begun by somebody less demanding.
		if d.met(&h.token, time.Now()) {
			return k.sessionOf(ref.ID, h), nil
		}
	}
}

// result waits for what a flight brings until ctx ends, and then returns its
// error. Tokens that take long to be written will do, if they are what the
// request wants, and if the session has not ended while it waited.
func (k *Keeper) awaitResult(ctx context.Context, f *flight, ref seal.Ref, d demand, mark uint64) (*hot, error) {
	if err := await(ctx, f.ready); err != nil {
		return nil, err
	}
	if f.uncommitted != nil && d.met(&f.uncommitted.token, time.Now()) {
		h, err := k.checkAlive(ctx, f.uncommitted, ref)
		if err == nil || errors.Is(err, ErrNoSession) {
			return h, err
		}
	}
	if err := await(ctx, f.done); err != nil {
		return nil, err
	}
	switch {
	case f.err != nil:
		return nil, f.err
	case k.Vault.shared != nil && k.Vault.hasUnwritten(ref.ID):
		return k.checkAlive(ctx, &f.hot, ref)
	}
	return f.hot.withEpoch(mark), nil
}

// checkAlive returns what only this process knows, if the session has not ended
// meanwhile. With a shared store it looks at what pushes keep true, as any request
// does; otherwise only this process can have ended it.
func (k *Keeper) checkAlive(ctx context.Context, known *hot, ref seal.Ref) (*hot, error) {
	now, err := k.readHot(ctx, ref)
	if err != nil {
		return nil, err
	}
	return known.withEpoch(now.epoch), nil
}

// withEpoch returns a copy for one request, whose look at the store has this mark:
// all who wait share what the flight brings.
func (h *hot) withEpoch(mark uint64) *hot {
	own := *h
	own.epoch = mark
	return &own
}

func await(ctx context.Context, flight <-chan struct{}) error {
	select {
	case <-flight:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

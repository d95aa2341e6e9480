package keeper

import (
	"context"
	"errors"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// flight is one refresh in progress. All requests of the session that need its result
// wait for the same flight.
type flight struct {
	// ready is closed when waiting requests can go on: the result is known, or new tokens
	// are valid although the store has not confirmed them yet (uncommitted).
	ready       chan struct{}
	uncommitted *hot
	// done is closed when the refresh has ended and the next flight of the session can
	// begin. hot and err are set by then.
	done chan struct{}
	hot  hot
	err  error
}

// publish gives new tokens to the waiting requests while the store still writes them.
func (f *flight) publish(h hot) {
	f.uncommitted = &h
	close(f.ready)
}

// finish gives the result to the waiting requests.
func (f *flight) finish(h hot, err error) {
	f.hot, f.err = h, err
	if f.uncommitted == nil {
		close(f.ready)
	}
	close(f.done)
}

// uncommitted returns the published tokens of the session's flight, or nil.
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

// join returns the flight of the session, and starts one if there is none. During a
// back-off, and when the vault is closed, it starts none and returns an error. waiting
// means that the request cannot be served without the flight.
//
// If use is not zero, the flight writes that use of the session with the new tokens.
// Without a flight, join has it written at once.
func (k *Keeper) join(ctx context.Context, ref seal.Ref, d demand, use time.Time, waiting bool) (*flight, *UnavailableError) {
	f, paused := k.joinOrStart(ctx, ref, d, use, waiting)
	if paused != nil && !use.IsZero() {
		k.recordUse(ref, use)
	}
	return f, paused
}

func (k *Keeper) joinOrStart(ctx context.Context, ref seal.Ref, d demand, use time.Time, waiting bool) (*flight, *UnavailableError) {
	v := k.Vault
	// All sessions share v.mu, so the pause is checked before it is locked. The flight
	// checks again before it sends anything.
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
		r := refresh{Keeper: k, flight: f, ref: ref, demand: d, startedAt: time.Now(), values: context.WithoutCancel(ctx)}
		v.running.Go(r.run)
	}
	if !use.IsZero() {
		v.uses.noteForRefresh(ref, k, use)
	}
	return f, nil
}

// checkPause returns an error if the session, its authorization server or its client is
// in a back-off.
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

// run refreshes the session and finishes the flight.
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

// demand is the freshness of the token that a request requires.
type demand struct {
	// since is the earliest time at which the token may have been obtained. Zero: any
	// usable token is accepted.
	since time.Time
	// other is the token that the session had when the request arrived. With since set,
	// any other token is accepted too: it was obtained while the request waited, even if
	// the clock was set back.
	other string
	// passive: the request does not count as use of the session.
	passive bool
}

// isFresher reports whether the request requires more than a usable token.
func (d demand) isFresher() bool { return !d.since.IsZero() }

// metBy reports whether a token is usable and as fresh as the request requires.
func (d demand) metBy(t *accessToken, now time.Time) bool {
	return t.usable(now) && (!d.isFresher() || !t.obtained.Before(d.since) || t.value != d.other)
}

// serveWithRefresh serves a request whose token is due for a refresh, or does not meet
// its demand. It starts a refresh, or joins the one in progress. It waits for the result
// only if the present token does not meet the demand, and for RefreshTimeout at most. If
// use is not zero, that use of the session is written.
func (k *Keeper) serveWithRefresh(ctx context.Context, ref seal.Ref, h *hot, d demand, use time.Time) (*Session, error) {
	var wait context.Context
	for ; ; use = (time.Time{}) {
		now := time.Now()
		met := d.metBy(&h.token, now)
		if met && !h.due(now) {
			return k.sessionOf(ref.ID, h), nil
		}
		f, paused := k.join(ctx, ref, d, use, !met)
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
			defer func() { k.Observe(Event{Kind: EventWaited, ID: ref.ID, Took: time.Since(now)}) }()
		}
		refreshed, err := k.awaitResult(wait, f, ref, d, h.epoch)
		switch {
		case wait.Err() != nil && ctx.Err() == nil && refreshed == nil:
			return nil, unavailable(errors.New("the refresh takes longer than refresh_timeout"))
		case err == nil:
			h = refreshed
		case errors.Is(err, ErrNotRefreshable) && !d.isFresher():
			// The request that started the flight demanded a fresher token than this one.
		default:
			return nil, err
		}
		// The demand may still not be met: the token may have expired while the flight
		// took its time, or a request with a weaker demand may have started the flight.
		if d.metBy(&h.token, time.Now()) {
			return k.sessionOf(ref.ID, h), nil
		}
	}
}

// awaitResult waits for the result of a flight, or until ctx ends. It returns published
// tokens before the store has confirmed them if they meet the demand and the session has
// not ended.
func (k *Keeper) awaitResult(ctx context.Context, f *flight, ref seal.Ref, d demand, epoch uint64) (*hot, error) {
	if err := await(ctx, f.ready); err != nil {
		return nil, err
	}
	if f.uncommitted != nil && d.metBy(&f.uncommitted.token, time.Now()) {
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
	return f.hot.withEpoch(epoch), nil
}

// checkAlive returns a copy of unwritten, which only this process knows, unless the
// session has ended. With a shared store another process may have ended it, so it reads
// the item as any request does. Otherwise only this process can have ended it.
func (k *Keeper) checkAlive(ctx context.Context, unwritten *hot, ref seal.Ref) (*hot, error) {
	current, err := k.readHot(ctx, ref)
	if err != nil {
		return nil, err
	}
	return unwritten.withEpoch(current.epoch), nil
}

// withEpoch returns a copy with the epoch at which a request read the session. The
// original is shared by all requests that wait for the flight.
func (h *hot) withEpoch(epoch uint64) *hot {
	own := *h
	own.epoch = epoch
	return &own
}

func await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

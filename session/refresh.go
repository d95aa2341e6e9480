package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// flightTimeout bounds a whole refresh: two requests to the authorization
// server (each bounded by its client), judging the ID token, and the store.
const flightTimeout = 45 * time.Second

// refreshed serves a request that found its token due. With a usable token it
// starts a refresh and does not wait for it.
func (k *Keeper) refreshed(ctx context.Context, id ID, secret Secret, h *hot) (*Session, error) {
	var timeout <-chan time.Time
	for {
		now := time.Now()
		if h.token.refreshAt.IsZero() && !h.token.usable(now) {
			// It may have been refreshed since it was read, hence the flight.
			h.token.refreshAt = now
		}
		f, paused := (*flight)(nil), (*UnavailableError)(nil)
		if h.token.due(now) {
			f, paused = k.vault.join(id, func() (hot, error) { return k.fly(id, secret) })
		}
		if h.token.usable(now) {
			return k.session(id, h), nil
		}
		if paused != nil {
			return nil, paused
		}
		if timeout == nil {
			timer := time.NewTimer(k.RefreshTimeout)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timeout:
			return nil, &UnavailableError{RetryAfter: time.Second, Err: errors.New("the refresh takes longer than refresh_timeout")}
		}
		if f.err != nil {
			return nil, f.err
		}
		// Usable, but for a token that lives shorter than this took. Those who
		// wait share the result, hence the copy.
		fresh := f.hot
		h = &fresh
	}
}

// fly is one refresh, from reading the record to committing the new one. It
// runs once per session at a time and on no request's context: a client that
// hangs up must not lose a token that the server has already rotated.
func (k *Keeper) fly(id ID, secret Secret) (hot, error) {
	ctx, cancel := context.WithTimeout(context.Background(), flightTimeout)
	defer cancel()
	rec, err := k.read(ctx, id, secret)
	if err != nil {
		return hot{}, err
	}
	now := time.Now()
	if reason := k.ended(id, &rec.hot, now); reason != "" {
		return hot{}, k.finish(ctx, id, reason)
	}
	// Whoever asked may have read an older record: the flight before this one,
	// or another instance, has refreshed since.
	if !rec.token.due(now) {
		if rec.token.usable(now) {
			return rec.hot, nil
		}
		reason := EndNoRefreshToken
		if rec.refreshToken != "" {
			reason = EndRefusedUnclear
		}
		return hot{}, k.finish(ctx, id, reason)
	}
	rec.seen = now // only requests cause refreshes
	if !sleepUntil(ctx, rec.token.obtained.Add(refreshEvery)) {
		return hot{}, &UnavailableError{RetryAfter: time.Second, Err: ctx.Err()}
	}
	answer := k.Refresher.Refresh(ctx, rec.refreshToken)
	if answer.Outcome == Unanswered {
		// It may have been processed. One more try finds out: if the server
		// took the token, nothing is lost by asking.
		k.Observe(Event{Kind: EventRefreshFailed, ID: id, Outcome: Unanswered, Err: answer.Err})
		answer = k.Refresher.Refresh(ctx, rec.refreshToken)
	}
	return k.settle(ctx, id, secret, rec, answer)
}

// refreshEvery spaces the refreshes of one session, whatever lifetime a server
// or a clock gone wrong gives its tokens.
const refreshEvery = time.Second

// sleepUntil reports false if ctx ended first.
func sleepUntil(ctx context.Context, t time.Time) bool {
	wait := time.Until(t)
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// settle does what the answer means for the session.
func (k *Keeper) settle(ctx context.Context, id ID, secret Secret, rec *record, answer Answer) (hot, error) {
	if answer.Outcome == Refreshed {
		return k.accept(ctx, id, secret, rec, answer.Tokens)
	}
	k.Observe(Event{Kind: EventRefreshFailed, ID: id, Outcome: answer.Outcome, Err: answer.Err})
	switch answer.Outcome {
	case Rejected, Unclear:
		// Another instance may have been faster.
		current, err := k.read(ctx, id, secret)
		switch {
		case err == nil && current.rotation > rec.rotation:
			return current.hot, nil
		case err != nil && !errors.Is(err, ErrNoSession):
			answer.Err = err
		case answer.Outcome == Unclear && err == nil:
			return k.giveUpRefreshing(ctx, id, secret, rec)
		default:
			return hot{}, k.finish(ctx, id, EndRejected)
		}
	case Malformed:
		if t := answer.Tokens.RefreshToken; t != "" {
			next := *rec
			next.refreshToken = t
			next.rotation++
			if err := k.commit(ctx, id, secret, &next); err != nil {
				return k.adopt(ctx, id, secret, err)
			}
		}
	}
	failure := &UnavailableError{
		RetryAfter:    answer.RetryAfter,
		Misconfigured: answer.Outcome == Misconfigured,
		Err:           fmt.Errorf("refreshing: %w", answer.Err),
	}
	k.vault.pauseAfter(id, failure, rand.Float64()) //nolint:gosec // spreads load, guards nothing
	return hot{}, failure
}

// giveUpRefreshing keeps a session whose refresh was refused without a clear
// reason until its access token expires, and does not ask again.
func (k *Keeper) giveUpRefreshing(ctx context.Context, id ID, secret Secret, rec *record) (hot, error) {
	if !rec.token.usable(time.Now()) {
		return hot{}, k.finish(ctx, id, EndRefusedUnclear)
	}
	next := *rec
	next.token.refreshAt = time.Time{}
	next.rotation++
	if err := k.commit(ctx, id, secret, &next); err != nil {
		return k.adopt(ctx, id, secret, err)
	}
	return next.hot, nil
}

// adopt follows a commit that failed: whoever overtook it left a good record.
func (k *Keeper) adopt(ctx context.Context, id ID, secret Secret, err error) (hot, error) {
	if !errors.Is(err, errOvertaken) {
		return hot{}, err
	}
	return k.readHot(ctx, id, secret)
}

// accept commits new tokens. A rotated refresh token is committed before
// anything else is looked at, still beside the old access token: whatever
// happens then, the session can refresh again.
func (k *Keeper) accept(ctx context.Context, id ID, secret Secret, rec *record, t Tokens) (hot, error) {
	next := *rec
	next.rotation++
	rotated := t.RefreshToken != "" && t.RefreshToken != rec.refreshToken
	if t.RefreshToken != "" {
		next.refreshToken, next.refreshExpires = t.RefreshToken, t.RefreshExpires
	}
	if t.IDToken != "" {
		if rotated {
			if err := k.commit(ctx, id, secret, &next); err != nil {
				return k.adopt(ctx, id, secret, err)
			}
			// The next commit is newer than this one, also for a retry of this
			// one that is still on its way.
			next.rotation++
		}
		if err := k.identify(ctx, id, &next, t); err != nil {
			return hot{}, err
		}
	}
	next.token = newAccessToken(t, true, time.Now(), k.DefaultTokenLifetime)
	next.token.rest = rec.token.rest
	if err := k.commit(ctx, id, secret, &next); err != nil {
		return k.adopt(ctx, id, secret, err)
	}
	k.vault.resume(id)
	k.Observe(Event{Kind: EventRefreshed, ID: id})
	return next.hot, nil
}

// identify takes over a refreshed ID token. One that is wrong ends the session:
// the access token beside it may be somebody else's.
func (k *Keeper) identify(ctx context.Context, id ID, next *record, t Tokens) error {
	who, err := k.Refresher.Identify(ctx, Identity{Subject: next.subject, SID: next.sid, Claims: next.claims}, t)
	switch {
	case err == nil:
		next.idToken, next.sid, next.claims = t.IDToken, who.SID, who.Claims
		return nil
	case errors.Is(err, ErrIdentityChanged):
		k.Observe(Event{Kind: EventRefreshFailed, ID: id, Outcome: Malformed, Err: err})
		return k.finish(ctx, id, EndIdentityChanged)
	default:
		k.Observe(Event{Kind: EventIDTokenKept, ID: id, Err: err})
		return nil
	}
}

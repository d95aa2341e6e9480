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

// demand is how fresh a request wants its token to be.
type demand struct {
	// since is when the token must have been obtained, or later; zero: any
	// usable token will do.
	since time.Time
	// other is a token that will not do. Any other one was obtained while the
	// request waited, and is fresh enough whatever the clock says.
	other string
}

// met reports whether a token may be sent with the request.
func (d demand) met(t *accessToken, now time.Time) bool {
	return t.usable(now) && (d.since.IsZero() || !t.obtained.Before(d.since) || t.value != d.other)
}

// refreshed serves a request that found its token due, or not as fresh as it
// wants it. If it can have the token at hand, it does not wait for the refresh
// that it starts.
func (k *Keeper) refreshed(ctx context.Context, id ID, secret Secret, h *hot, d demand) (*Session, error) {
	var timeout <-chan time.Time
	for {
		now := time.Now()
		met := d.met(&h.token, now)
		if met && !h.token.due(now) {
			return k.session(id, h), nil
		}
		f, paused := k.vault.join(id, func() (hot, error) { return k.fly(id, secret, d) })
		if met {
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
		if errors.Is(f.err, ErrNotRefreshable) && d.since.IsZero() {
			continue // somebody else wanted more than this request does
		}
		if f.err != nil {
			return nil, f.err
		}
		// Good, but for a token that lives shorter than this took, and for a
		// flight begun by somebody less demanding. Those who wait share the
		// result, hence the copy.
		fresh := f.hot
		fresh.mark = h.mark
		h = &fresh
	}
}

// fly is one refresh, from reading the record to committing the new one. It
// runs once per session at a time and on no request's context: a client that
// hangs up must not lose a token that the server has already rotated.
func (k *Keeper) fly(id ID, secret Secret, d demand) (hot, error) {
	ctx, cancel := context.WithTimeout(context.Background(), flightTimeout)
	defer cancel()
	for tries := 1; ; tries++ {
		h, err := k.attempt(ctx, id, secret, d)
		if !errors.Is(err, errAgain) {
			return h, err
		}
		if tries > againAtOnce && !sleep(ctx, leaseBeat) {
			return hot{}, &UnavailableError{RetryAfter: time.Second, Err: errAgain}
		}
	}
}

// againAtOnce is how often a refresh begins anew without a pause. More is no
// race any more.
const againAtOnce = 3

// attempt is one try of a refresh. The error is errAgain if another process
// was faster with anything.
func (k *Keeper) attempt(ctx context.Context, id ID, secret Secret, d demand) (hot, error) {
	rec, err := k.read(ctx, id, secret)
	if err != nil {
		return hot{}, err
	}
	now := time.Now()
	if reason := k.ended(id, &rec.hot, now); reason != "" {
		return hot{}, k.finishAt(ctx, id, rec.version, Holder{}, reason)
	}
	// Whoever asked may have read an older record: the flight before this one,
	// or another instance, has refreshed since.
	if !rec.token.due(now) && d.met(&rec.token, now) {
		return rec.hot, nil
	}
	if rec.token.refreshAt.IsZero() {
		return k.notRefreshable(ctx, id, rec, now)
	}
	if k.vault.shared != nil && k.vault.unwritten(id) {
		return hot{}, &UnavailableError{RetryAfter: time.Second, Err: errors.New("the tokens of the last refresh are not written yet")}
	}
	// A clock that was set back must not hold a refresh up for longer.
	if !sleep(ctx, min(refreshEvery-now.Sub(rec.token.obtained), refreshEvery)) {
		return hot{}, &UnavailableError{RetryAfter: time.Second, Err: ctx.Err()}
	}
	lease, err := k.vault.acquire(ctx, id, rec.version)
	if err != nil {
		return hot{}, err
	}
	defer lease.landed()
	if lease != nil && lease.tookOver {
		k.Observe(Event{Kind: EventLeaseTaken, ID: id})
	}
	rec.seen = now // only requests cause refreshes
	return k.redeem(ctx, id, secret, rec, lease)
}

// redeem sends the refresh token, and once more if there is no answer: if the
// server took it, nothing is lost by asking.
func (k *Keeper) redeem(ctx context.Context, id ID, secret Secret, rec *record, lease *hold) (hot, error) {
	if lease.confirm(ctx) != nil {
		return hot{}, errAgain
	}
	answer := k.Refresher.Refresh(ctx, rec.refreshToken)
	// Whose lease was taken over may have sent it and died.
	unanswered := k.vault.lastUnanswered(id) || lease != nil && lease.tookOver
	if answer.Outcome == Unanswered {
		unanswered = true
		err := lease.confirm(ctx)
		if errors.Is(err, errAgain) {
			return hot{}, errAgain // somebody else has taken over, and may be done
		}
		if err == nil {
			k.Observe(Event{Kind: EventRefreshFailed, ID: id, Outcome: Unanswered, Err: answer.Err})
			answer = k.Refresher.Refresh(ctx, rec.refreshToken)
		}
	}
	return k.settle(ctx, id, secret, rec, lease, answer, unanswered)
}

// notRefreshable is for a session without a refresh token, or with one that was
// refused: it lasts as long as its access token.
func (k *Keeper) notRefreshable(ctx context.Context, id ID, rec *record, now time.Time) (hot, error) {
	switch {
	case rec.token.usable(now):
		return hot{}, ErrNotRefreshable
	case rec.refreshToken != "":
		return hot{}, k.finishAt(ctx, id, rec.version, Holder{}, EndRefusedUnclear)
	}
	return hot{}, k.finishAt(ctx, id, rec.version, Holder{}, EndNoRefreshToken)
}

// refreshEvery spaces the refreshes of one session, whatever lifetime a server
// or a clock gone wrong gives its tokens.
const refreshEvery = time.Second

// sleep reports false if ctx ended first.
func sleep(ctx context.Context, wait time.Duration) bool {
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

// settle does what the answer means for the session. unanswered says that this
// refresh token was sent before without an answer.
func (k *Keeper) settle(ctx context.Context, id ID, secret Secret, rec *record, lease *hold, answer Answer, unanswered bool) (hot, error) {
	if answer.Outcome == Refreshed {
		return k.accept(ctx, id, secret, rec, answer.Tokens)
	}
	k.Observe(Event{
		Kind: EventRefreshFailed, ID: id, Outcome: answer.Outcome, Err: answer.Err,
		ReuseSuspected: answer.Outcome == Rejected && !unanswered && rec.rotates && !rec.refreshExpired(time.Now()),
	})
	err := fmt.Errorf("refreshing: %w", answer.Err)
	switch answer.Outcome {
	case Rejected, Unclear:
		h, refusedErr := k.refused(ctx, id, secret, rec, lease, answer.Outcome)
		var unavailable *UnavailableError
		if !errors.As(refusedErr, &unavailable) {
			return h, refusedErr
		}
		err = unavailable.Err
	case Malformed:
		if t := answer.Tokens.RefreshToken; t != "" {
			next := *rec
			next.refreshToken = t
			next.rotation++
			if err := k.commit(ctx, id, secret, &next); err != nil {
				return k.adopt(ctx, id, secret, err, answer.Tokens)
			}
		}
	}
	failure := &UnavailableError{RetryAfter: answer.RetryAfter, Misconfigured: answer.Outcome == Misconfigured, Err: err}
	k.vault.pauseAfter(id, failure, answer.Outcome == Unanswered, rand.Float64()) //nolint:gosec // spreads load, guards nothing
	return hot{}, failure
}

// refused ends the session whose refresh token is dead, unless another process
// has a newer one: only who still holds the lease may say that this was the
// newest.
func (k *Keeper) refused(ctx context.Context, id ID, secret Secret, rec *record, lease *hold, outcome Outcome) (hot, error) {
	for {
		current, err := k.read(ctx, id, secret)
		switch {
		case err != nil:
			return hot{}, err
		case current.rotation > rec.rotation:
			return current.hot, nil
		case outcome == Unclear:
			return k.giveUpRefreshing(ctx, id, secret, current, lease)
		}
		err = k.finishAt(ctx, id, current.version, lease.name(), EndRejected)
		if !errors.Is(err, errAgain) || lease.raise(ctx) != nil {
			return hot{}, err
		}
	}
}

// giveUpRefreshing keeps a session whose refresh was refused without a clear
// reason until its access token expires, and does not ask again.
func (k *Keeper) giveUpRefreshing(ctx context.Context, id ID, secret Secret, rec *record, lease *hold) (hot, error) {
	if !rec.token.usable(time.Now()) {
		return hot{}, k.finishAt(ctx, id, rec.version, lease.name(), EndRefusedUnclear)
	}
	next := *rec
	next.token.refreshAt = time.Time{}
	next.rotation++
	if err := k.commit(ctx, id, secret, &next); err != nil {
		return k.adopt(ctx, id, secret, err, Tokens{})
	}
	return next.hot, nil
}

// adopt follows a commit that failed. If the session has ended meanwhile, the
// new tokens are given back. If somebody was faster, their record is as good;
// ours are then left alone, since revoking them could revoke theirs.
func (k *Keeper) adopt(ctx context.Context, id ID, secret Secret, err error, t Tokens) (hot, error) {
	if !errors.Is(err, errOvertaken) {
		k.discard(t)
		return hot{}, err
	}
	current, err := k.read(ctx, id, secret)
	if err != nil {
		return hot{}, err
	}
	return current.hot, nil
}

// discard gives back tokens that no session has a use for.
func (k *Keeper) discard(t Tokens) {
	if t.RefreshToken == "" {
		return
	}
	k.vault.running.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), discardTimeout)
		defer cancel()
		k.Refresher.Discard(ctx, t)
	})
}

// discardTimeout bounds giving back tokens, for which nobody waits.
const discardTimeout = 10 * time.Second

// accept commits new tokens. A rotated refresh token is committed before
// anything else is looked at, still beside the old access token: whatever
// happens then, the session can refresh again.
func (k *Keeper) accept(ctx context.Context, id ID, secret Secret, rec *record, t Tokens) (hot, error) {
	next := *rec
	next.rotation++
	var issued time.Time
	rotated := t.RefreshToken != "" && t.RefreshToken != rec.refreshToken
	next.rotates = rotated
	if t.RefreshToken != "" {
		next.refreshToken, next.refreshExpires = t.RefreshToken, t.RefreshExpires
	}
	if t.IDToken != "" {
		if rotated {
			if err := k.commit(ctx, id, secret, &next); err != nil {
				return k.adopt(ctx, id, secret, err, t)
			}
			// The next commit is newer than this one, also for a retry of this
			// one that is still on its way.
			next.rotation++
		}
		var err error
		if issued, err = k.identify(ctx, id, &next, t); err != nil {
			return hot{}, err
		}
	}
	next.token = newAccessToken(t, true, time.Now(), k.DefaultTokenLifetime)
	next.token.rest = rec.token.rest
	if err := k.commit(ctx, id, secret, &next); err != nil {
		return k.adopt(ctx, id, secret, err, t)
	}
	if next.sid != rec.sid {
		if err := k.endIfRenamed(ctx, id, &next, issued); err != nil {
			return hot{}, err
		}
	}
	k.vault.resume(id)
	k.Observe(Event{Kind: EventRefreshed, ID: id})
	return next.hot, nil
}

// identify takes over a refreshed ID token and returns when it was issued. One
// that is wrong ends the session: the access token beside it may be somebody
// else's.
func (k *Keeper) identify(ctx context.Context, id ID, next *record, t Tokens) (issued time.Time, err error) {
	who, err := k.Refresher.Identify(ctx, Identity{Subject: next.subject, SID: next.sid, Nonce: next.nonce, Claims: next.claims}, t)
	switch {
	case err == nil:
		next.idToken, next.sid, next.claims = t.IDToken, who.SID, who.Claims
		return who.IssuedAt, nil
	case errors.Is(err, ErrIdentityChanged):
		k.Observe(Event{Kind: EventRefreshFailed, ID: id, Outcome: Malformed, Err: err})
		k.discard(t)
		return time.Time{}, k.finish(ctx, id, EndIdentityChanged)
	default:
		k.Observe(Event{Kind: EventIDTokenKept, ID: id, Err: err})
		return time.Time{}, nil
	}
}

// endIfRenamed ends a session that got another `sid` with a refresh if the
// server has logged that out meanwhile: the logout did not find it.
func (k *Keeper) endIfRenamed(ctx context.Context, id ID, next *record, issued time.Time) error {
	tags, err := k.site.tags(next)
	if err == nil {
		err = k.endIfLoggedOut(ctx, id, Identity{IssuedAt: issued}, tags)
	}
	switch {
	case errors.Is(err, errLoggedOut):
		return &EndedError{Reason: EndBackchannel}
	case err != nil:
		return &UnavailableError{RetryAfter: time.Second, Err: fmt.Errorf("looking for a logout: %w", err)}
	}
	return nil
}

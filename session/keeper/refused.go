package keeper

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// handleFailure applies an answer without an access token to the session. unanswered means
// that the refresh token was sent before, and no answer to that arrived.
func (r *refresh) handleFailure(ctx context.Context, rec *record, answer Answer, unanswered bool) (hot, error) {
	r.Observe(Event{
		Kind: EventRefreshFailed, ID: r.ref.ID, Subject: rec.subject, Outcome: answer.Outcome, Err: answer.Err,
		ReuseSuspected: answer.Outcome == Rejected && !unanswered && rec.rotates && !rec.mayHaveExpired(time.Now()),
	})
	err := fmt.Errorf("refreshing: %w", answer.Err)
	switch answer.Outcome {
	case Rejected, Unclear:
		r.recordSuccess() // a refusal is an answer too
		h, refusedErr := r.handleRefusal(ctx, rec, answer.Outcome)
		var unavailable *UnavailableError
		if !errors.As(refusedErr, &unavailable) {
			return h, refusedErr
		}
		return hot{}, r.backOff(answer, unavailable.Err)
	case Malformed:
		if answer.Tokens.RefreshToken != "" {
			next := *rec
			next.setRefreshToken(answer.Tokens)
			next.unclear = false // the server has not refused the new token
			next.rotation++
			if err := r.commit(ctx, r.ref, &next); err != nil {
				return r.afterFailedCommit(ctx, err, answer.Tokens)
			}
			// The server works, because it has rotated the token. Only its answer to this
			// session is wrong, so the circuits do not count it.
			return hot{}, r.backOff(answer, err)
		}
	}
	r.recordFailure(answer, err)
	return hot{}, r.backOff(answer, err)
}

// recordFailure counts a failure in the circuit of the authorization server, or in that of
// the client alone if the server refuses the client: other clients may still be accepted.
func (r *refresh) recordFailure(answer Answer, err error) {
	c, probe := &r.breaker.circuit, r.probe
	if answer.Outcome == Misconfigured {
		c, probe = r.client, r.clientProbe
	}
	c.recordFailure(r.ref.ID, r.Vault.backoffs.failingSince(r.ref.ID), probe, UnavailableError{
		RetryAfter: answer.RetryAfter, Misconfigured: answer.Outcome == Misconfigured, Err: err,
	}, rand.Float64()) //nolint:gosec // spreads load, protects nothing
}

// backOff begins the back-off of the session and returns the error for waiting requests.
// After a request that timed out, the lease stays held until the back-off ends, so that no
// other process sends the token earlier.
func (r *refresh) backOff(answer Answer, err error) *UnavailableError {
	failure := &UnavailableError{RetryAfter: answer.RetryAfter, Misconfigured: answer.Outcome == Misconfigured, Err: err}
	least, timedOut := backoffMin, answer.Outcome == TimedOut
	if timedOut {
		least = backoffMinTimedOut
	}
	unanswered := timedOut || answer.Outcome == Unanswered
	spread := rand.Float64() //nolint:gosec // spreads load, protects nothing
	delay := r.Vault.backoffs.recordFailure(r.ref.ID, failure, least, unanswered, spread)
	if timedOut {
		r.keepLeaseFor = min(delay, backoffMaxWaiting)
	}
	return failure
}

// handleRefusal ends a session after the server has refused its refresh token, unless another
// process has stored a newer one. Only the holder of the lease knows that the refused token
// is the newest. A first unclear refusal does not end the session.
func (r *refresh) handleRefusal(ctx context.Context, rec *record, outcome Outcome) (hot, error) {
	reason := EndRejected
	if outcome == Unclear {
		reason = EndRefusedUnclear
	}
	for {
		current, err := r.read(ctx, r.ref)
		switch {
		case err != nil:
			return hot{}, err
		case current.rotation > rec.rotation:
			return current.hot, nil
		case outcome == Unclear && !rec.unclear:
			return r.scheduleResend(ctx, current)
		}
		err = r.endSessionAt(ctx, r.ref.ID, current.version, r.lease.holder(), ending{reason, rec.subject})
		if !errors.Is(err, errStale) || r.lease.renew(ctx) != nil {
			return hot{}, err
		}
	}
}

const (
	// unclearPause is the shortest pause before a token is sent again after an unclear
	// refusal: longer than a short fault of a gateway, and shorter than the usual
	// refresh_timeout, because requests may have to wait for it.
	unclearPause = 3 * time.Second
	// unclearMargin is the longest time before the end of the access token at which the
	// refresh token is sent again.
	unclearMargin = 10 * time.Second
)

// scheduleResend follows a first unclear refusal: the refresh token is sent once more,
// shortly before the access token expires. If that has expired, it is sent after a pause.
// The next refusal ends the session.
func (r *refresh) scheduleResend(ctx context.Context, rec *record) (hot, error) {
	next := *rec
	next.unclear = true
	left := time.Until(rec.token.usableUntil)
	if left <= 0 {
		if !sleep(ctx, unclearPause) {
			return hot{}, unavailable(ctx.Err())
		}
		return r.redeem(ctx, &next)
	}
	next.token.refreshAt = time.Now().Add(max(left-min(left/4, unclearMargin), unclearPause))
	next.rotation++
	if err := r.commit(ctx, r.ref, &next); err != nil {
		return r.afterFailedCommit(ctx, err, Tokens{})
	}
	return next.hot, nil
}

// afterFailedCommit returns the result of a refresh after its commit failed. If the session
// has ended, the new tokens are revoked. If another process has refreshed the session, its
// record is the result, and the new tokens are not revoked: that could revoke the tokens of
// the other process too.
func (r *refresh) afterFailedCommit(ctx context.Context, err error, t Tokens) (hot, error) {
	if !errors.Is(err, errRefreshedElsewhere) {
		r.discard(t)
		return hot{}, err
	}
	current, err := r.read(ctx, r.ref)
	if err != nil {
		return hot{}, err
	}
	return current.hot, nil
}

// discard revokes tokens that no session uses.
func (k *Keeper) discard(t Tokens) {
	if t.RefreshToken == "" {
		return
	}
	k.Vault.running.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), discardTimeout)
		defer cancel()
		k.Refresher.Discard(ctx, t)
	})
}

// discardTimeout bounds the revocation of tokens, which runs in the background.
const discardTimeout = 10 * time.Second

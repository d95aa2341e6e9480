package keeper

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// failed does what an answer without tokens means for the session. unanswered
// says that this refresh token was sent before without an answer.
func (r *refresh) handleFailure(ctx context.Context, rec *record, answer Answer, unanswered bool) (hot, error) {
	r.Observe(Event{
		Kind: EventRefreshFailed, ID: r.ref.ID, Outcome: answer.Outcome, Err: answer.Err,
		ReuseSuspected: answer.Outcome == Rejected && !unanswered && rec.rotates && !rec.refreshExpired(time.Now()),
	})
	err := fmt.Errorf("refreshing: %w", answer.Err)
	switch answer.Outcome {
	case Rejected, Unclear:
		r.recordSuccess() // it answers
		h, refusedErr := r.handleRefusal(ctx, rec, answer.Outcome)
		var unavailable *UnavailableError
		if !errors.As(refusedErr, &unavailable) {
			return h, refusedErr
		}
		return hot{}, r.backOff(answer, unavailable.Err)
	case Malformed:
		if t := answer.Tokens.RefreshToken; t != "" {
			next := *rec
			next.refreshToken, next.unclear = t, false // this one was not refused
			next.rotation++
			if err := r.commit(ctx, r.ref, &next); err != nil {
				return r.afterFailedCommit(ctx, err, answer.Tokens)
			}
			// The server has rotated the token, so it is at work. Only its answer to
			// this session is wrong.
			return hot{}, r.backOff(answer, err)
		}
	}
	r.recordFailure(answer, err)
	return hot{}, r.backOff(answer, err)
}

// trip counts a failure against the authorization server, or, if the server refuses
// the client, against the client alone: other clients of the server may be well.
func (r *refresh) recordFailure(answer Answer, err error) {
	open, probe := &r.breaker.circuit, r.probe
	if answer.Outcome == Misconfigured {
		open, probe = r.client, r.clientProbe
	}
	open.recordFailure(r.ref.ID, r.Vault.backoffs.failingSince(r.ref.ID), probe, UnavailableError{
		RetryAfter: answer.RetryAfter, Misconfigured: answer.Outcome == Misconfigured, Err: err,
	}, rand.Float64()) //nolint:gosec // spreads load, guards nothing
}

// backOff begins the back-off of the session and returns the error for those who
// wait. After a request that timed out the lease stays held until then: another
// process must not send the token at once, either.
func (r *refresh) backOff(answer Answer, err error) *UnavailableError {
	failure := &UnavailableError{RetryAfter: answer.RetryAfter, Misconfigured: answer.Outcome == Misconfigured, Err: err}
	least, timedOut := backoffMin, answer.Outcome == TimedOut
	if timedOut {
		least = backoffMinTimedOut
	}
	delay := r.Vault.backoffs.recordFailure(r.ref.ID, failure, least, timedOut || answer.Outcome == Unanswered, rand.Float64()) //nolint:gosec // spreads load, guards nothing
	if timedOut {
		r.keepLeaseFor = min(delay, backoffMaxWaiting)
	}
	return failure
}

// refused ends the session whose refresh token is dead, unless another process
// has a newer one: only the holder of the lease may say that this was the newest.
// A first refusal without a clear reason ends nothing yet.
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
		err = r.endSessionAt(ctx, r.ref.ID, current.version, r.lease.holder(), reason)
		if !errors.Is(err, errStale) || r.lease.renew(ctx) != nil {
			return hot{}, err
		}
	}
}

const (
	// unclearPause is the shortest pause before a token is sent again: longer than a
	// passing trouble of a gateway, and shorter than the usual refresh_timeout, as
	// requests may have to wait for it.
	unclearPause = 3 * time.Second
	// unclearMargin is the longest time before the end of the access token at which
	// the refresh token is sent once more.
	unclearMargin = 10 * time.Second
)

// scheduleResend has a refresh token sent a second time that was refused without a
// clear reason: shortly before the access token expires, or after a pause if that
// has expired. The next refusal ends the session.
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

// adopt follows a commit that failed. If the session has ended meanwhile, the
// new tokens are given back. If somebody was faster, their record is as good;
// ours are then left alone, since revoking them could revoke theirs.
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

// discard gives back tokens that no session has a use for.
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

// discardTimeout bounds giving back tokens, for which nobody waits.
const discardTimeout = 10 * time.Second

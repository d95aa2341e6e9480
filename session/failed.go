package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// failed does what an answer without tokens means for the session. unanswered
// says that this refresh token was sent before without an answer.
func (r *refresh) failed(ctx context.Context, rec *record, answer Answer, unanswered bool) (hot, error) {
	r.Observe(Event{
		Kind: EventRefreshFailed, ID: r.id, Outcome: answer.Outcome, Err: answer.Err,
		ReuseSuspected: answer.Outcome == Rejected && !unanswered && rec.rotates && !rec.refreshExpired(time.Now()),
	})
	err := fmt.Errorf("refreshing: %w", answer.Err)
	switch answer.Outcome {
	case Rejected, Unclear:
		h, refusedErr := r.refused(ctx, rec, answer.Outcome)
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
			if err := r.commit(ctx, r.id, r.secret, &next); err != nil {
				return r.adopt(ctx, err, answer.Tokens)
			}
		}
	}
	failure := &UnavailableError{RetryAfter: answer.RetryAfter, Misconfigured: answer.Outcome == Misconfigured, Err: err}
	r.vault.pauseAfter(r.id, failure, answer.Outcome == Unanswered, rand.Float64()) //nolint:gosec // spreads load, guards nothing
	return hot{}, failure
}

// refused ends the session whose refresh token is dead, unless another process
// has a newer one: only who still holds the lease may say that this was the
// newest.
func (r *refresh) refused(ctx context.Context, rec *record, outcome Outcome) (hot, error) {
	for {
		current, err := r.read(ctx, r.id, r.secret)
		switch {
		case err != nil:
			return hot{}, err
		case current.rotation > rec.rotation:
			return current.hot, nil
		case outcome == Unclear:
			return r.giveUp(ctx, current)
		}
		err = r.finishAt(ctx, r.id, current.version, r.lease.name(), EndRejected)
		if !errors.Is(err, errAgain) || r.lease.raise(ctx) != nil {
			return hot{}, err
		}
	}
}

// giveUp keeps a session whose refresh was refused without a clear reason until
// its access token expires, and does not ask again.
func (r *refresh) giveUp(ctx context.Context, rec *record) (hot, error) {
	if !rec.token.usable(time.Now()) {
		return hot{}, r.finishAt(ctx, r.id, rec.version, r.lease.name(), EndRefusedUnclear)
	}
	next := *rec
	next.token.refreshAt = time.Time{}
	next.rotation++
	if err := r.commit(ctx, r.id, r.secret, &next); err != nil {
		return r.adopt(ctx, err, Tokens{})
	}
	return next.hot, nil
}

// adopt follows a commit that failed. If the session has ended meanwhile, the
// new tokens are given back. If somebody was faster, their record is as good;
// ours are then left alone, since revoking them could revoke theirs.
func (r *refresh) adopt(ctx context.Context, err error, t Tokens) (hot, error) {
	if !errors.Is(err, errOvertaken) {
		r.discard(t)
		return hot{}, err
	}
	current, err := r.read(ctx, r.id, r.secret)
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

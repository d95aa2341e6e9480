package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// commitDelay is how long the commit of a rotated refresh token waits for the
	// verification of the ID token. That takes a millisecond if the server's keys are
	// cached, and one write is then enough for both.
	commitDelay = 50 * time.Millisecond
	// publishDelay is how long the publication of new tokens to waiting requests waits for
	// the commit.
	publishDelay = time.Second
)

// accept verifies and commits the tokens of a successful refresh.
func (r *refresh) accept(ctx context.Context, rec *record, t Tokens) (hot, error) {
	obtained := time.Now()
	next := *rec
	next.rotation++
	next.unclear = false
	next.rotates = t.RefreshToken != "" && t.RefreshToken != rec.refreshToken
	next.setRefreshToken(t)
	var issued time.Time
	if t.IDToken != "" {
		identity, verdict, err := r.verifyIDToken(ctx, &next, t)
		if err == nil {
			issued, err = r.applyVerdict(ctx, &next, t, identity, verdict)
		}
		if err != nil {
			if _, ended := errors.AsType[*EndedError](err); ended || errors.Is(verdict, ErrIdentityChanged) {
				t.RefreshToken = next.refreshToken // without rotation, the old one must not stay valid
			}
			return r.afterFailedCommit(ctx, err, t)
		}
	}
	token := newAccessToken(t, true, obtained, r.DefaultTokenLifetime)
	token.unknownFields = rec.token.unknownFields
	next.setAccessToken(token, &rec.hot)
	newSID := next.sid != rec.sid
	if err := r.commitAndPublish(ctx, &next, !newSID); err != nil {
		return r.afterFailedCommit(ctx, err, t)
	}
	if !next.sessionExpiry.Equal(rec.sessionExpiry) {
		r.Vault.live.setExpiry(r.ref.ID, next.sessionExpiry)
	}
	if newSID {
		if err := r.endIfNewSIDLoggedOut(ctx, &next, issued); err != nil {
			return hot{}, err
		}
	}
	r.Vault.backoffs.clear(r.ref.ID)
	r.Observe(Event{Kind: EventRefreshed, ID: r.ref.ID, Subject: next.subject})
	return next.hot, nil
}

// commitAndPublish commits tokens. Waiting requests get them after the commit, so that a
// crash after a response does not lose the tokens that the response depends on. If
// mayPublish is set and the store takes longer than publishDelay, they get them then.
func (r *refresh) commitAndPublish(ctx context.Context, next *record, mayPublish bool) error {
	if !mayPublish {
		return r.commit(ctx, r.ref, next)
	}
	h, published := next.hot, make(chan struct{})
	timer := time.AfterFunc(publishDelay, func() {
		r.flight.publish(h)
		close(published)
	})
	err := r.commit(ctx, r.ref, next)
	if !timer.Stop() {
		<-published
	}
	return err
}

// verifyIDToken has the Refresher verify the ID token. It returns the verified identity and
// the error of the verification, the verdict.
//
// The verification may need the network. If it takes longer than commitDelay, a rotated
// refresh token is committed with the old access token in the meantime, so that the session
// can refresh again even if this process stops. err is the error of that commit.
func (r *refresh) verifyIDToken(ctx context.Context, next *record, t Tokens) (identity Identity, verdict, err error) {
	known := Identity{
		Subject: next.subject, SID: next.sid, Nonce: next.nonce, SessionExpiry: next.sessionExpiry,
		Claims: next.claims, UserInfo: next.userInfo, IDToken: next.idToken,
	}
	if !next.rotates {
		identity, verdict = r.Refresher.Identify(ctx, known, t)
		return identity, verdict, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	committed := make(chan error, 1)
	timer := time.AfterFunc(commitDelay, func() {
		err := r.commit(ctx, r.ref, next)
		if err != nil {
			cancel() // the verdict no longer matters
		}
		committed <- err
	})
	identity, verdict = r.Refresher.Identify(ctx, known, t)
	if !timer.Stop() {
		err = <-committed
		// A late retry of this commit must not overwrite the next one.
		next.rotation++
	}
	return identity, verdict, err
}

// applyVerdict stores a verified ID token in the record and returns when it was issued. An
// ID token that is proven to be of another login ends the session, because the access token
// of the same answer is of that login too. An ID token that could not be verified is
// dropped: the session keeps its ID token, sid and claims. A verified one may end the
// session at once by its session_expiry.
func (r *refresh) applyVerdict(ctx context.Context, next *record, t Tokens, identity Identity, verdict error) (issued time.Time, err error) {
	switch {
	case verdict == nil:
		next.idToken, next.sid, next.claims, next.userInfo = t.IDToken, identity.SID, identity.Claims, identity.UserInfo
		next.sessionExpiry = identity.SessionExpiry
		if expiry := next.sessionExpiry; !expiry.IsZero() && !time.Now().Before(expiry) {
			return time.Time{}, r.endSession(ctx, r.ref.ID, ending{EndSessionExpiry, next.subject})
		}
		return identity.IssuedAt, nil
	case errors.Is(verdict, ErrIdentityChanged):
		r.Observe(Event{Kind: EventRefreshFailed, ID: r.ref.ID, Subject: next.subject, Outcome: Malformed, Err: verdict})
		return time.Time{}, r.endSession(ctx, r.ref.ID, ending{EndIdentityChanged, next.subject})
	default:
		r.Observe(Event{Kind: EventIDTokenKept, ID: r.ref.ID, Subject: next.subject, Err: verdict})
		return time.Time{}, nil
	}
}

// endIfNewSIDLoggedOut follows a refresh that changed the `sid` of the session. If the server
// has logged out the new `sid` in the meantime, that logout did not find the session, which
// is ended now.
func (r *refresh) endIfNewSIDLoggedOut(ctx context.Context, next *record, issued time.Time) error {
	tags, err := r.Site.Tags(next.sid, next.subject)
	if err == nil {
		err = r.endIfLoggedOut(ctx, r.ref.ID, Identity{IssuedAt: issued, Subject: next.subject}, tags)
	}
	switch {
	case errors.Is(err, ErrLoggedOut):
		return &EndedError{Reason: EndBackchannel}
	case err != nil:
		return unavailable(fmt.Errorf("looking for a logout: %w", err))
	}
	return nil
}

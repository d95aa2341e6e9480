package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// verifyBeforeCommit is how long a rotated refresh token may stay unwritten while the
// ID token beside it is judged. That takes a millisecond where the server's keys
// are at hand, and one write is then enough for both.
const verifyBeforeCommit = 50 * time.Millisecond

// publishAfter is how long those who wait for new tokens wait for the store, too.
const publishAfter = time.Second

// accept commits new tokens.
func (r *refresh) accept(ctx context.Context, rec *record, t Tokens) (hot, error) {
	obtained := time.Now()
	next := *rec
	next.rotation++
	next.unclear = false
	next.rotates = t.RefreshToken != "" && t.RefreshToken != rec.refreshToken
	if t.RefreshToken != "" {
		next.refreshToken, next.refreshExpires = t.RefreshToken, t.RefreshExpires
	}
	var issued time.Time
	if t.IDToken != "" {
		who, verdict, err := r.verifyIDToken(ctx, &next, t)
		if err == nil {
			issued, err = r.applyVerdict(ctx, &next, t, who, verdict)
		}
		if err != nil {
			if errors.Is(verdict, ErrIdentityChanged) {
				t.RefreshToken = next.refreshToken // not rotated, it leads to that login, too
			}
			return r.afterFailedCommit(ctx, err, t)
		}
	}
	next.token = newAccessToken(t, true, obtained, r.DefaultTokenLifetime)
	next.token.unknownFields = rec.token.unknownFields
	renamed := next.sid != rec.sid
	if err := r.commitAndPublish(ctx, &next, !renamed); err != nil {
		return r.afterFailedCommit(ctx, err, t)
	}
	if renamed {
		if err := r.endIfNewSIDLoggedOut(ctx, &next, issued); err != nil {
			return hot{}, err
		}
	}
	r.Vault.backoffs.clear(r.ref.ID)
	r.Observe(Event{Kind: EventRefreshed, ID: r.ref.ID})
	return next.hot, nil
}

// commitAndPublish commits tokens that may be used. What a request was answered with
// shall survive a crash, so that those who wait are told when it is written; but
// not if the store takes long.
func (r *refresh) commitAndPublish(ctx context.Context, next *record, early bool) error {
	if !early {
		return r.commit(ctx, r.ref, next)
	}
	h, told := next.hot, make(chan struct{})
	late := time.AfterFunc(publishAfter, func() {
		r.flight.publish(h)
		close(told)
	})
	err := r.commit(ctx, r.ref, next)
	if !late.Stop() {
		<-told
	}
	return err
}

// judge has the ID token judged. That may need the network: a rotated refresh
// token does not wait for it, but is committed beside the old access token, so
// that the session can refresh again whatever happens then. The error is that
// of this commit; what became of the ID token is in verdict.
func (r *refresh) verifyIDToken(ctx context.Context, next *record, t Tokens) (who Identity, verdict, err error) {
	known := Identity{
		Subject: next.subject, SID: next.sid, Nonce: next.nonce,
		Claims: next.claims, UserInfo: next.userInfo, IDToken: next.idToken,
	}
	if !next.rotates {
		who, verdict = r.Refresher.Identify(ctx, known, t)
		return who, verdict, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	committed := make(chan error, 1)
	late := time.AfterFunc(verifyBeforeCommit, func() {
		err := r.commit(ctx, r.ref, next)
		if err != nil {
			cancel() // who it is does not matter any more
		}
		committed <- err
	})
	who, verdict = r.Refresher.Identify(ctx, known, t)
	if !late.Stop() {
		err = <-committed
		// The next commit is newer than this one, also for a retry of this one
		// that is still on its way.
		next.rotation++
	}
	return who, verdict, err
}

// identify takes over a refreshed ID token and returns when it was issued. One
// that is proven to be of another login ends the session, because the access
// token beside it is of that login, too. One that proves nothing is dropped: the
// access token counts, and the session keeps ID token, sid and claims.
func (r *refresh) applyVerdict(ctx context.Context, next *record, t Tokens, who Identity, verdict error) (issued time.Time, err error) {
	switch {
	case verdict == nil:
		next.idToken, next.sid, next.claims, next.userInfo = t.IDToken, who.SID, who.Claims, who.UserInfo
		return who.IssuedAt, nil
	case errors.Is(verdict, ErrIdentityChanged):
		r.Observe(Event{Kind: EventRefreshFailed, ID: r.ref.ID, Outcome: Malformed, Err: verdict})
		return time.Time{}, r.endSession(ctx, r.ref.ID, EndIdentityChanged)
	default:
		r.Observe(Event{Kind: EventIDTokenKept, ID: r.ref.ID, Err: verdict})
		return time.Time{}, nil
	}
}

// endIfNewSIDLoggedOut ends a session that got another `sid` with a refresh if the
// server has logged that out meanwhile: the logout did not find it.
func (r *refresh) endIfNewSIDLoggedOut(ctx context.Context, next *record, issued time.Time) error {
	tags, err := r.Site.Tags(next.sid, next.subject)
	if err == nil {
		err = r.endIfLoggedOut(ctx, r.ref.ID, Identity{IssuedAt: issued}, tags)
	}
	switch {
	case errors.Is(err, ErrLoggedOut):
		return &EndedError{Reason: EndBackchannel}
	case err != nil:
		return &UnavailableError{RetryAfter: time.Second, Err: fmt.Errorf("looking for a logout: %w", err)}
	}
	return nil
}

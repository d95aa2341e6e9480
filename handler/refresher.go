package handler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// Refresher implements keeper.Refresher with an OAuth client.
type Refresher struct {
	// Client must be the one of Config.
	Client *oauth.Client
	// UserInfo must equal Config.UserInfo: it says that sessions have claims of the
	// UserInfo endpoint, which a refresh must keep.
	UserInfo bool
	// Observe is called after each request with the time that it took. Default: nothing.
	Observe func(outcome keeper.Outcome, took time.Duration)
}

var _ keeper.Refresher = Refresher{}

// outcomes maps the kind of a token error to its meaning for the session.
var outcomes = map[oauth.Kind]keeper.Outcome{
	oauth.Rejected:      keeper.Rejected,
	oauth.Unclear:       keeper.Unclear,
	oauth.Misconfigured: keeper.Misconfigured,
	oauth.Unavailable:   keeper.Unavailable,
	oauth.Unanswered:    keeper.Unanswered,
	oauth.Malformed:     keeper.Malformed,
	oauth.TimedOut:      keeper.TimedOut,
}

// outcomeOf returns the outcome of a token request that failed.
func outcomeOf(err error) keeper.Outcome {
	if tokenErr, ok := errors.AsType[*oauth.TokenError](err); ok {
		return outcomes[tokenErr.Kind]
	}
	return keeper.Unavailable
}

// Refresh redeems a refresh token. If the server rotated the token but its answer
// is otherwise unusable, the result has the new refresh token and an error.
func (f Refresher) Refresh(ctx context.Context, refreshToken string, confirm func() error) (answer keeper.Answer) {
	if f.Observe != nil {
		sent := time.Now()
		defer func() { f.Observe(answer.Outcome, time.Since(sent)) }()
	}
	t, err := f.Client.Refresh(ctx, refreshToken, confirm)
	if err == nil {
		return keeper.Answer{Outcome: keeper.Refreshed, Tokens: sessionTokens(t)}
	}
	answer = keeper.Answer{Outcome: outcomeOf(err), Err: err}
	var tokenErr *oauth.TokenError
	if errors.As(err, &tokenErr) {
		answer.RetryAfter = tokenErr.RetryAfter
	}
	if t != nil {
		answer.Tokens.RefreshToken, answer.Tokens.RefreshExpires = t.RefreshToken, t.RefreshExpires
	}
	return answer
}

// identifyTimeout bounds how long new tokens wait for the keys that verify the ID
// token. A key server that hangs must not delay a usable access token.
const identifyTimeout = 3 * time.Second

// Identify verifies the ID token of a refresh (OpenID Connect Core, section 12.2),
// and returns the identity with the claims that are valid from then on. Refreshes
// without an ID token do not call it. If the token proves that it belongs to
// another login, the error is keeper.ErrIdentityChanged.
func (f Refresher) Identify(ctx context.Context, current keeper.Identity, t keeper.Tokens) (keeper.Identity, error) {
	if !f.Client.OpenID() {
		return current, nil
	}
	ctx, cancel := context.WithTimeout(ctx, identifyTimeout)
	defer cancel()
	kept, keptErr := storedClaims(current, f.UserInfo)
	idToken, err := f.Client.VerifyRefreshedIDToken(ctx, t.IDToken, oauth.RefreshedIDTokenExpectation{
		Subject: current.Subject, Nonce: current.Nonce, AuthTime: authTime(kept.all), AccessToken: t.AccessToken,
	})
	switch {
	case errors.Is(err, oauth.ErrOtherLogin):
		return current, fmt.Errorf("%w: %w", keeper.ErrIdentityChanged, err)
	case err != nil:
		return current, err
	case keptErr != nil:
		return current, keptErr
	}
	identity := keeper.Identity{Subject: current.Subject, SID: current.SID, Nonce: current.Nonce, IssuedAt: idToken.IssuedAt}
	// An ID token without the claim says nothing new about the end of the session.
	identity.SessionExpiry = current.SessionExpiry
	if !idToken.SessionExpiry.IsZero() {
		identity.SessionExpiry = idToken.SessionExpiry
	}
	if idToken.SessionID != "" {
		identity.SID = idToken.SessionID
	}
	all, userInfo := kept.afterRefresh(idToken.Claims)
	if identity.Claims, err = encodeClaims(all); err != nil {
		return current, err
	}
	if identity.UserInfo, err = encodeClaims(userInfo); err != nil {
		return current, err
	}
	return identity, nil
}

// authTime returns the time of authentication, or zero if the claims do not have
// it.
func authTime(claims map[string]json.RawMessage) time.Time {
	var seconds float64
	if json.Unmarshal(claims["auth_time"], &seconds) != nil || seconds <= 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}

// Discard revokes tokens whose session ended during the refresh.
func (f Refresher) Discard(ctx context.Context, t keeper.Tokens) {
	// An error has no consequence: the caller is in the background, and a token
	// that was not revoked expires.
	_ = f.Client.Revoke(ctx, t.RefreshToken, "refresh_token")
}

func sessionTokens(t *oauth.TokenResponse) keeper.Tokens {
	return keeper.Tokens{
		AccessToken: t.AccessToken, Obtained: t.Sent, Expires: t.Expires,
		RefreshToken: t.RefreshToken, RefreshExpires: t.RefreshExpires, IDToken: t.IDToken,
	}
}

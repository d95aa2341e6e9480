package handler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session"
)

// Refresher lets a session.Keeper refresh at an authorization server.
type Refresher struct{ Client *oauth.Client }

var _ session.Refresher = Refresher{}

// outcomes translates the client's view of an answer into what it means for
// the session.
var outcomes = map[oauth.Kind]session.Outcome{
	oauth.Rejected:      session.Rejected,
	oauth.Unclear:       session.Unclear,
	oauth.Misconfigured: session.Misconfigured,
	oauth.Unavailable:   session.Unavailable,
	oauth.Unanswered:    session.Unanswered,
	oauth.Malformed:     session.Malformed,
	oauth.TimedOut:      session.TimedOut,
}

// Refresh redeems a refresh token.
func (f Refresher) Refresh(ctx context.Context, refreshToken string, confirm func() error) session.Answer {
	t, err := f.Client.Refresh(ctx, refreshToken, confirm)
	if err == nil {
		return session.Answer{Outcome: session.Refreshed, Tokens: sessionTokens(t)}
	}
	answer := session.Answer{Outcome: session.Unavailable, Err: err}
	var tokenErr *oauth.TokenError
	if errors.As(err, &tokenErr) {
		answer.Outcome, answer.RetryAfter = outcomes[tokenErr.Kind], tokenErr.RetryAfter
	}
	if t != nil {
		answer.Tokens.RefreshToken = t.RefreshToken
	}
	return answer
}

// Identify checks the ID token that came with a refresh (OpenID Connect Core,
// section 12.2). Claims that only UserInfo gave at login stay.
func (f Refresher) Identify(ctx context.Context, current session.Identity, t session.Tokens) (session.Identity, error) {
	if !f.Client.OpenID() {
		return current, nil
	}
	claims := map[string]json.RawMessage{}
	if len(current.Claims) > 0 {
		if err := json.Unmarshal(current.Claims, &claims); err != nil {
			return current, fmt.Errorf("reading kept claims: %w", err)
		}
	}
	idToken, err := f.Client.VerifyRefreshedIDToken(ctx, t.IDToken, oauth.RefreshedIDTokenWant{
		Subject: current.Subject, Nonce: current.Nonce, AuthTime: authTime(claims), AccessToken: t.AccessToken,
	})
	if errors.Is(err, oauth.ErrKeysUnavailable) || errors.Is(err, oauth.ErrMetadataUnavailable) {
		return current, err
	}
	if err != nil {
		return current, fmt.Errorf("%w: %w", session.ErrIdentityChanged, err)
	}
	maps.Copy(claims, idToken.Claims)
	who := session.Identity{Subject: current.Subject, SID: current.SID, Nonce: current.Nonce, IssuedAt: idToken.IssuedAt}
	if idToken.SessionID != "" {
		who.SID = idToken.SessionID
	}
	if who.Claims, err = encodeClaims(claims); err != nil {
		return current, err
	}
	return who, nil
}

// authTime is when the user authenticated at login, zero if that is not told.
func authTime(claims map[string]json.RawMessage) time.Time {
	var seconds int64
	if json.Unmarshal(claims["auth_time"], &seconds) != nil {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

// Discard revokes tokens that came too late for their session.
func (f Refresher) Discard(ctx context.Context, t session.Tokens) {
	// Nobody waits, and a token that stays behind expires: errors change
	// nothing.
	_ = f.Client.Revoke(ctx, t.RefreshToken, "refresh_token")
}

func sessionTokens(t *oauth.TokenResponse) session.Tokens {
	return session.Tokens{
		AccessToken: t.AccessToken, Obtained: t.Sent, Expires: t.Expires,
		RefreshToken: t.RefreshToken, RefreshExpires: t.RefreshExpires, IDToken: t.IDToken,
	}
}

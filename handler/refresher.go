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

// Refresher lets a keeper.Keeper refresh at an authorization server.
type Refresher struct {
	Client *oauth.Client
	// UserInfo: the sessions have claims of UserInfo, as Config.UserInfo says.
	UserInfo bool
}

var _ keeper.Refresher = Refresher{}

// outcomes translates the client's view of an answer into what it means for
// the session.
var outcomes = map[oauth.Kind]keeper.Outcome{
	oauth.Rejected:      keeper.Rejected,
	oauth.Unclear:       keeper.Unclear,
	oauth.Misconfigured: keeper.Misconfigured,
	oauth.Unavailable:   keeper.Unavailable,
	oauth.Unanswered:    keeper.Unanswered,
	oauth.Malformed:     keeper.Malformed,
	oauth.TimedOut:      keeper.TimedOut,
}

// Refresh redeems a refresh token.
func (f Refresher) Refresh(ctx context.Context, refreshToken string, confirm func() error) keeper.Answer {
	t, err := f.Client.Refresh(ctx, refreshToken, confirm)
	if err == nil {
		return keeper.Answer{Outcome: keeper.Refreshed, Tokens: sessionTokens(t)}
	}
	answer := keeper.Answer{Outcome: keeper.Unavailable, Err: err}
	var tokenErr *oauth.TokenError
	if errors.As(err, &tokenErr) {
		answer.Outcome, answer.RetryAfter = outcomes[tokenErr.Kind], tokenErr.RetryAfter
	}
	if t != nil {
		answer.Tokens.RefreshToken = t.RefreshToken
	}
	return answer
}

// identifyTimeout bounds how long new tokens wait for the keys that verify the
// ID token beside them. A key set that hangs must not hold up good tokens.
const identifyTimeout = 3 * time.Second

// Identify checks the ID token that came with a refresh (OpenID Connect Core,
// section 12.2) and returns the claims that count from then on.
func (f Refresher) Identify(ctx context.Context, current keeper.Identity, t keeper.Tokens) (keeper.Identity, error) {
	if !f.Client.OpenID() {
		return current, nil
	}
	ctx, cancel := context.WithTimeout(ctx, identifyTimeout)
	defer cancel()
	kept, keptErr := storedClaims(current, f.UserInfo)
	idToken, err := f.Client.VerifyRefreshedIDToken(ctx, t.IDToken, oauth.RefreshedIDTokenWant{
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
	who := keeper.Identity{Subject: current.Subject, SID: current.SID, Nonce: current.Nonce, IssuedAt: idToken.IssuedAt}
	if idToken.SessionID != "" {
		who.SID = idToken.SessionID
	}
	all, userInfo := kept.afterRefresh(idToken.Claims)
	if who.Claims, err = encodeClaims(all); err != nil {
		return current, err
	}
	if who.UserInfo, err = encodeClaims(userInfo); err != nil {
		return current, err
	}
	return who, nil
}

// authTime is when the user has authenticated, or zero if claims do not say.
func authTime(claims map[string]json.RawMessage) time.Time {
	var seconds float64
	if json.Unmarshal(claims["auth_time"], &seconds) != nil || seconds <= 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}

// Discard revokes tokens that came too late for their session.
func (f Refresher) Discard(ctx context.Context, t keeper.Tokens) {
	// Nobody waits, and a token that stays behind expires: errors change
	// nothing.
	_ = f.Client.Revoke(ctx, t.RefreshToken, "refresh_token")
}

func sessionTokens(t *oauth.TokenResponse) keeper.Tokens {
	return keeper.Tokens{
		AccessToken: t.AccessToken, Obtained: t.Sent, Expires: t.Expires,
		RefreshToken: t.RefreshToken, RefreshExpires: t.RefreshExpires, IDToken: t.IDToken,
	}
}

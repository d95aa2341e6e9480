package keeper

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// Tokens are the tokens of one answer of the authorization server's token endpoint, at
// login or after a refresh.
type Tokens struct {
	AccessToken string
	// Obtained is when the request for the tokens was sent. Their lifetime counts from
	// that time. Zero: the time at which the keeper gets them.
	Obtained time.Time
	// Expires is when the access token expires. Zero: the answer has no expiry, and
	// Config.DefaultTokenLifetime applies.
	Expires time.Time
	// RefreshToken is empty if the answer has none. In the answer to a refresh, the
	// client then keeps the previous refresh token (RFC 6749, section 6).
	RefreshToken string
	// RefreshExpires is when the refresh token expires: RefreshToken, or the previous one
	// if RefreshToken is empty. Zero: the answer has no expiry of the refresh token.
	RefreshExpires time.Time
	IDToken        string // empty: the answer has no ID token
}

// Identity is the authenticated user of a session, as the authorization server
// describes it.
type Identity struct {
	Subject string // the claim `sub`; empty if the server identifies no user
	SID     string // the claim `sid`: the ID of the session at the authorization server
	// Nonce is the nonce of the login. If a refreshed ID token has a nonce, it must be
	// this one (OpenID Connect Core, section 12.2).
	Nonce string
	// IssuedAt is the claim `iat` of the ID token, by the server's clock. Zero: unknown.
	// It is not stored.
	IssuedAt time.Time
	// SessionExpiry is the claim `session_expiry`: the session ends then, if not earlier
	// for another reason. Zero: the server sets no such limit.
	SessionExpiry time.Time
	// Claims are the claims of the ID token and of UserInfo: a JSON object, or empty.
	Claims json.RawMessage
	// UserInfo are the claims from UserInfo and from other sources, which are read at the
	// login alone: a refresh renews only those of the ID token. It is a JSON object. It is
	// empty if there were none, or if an earlier release, which did not separate them,
	// created the session.
	UserInfo json.RawMessage
	// UserAgent is the User-Agent header of the login, for operators. It is used by Create
	// only.
	UserAgent string
	// Replaces is the secret of the session that this browser has had so far and that the
	// caller ends after Create. SessionLimit does not count it. Zero: there is none. It is
	// used by Create only.
	Replaces seal.Secret
	// IDToken is the source of Claims. It is set only in the argument of
	// Refresher.Identify.
	IDToken string
}

// Outcome classifies the answer to a refresh request by its effect on the session.
type Outcome int

const (
	// Refreshed means that the answer has a new access token.
	Refreshed Outcome = iota
	// Rejected means that the refresh token is no longer valid (invalid_grant). The
	// session ends.
	Rejected
	// Unclear is an error that some servers return for an invalid refresh token, and
	// others for a request that they do not accept. The keeper sends the token once
	// more, shortly before the access token expires.
	Unclear
	// Misconfigured means that the server refuses this client, whatever the token.
	Misconfigured
	// Unavailable means that the server did not process the request and may do so later.
	Unavailable
	// Unanswered means that the connection broke after the request was sent at least in
	// part. The server may have processed it.
	Unanswered
	// Malformed means that the answer is unusable.
	Malformed
	// TimedOut means that the request was sent and no answer came in time. The server
	// may still be working on it, so the keeper does not repeat it at once.
	TimedOut
)

var outcomeNames = [...]string{"refreshed", "rejected", "unclear", "misconfigured", "unavailable", "unanswered", "malformed", "timed_out"}

// String returns the name of the outcome in logs and metrics.
func (o Outcome) String() string {
	if o < 0 || int(o) >= len(outcomeNames) {
		return "unknown"
	}
	return outcomeNames[o]
}

// Outcomes returns all outcomes, for metrics.
func Outcomes() (all []Outcome) {
	for o := range outcomeNames {
		all = append(all, Outcome(o))
	}
	return all
}

// Answer is the result of one refresh request.
type Answer struct {
	Outcome Outcome
	// Tokens is set if Outcome is Refreshed. If Outcome is Malformed, its RefreshToken and
	// RefreshExpires alone may be set: the server has rotated the refresh token, and the
	// keeper must store this one.
	Tokens Tokens
	// RetryAfter is the pause that the server demands before the next request. Zero:
	// it demands none.
	RetryAfter time.Duration
	// Err is the cause of any Outcome but Refreshed, for the log. It contains no secret.
	Err error
}

// Refresher is the client of the authorization server. The keeper calls its methods
// with contexts of its own, never with that of an HTTP request.
type Refresher interface {
	// Refresh sends a refresh token to the authorization server in a single request,
	// which it must not repeat. It returns when ctx ends, at the latest. Once it is
	// connected to the server and before it sends the token, it calls confirm. If
	// confirm returns an error, Refresh sends nothing, and the keeper ignores the Answer.
	Refresh(ctx context.Context, refreshToken string, confirm func() error) Answer
	// Identify verifies the ID token of a refresh and returns the identity of the session
	// from then on. If errors.Is(err, ErrIdentityChanged), the ID token is proven to be
	// of another login: the session ends, and the new tokens are revoked. Any other error
	// means that the ID token could not be verified: the session uses the new access
	// token, and keeps its previous ID token, sid and claims.
	Identify(ctx context.Context, current Identity, tokens Tokens) (Identity, error)
	// Discard revokes tokens that arrived after their session had ended.
	Discard(ctx context.Context, tokens Tokens)
}

const (
	// A refresh is due after 70 to 85 % of the token's lifetime. The share is drawn for
	// each token, so that sessions that began together do not refresh together.
	refreshMinShare, refreshMaxShare = 0.70, 0.85
	// A token counts as expired 10 s before its expiry, or 5 % of its lifetime if that is
	// less, to allow for clock skew and for the way to the upstream server.
	maxSkew      = 10 * time.Second
	skewFraction = 20
)

// newAccessToken computes the times at which a token is refreshed and no longer used.
// A token that has no expiry lives for defaultLifetime.
func newAccessToken(t Tokens, refreshable bool, now time.Time, defaultLifetime time.Duration) accessToken {
	obtained := t.Obtained
	if obtained.IsZero() {
		obtained = now
	}
	expires := t.Expires
	// A token that expires before it is obtained shows a wrong clock. If its expiry were
	// believed, every request would cause a refresh.
	if !expires.After(obtained) {
		expires = obtained.Add(defaultLifetime)
	}
	lifetime := expires.Sub(obtained)
	token := accessToken{
		value:       t.AccessToken,
		obtained:    obtained,
		expires:     expires,
		usableUntil: expires.Add(-min(maxSkew, lifetime/skewFraction)),
	}
	if refreshable {
		share := refreshMinShare + (refreshMaxShare-refreshMinShare)*rand.Float64() //nolint:gosec // spreads load, protects nothing
		token.refreshAt = obtained.Add(time.Duration(share * float64(lifetime)))
	}
	return token
}

// refreshBefore moves the refresh forward, so that it is due before end: the new ID token
// may move the end of the session.
func (t *accessToken) refreshBefore(end time.Time) {
	lifetime, left := t.expires.Sub(t.obtained), end.Sub(t.obtained)
	if !t.refreshAt.IsZero() && left > 0 && left < lifetime {
		share := float64(t.refreshAt.Sub(t.obtained)) / float64(lifetime)
		t.refreshAt = t.obtained.Add(time.Duration(share * float64(left)))
	}
}

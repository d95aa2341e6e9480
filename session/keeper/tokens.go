package keeper

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"time"
)

// Tokens is what the authorization server issued, at login or in exchange for
// a refresh token.
type Tokens struct {
	AccessToken string
	// Obtained is when the request for the tokens was sent, from which their
	// lifetime counts.
	Obtained time.Time
	// Expires is when the access token expires; zero: the server did not say.
	Expires time.Time
	// RefreshToken is empty when none was issued. In the answer to a refresh
	// that means: the old one stays good (RFC 6749, section 6).
	RefreshToken   string
	RefreshExpires time.Time // zero: the server did not say
	IDToken        string    // empty: none was issued
}

// Identity is who a session belongs to.
type Identity struct {
	Subject string // `sub`; empty where the server tells nobody's name
	SID     string // `sid`, the server's name of its own session
	// Nonce of the login, which a refreshed ID token must repeat if it has one.
	Nonce string
	// IssuedAt is when the server said so at login, by its own clock (`iat` of
	// the ID token); zero: it did not tell. It is not kept.
	IssuedAt time.Time
	// Claims are those of the ID token and of UserInfo together: a JSON object,
	// or empty.
	Claims json.RawMessage
	// UserInfo are the claims that come from UserInfo, kept apart because a
	// refresh renews the others: a JSON object, or empty if UserInfo was not
	// asked or the session is from a release that did not keep them apart.
	UserInfo json.RawMessage
	// IDToken is the ID token that Claims come from. Only Identify gets it.
	IDToken string
}

// Outcome sorts the answers to a refresh by what they mean for the session.
type Outcome int

const (
	// Refreshed: there is a new access token.
	Refreshed Outcome = iota
	// Rejected: the refresh token is dead (invalid_grant).
	Rejected
	// Unclear: an error that some servers give for a dead refresh token and
	// others for a request they do not like. The token is sent once more,
	// shortly before the access token expires.
	Unclear
	// Misconfigured: the server refuses this client, whatever the token.
	Misconfigured
	// Unavailable: the server did not process the request and may later.
	Unavailable
	// Unanswered: the request was sent, at least in part, and the connection
	// broke. The server may have processed it.
	Unanswered
	// Malformed: an answer that cannot be used.
	Malformed
	// TimedOut: the request was sent, and no answer came in time. The server may
	// still be working on it, so it must not be sent again at once.
	TimedOut
)

// String returns the outcome's name in logs and metrics.
func (o Outcome) String() string {
	names := [...]string{"refreshed", "rejected", "unclear", "misconfigured", "unavailable", "unanswered", "malformed", "timed_out"}
	if o < 0 || int(o) >= len(names) {
		return "unknown"
	}
	return names[o]
}

// Answer is the result of one refresh request.
type Answer struct {
	Outcome Outcome
	// Tokens is set when Outcome is Refreshed. With Malformed its RefreshToken
	// alone may be set: the server has rotated, and this one must be kept.
	Tokens Tokens
	// RetryAfter is how long the server asked to be left alone; zero: it did
	// not say.
	RetryAfter time.Duration
	// Err says what went wrong, for the log. It holds no secret.
	Err error
}

// Refresher is what the keeper needs from the client of the authorization
// server. Its methods are called outside of any request's context.
type Refresher interface {
	// Refresh redeems a refresh token, once: it must not repeat the request. It
	// returns when ctx ends, at the latest. It calls confirm when the connection to
	// the server stands, right before the token is sent, and sends nothing if
	// confirm returns an error; the Answer does not matter then.
	Refresh(ctx context.Context, refreshToken string, confirm func() error) Answer
	// Identify judges the ID token that came with a refresh, and returns the
	// identity that the session has from then on. Its error is errors.Is
	// ErrIdentityChanged only if the token is proven to be of another login: the
	// session ends, and the new tokens are revoked. Any other error means that
	// the token could not be verified: the access token beside it is used, and
	// the session keeps the ID token, the sid and the claims that it has.
	Identify(ctx context.Context, current Identity, tokens Tokens) (Identity, error)
	// Discard is called with tokens that came for a session which had ended
	// meanwhile, so that they can be revoked.
	Discard(ctx context.Context, tokens Tokens)
}

const (
	// A refresh is due after 70 to 85 % of the lifetime, drawn per token, so
	// that sessions begun together do not refresh together.
	refreshMinShare, refreshMaxShare = 0.70, 0.85
	// A token counts as expired a little early, for clocks and transport: by
	// 10 s, or 5 % of its lifetime if that is less.
	maxSkew      = 10 * time.Second
	skewFraction = 20
)

// newAccessToken draws the times of a token.
func newAccessToken(t Tokens, refreshable bool, now time.Time, defaultLifetime time.Duration) accessToken {
	obtained := t.Obtained
	if obtained.IsZero() {
		obtained = now
	}
	expires := t.Expires
	// A lifetime that is over at once is a clock gone wrong, not a wish to have
	// every request refresh.
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
		share := refreshMinShare + (refreshMaxShare-refreshMinShare)*rand.Float64() //nolint:gosec // spreads load, guards nothing
		token.refreshAt = obtained.Add(time.Duration(share * float64(lifetime)))
	}
	return token
}

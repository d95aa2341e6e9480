package oauth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
)

const (
	// backchannelEvent is the member of the claim events that makes a JWT a
	// logout token.
	backchannelEvent = "http://schemas.openid.net/event/backchannel-logout"
	// maxLogoutAge is how long after its iat a logout token is accepted, even if
	// its exp is later: servers send the token as soon as they have made it, and
	// retry soon.
	maxLogoutAge = 5 * time.Minute
	// maxTokenID is the longest accepted jti, in bytes.
	maxTokenID = 1024
)

// logoutTokens are small, and anyone can send one. Servers that are older than
// logout+jwt write JWT. An ID token with that typ is refused because it has no claim
// events.
var logoutTokens = jwtKind{name: "logout token", types: []string{"logout+jwt", "JWT"}, maxSize: 16 << 10}

// LogoutToken is a verified logout token. At least one of Subject and SessionID
// is set.
type LogoutToken struct {
	// ID is the claim jti, unique among the logout tokens of the server.
	ID string
	// Subject is the claim sub. A token without SessionID ends all sessions of
	// this user.
	Subject string
	// SessionID is the claim sid, the server's name for its session with the
	// user.
	SessionID string
	// IssuedAt is the claim iat.
	IssuedAt time.Time
	// ValidUntil is when VerifyLogoutToken begins to refuse the token. The caller may
	// forget ID then.
	ValidUntil time.Time
}

// VerifyLogoutToken verifies a logout token by OpenID Connect Back-Channel
// Logout section 2.6: signature, issuer, audience and times as for an ID token,
// except that exp may be missing: earlier drafts did not have it, and some servers
// leave it out. It refuses tokens that were issued more than five minutes ago. It checks all
// claims before the signature, so that a token that no key can make valid does not
// cause a fetch of the server's keys.
//
// VerifyLogoutToken does not detect replays: the caller must remember
// LogoutToken.ID.
//
// An error for which errors.Is reports ErrKeysUnavailable says nothing about
// the token, which the server should send again. All other errors mean that the
// token is invalid.
func (c *Client) VerifyLogoutToken(ctx context.Context, raw string) (*LogoutToken, error) {
	t, err := c.verifyLogoutToken(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("verifying logout token: %w", err)
	}
	return t, nil
}

func (c *Client) verifyLogoutToken(ctx context.Context, raw string) (*LogoutToken, error) {
	if c.issuer == "" {
		return nil, errors.New("a logout token needs the option issuer")
	}
	if _, err := parseHeader(raw, logoutTokens); err != nil {
		return nil, err
	}
	payload, err := unverifiedClaims(raw)
	if err != nil {
		return nil, err
	}
	t, err := c.readLogoutToken(payload)
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	// The signature covers the bytes that t was read from.
	_, _, err = c.verifySignature(ctx, raw, logoutTokens, &c.logoutKeys)
	if errors.Is(err, errRecentlyFetched) {
		// Forged tokens may have used up the budget, and this one may be valid.
		return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, err)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// unverifiedClaims reads the payload of a JWT whose header parseHeader has
// accepted.
func unverifiedClaims(raw string) (claims, error) {
	_, rest, _ := strings.Cut(raw, ".")
	encoded, _, _ := strings.Cut(rest, ".")
	data, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, errors.New("the token's payload is not base64url")
	}
	payload, err := parseObject(data)
	if err != nil {
		return nil, errors.New("the token's payload is not a JSON object")
	}
	return payload, nil
}

// readLogoutToken checks and reads the claims of a logout token.
func (c *Client) readLogoutToken(p claims) (*LogoutToken, error) {
	if err := p.checkLogoutEvent(); err != nil {
		return nil, err
	}
	p = p.withoutUnreadableExpiry()
	if err := c.checkClaims(p); err != nil {
		return nil, err
	}
	if err := c.checkAudiences(p, logoutTokens); err != nil {
		return nil, err
	}
	t := &LogoutToken{}
	var err error
	if t.ID, err = p.text("jti"); err != nil {
		return nil, err
	}
	if t.Subject, err = p.text("sub"); err != nil {
		return nil, err
	}
	if t.SessionID, err = p.text("sid"); err != nil {
		return nil, err
	}
	switch {
	case t.ID == "" || len(t.ID) > maxTokenID:
		return nil, fmt.Errorf("the claim jti must have 1 to %d bytes", maxTokenID)
	case t.Subject == "" && t.SessionID == "":
		return nil, errors.New("the token has neither sub nor sid")
	case len(t.Subject) > maxSubject:
		return nil, fmt.Errorf("the claim sub has more than %d bytes", maxSubject)
	}
	if err := t.readTimes(p, time.Now()); err != nil {
		return nil, err
	}
	return t, nil
}

// checkLogoutEvent refuses the server's other JWTs, ID tokens above all: every
// user who has logged in has one.
func (p claims) checkLogoutEvent() error {
	if _, ok := p["nonce"]; ok {
		return errors.New("the token has a nonce, as ID tokens do and logout tokens must not")
	}
	events, err := parseObject(p["events"])
	if err != nil {
		return errors.New("the claim events is missing or not a JSON object")
	}
	if _, err := parseObject(events[backchannelEvent]); err != nil {
		return errors.New("the claim events does not name a back-channel logout")
	}
	return nil
}

// withoutUnreadableExpiry returns the claims without an exp that is not a number.
// Such an exp counts as missing, because maxLogoutAge bounds the token anyway.
func (p claims) withoutUnreadableExpiry() claims {
	var seconds *float64
	if raw, ok := p["exp"]; !ok || json.Unmarshal(raw, &seconds) == nil && seconds != nil {
		return p
	}
	rest := maps.Clone(p)
	delete(rest, "exp")
	return rest
}

// readTimes sets IssuedAt and ValidUntil, and refuses a token that is too old.
// checkClaims has checked that iat exists.
func (t *LogoutToken) readTimes(p claims, now time.Time) error {
	var err error
	if t.IssuedAt, err = p.time("iat"); err != nil {
		return err
	}
	t.ValidUntil = t.IssuedAt.Add(maxLogoutAge)
	if _, ok := p["exp"]; ok {
		expires, err := p.time("exp")
		if err != nil {
			return err
		}
		if expires.Before(t.ValidUntil) {
			t.ValidUntil = expires
		}
	}
	t.ValidUntil = t.ValidUntil.Add(leeway)
	if !now.Before(t.ValidUntil) {
		return fmt.Errorf("the token is %d seconds old, the limit is %d", int(now.Sub(t.IssuedAt).Seconds()), int(maxLogoutAge.Seconds()))
	}
	return nil
}

package oauth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// backchannelEvent is the member of events that makes a JWT a logout token.
	backchannelEvent = "http://schemas.openid.net/event/backchannel-logout"
	// maxLogoutAge is how long after its iat a logout token is accepted, whatever
	// its exp says: servers send it when it is made, and repeat it soon.
	maxLogoutAge = 5 * time.Minute
	// maxTokenID is the longest jti, in bytes.
	maxTokenID = 1024
)

// logoutTokenTypes are what a logout token's header may say it is, if anything.
// JWT is what servers write that are older than the type. An ID token of that
// type has no events, so it does not pass for a logout token.
var logoutTokenTypes = []string{"logout+jwt", "JWT"}

// LogoutToken is a verified logout token. At least one of Subject and SessionID
// is there.
type LogoutToken struct {
	// ID is the claim jti: no two logout tokens of a server have the same.
	ID string
	// Subject is the claim sub. Without a SessionID it is about all sessions of
	// that user.
	Subject string
	// SessionID is the claim sid, the server's name for its session with the
	// user.
	SessionID string
	IssuedAt  time.Time
	// Until is when the token will not be accepted any more.
	Until time.Time
}

// VerifyLogoutToken verifies a logout token by OpenID Connect Back-Channel
// Logout section 2.6: signature, issuer, audience and times as for an ID token.
// Tokens of more than five minutes ago are refused. What makes a token invalid
// whoever signed it is looked at first, so that no garbage makes the server's
// keys be fetched.
//
// That a token has not come before is not checked; see LogoutToken.ID. Errors
// are as for VerifyIDToken.
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
	if _, err := parseHeader(raw, c.allowedAlgorithms(), logoutTokenTypes); err != nil {
		return nil, err
	}
	claimed, err := unverifiedClaims(raw)
	if err != nil {
		return nil, err
	}
	if _, err := c.logoutToken(claimed); err != nil {
		return nil, err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	_, payload, err := c.verifyJWS(ctx, raw, logoutTokenTypes, &c.logoutKeys)
	switch {
	case errors.Is(err, errKeysRecent):
		// Made-up tokens have used up the budget, and this one may be good.
		return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, err)
	case err != nil:
		return nil, err
	}
	return c.logoutToken(payload)
}

// unverifiedClaims reads the payload of what parseHeader has taken for a JWT.
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

// logoutToken checks what claims say, not whether they are true.
func (c *Client) logoutToken(p claims) (*LogoutToken, error) {
	if err := c.checkLogoutParties(p); err != nil {
		return nil, err
	}
	if err := p.checkLogoutEvent(); err != nil {
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
	if err := p.checkLogoutTimes(t, time.Now()); err != nil {
		return nil, err
	}
	return t, nil
}

func (c *Client) checkLogoutParties(p claims) error {
	if iss, err := p.text("iss"); err != nil || iss != c.issuer {
		return p.explain(jwt.ErrTokenInvalidIssuer, c.issuer, time.Now())
	}
	aud, err := p.GetAudience()
	if err != nil {
		return err
	}
	if !slices.Contains(aud, c.clientID) {
		return jwt.ErrTokenInvalidAudience
	}
	return p.checkAuthorizedParty(c.clientID)
}

// checkLogoutEvent tells a logout token from every other JWT of the server, ID
// tokens above all, which anybody has who has logged in.
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

func (p claims) checkLogoutTimes(t *LogoutToken, now time.Time) error {
	expires, err := p.time("exp")
	if err != nil {
		return err
	}
	if t.IssuedAt, err = p.time("iat"); err != nil {
		return err
	}
	switch {
	case expires.IsZero():
		return errors.New("the claim exp is missing")
	case t.IssuedAt.IsZero():
		return errors.New("the claim iat is missing")
	}
	t.Until = t.IssuedAt.Add(maxLogoutAge)
	if expires.Before(t.Until) {
		t.Until = expires
	}
	t.Until = t.Until.Add(leeway)
	switch {
	case t.IssuedAt.After(now.Add(leeway)):
		return p.explain(jwt.ErrTokenUsedBeforeIssued, "", now)
	case !now.Before(expires.Add(leeway)):
		return p.explain(jwt.ErrTokenExpired, "", now)
	case !now.Before(t.Until):
		return fmt.Errorf("the token is %d seconds old, the limit is %d", int(now.Sub(t.IssuedAt).Seconds()), int(maxLogoutAge.Seconds()))
	}
	return nil
}

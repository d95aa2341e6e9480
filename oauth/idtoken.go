package oauth

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxSubject is the longest sub, in bytes (OpenID Connect Core section 2).
const maxSubject = 255

// idTokenTypes are what an ID token's header may say it is, if anything.
var idTokenTypes = []string{"JWT"}

// ErrOtherLogin means that an ID token carries a good signature of the server
// and is of another user, issuer, client or login than expected.
var ErrOtherLogin = errors.New("the ID token is proven to be of another login")

// IDToken is a verified ID token.
type IDToken struct {
	Subject string
	// SessionID is the claim sid, the server's name for its session with the
	// user, or empty.
	SessionID string
	// AuthTime is when the user authenticated. Zero: not told.
	AuthTime time.Time
	IssuedAt time.Time
	// Claims are all claims, as the server sent them.
	Claims map[string]json.RawMessage
}

// IDTokenExpectation is what the ID token of a login must say.
type IDTokenExpectation struct {
	// Nonce of the authorization request. Required.
	Nonce string
	// AccessToken that came with the ID token; a claim at_hash must fit it.
	AccessToken string
	// MaxAge of the authorization request, in seconds: auth_time must then be
	// there and not be older. Nil means the max_age of
	// Config.AuthorizeParams, if any.
	MaxAge *int
	// ACRValues, separated by spaces: if not empty, acr must be one of them.
	ACRValues string
}

// RefreshedIDTokenExpectation is what the ID token of a refresh must say, taken from
// the ID token of the login.
type RefreshedIDTokenExpectation struct {
	// Subject must be the same. Required.
	Subject string
	// Nonce must be the same if both are there.
	Nonce string
	// AuthTime must not be later than the token's if both are there. The
	// standard wants them equal, but servers move theirs on when the user
	// authenticates again elsewhere, and that is no reason to end a session.
	AuthTime time.Time
	// AccessToken that came with the ID token; a claim at_hash must fit it.
	AccessToken string
}

// VerifyIDToken verifies the ID token of a login by OpenID Connect Core
// section 3.1.3.7. Signatures with "none" and HMAC are never accepted, nor are
// tokens for further audiences that do not name this client as azp.
//
// An error for which errors.Is reports ErrKeysUnavailable says nothing about
// the token. All others mean that it must not be used.
func (c *Client) VerifyIDToken(ctx context.Context, raw string, want IDTokenExpectation) (*IDToken, error) {
	if want.Nonce == "" {
		return nil, errors.New("verifying ID token: no nonce to compare with")
	}
	if want.MaxAge == nil {
		want.MaxAge = c.maxAge
	}
	t, err := c.verifyIDToken(ctx, raw, want.AccessToken)
	if err == nil {
		err = want.check(t)
	}
	if err != nil {
		return nil, fmt.Errorf("verifying ID token: %w", err)
	}
	return t, nil
}

// VerifyRefreshedIDToken verifies an ID token that came with a refresh, by
// OpenID Connect Core section 12.2: it must speak of the same login.
//
// An error for which errors.Is reports ErrOtherLogin proves that it speaks of
// another one: the signature is good, and iss, sub, aud, azp or nonce is there
// and differs, whatever else is wrong with the token, its times included. Any
// other error proves nothing: the token cannot be used, and who the user is was
// not found out.
func (c *Client) VerifyRefreshedIDToken(ctx context.Context, raw string, want RefreshedIDTokenExpectation) (*IDToken, error) {
	t, err := c.verifyRefreshedIDToken(ctx, raw, want)
	if err != nil {
		return nil, fmt.Errorf("verifying refreshed ID token: %w", err)
	}
	return t, nil
}

func (c *Client) verifyRefreshedIDToken(ctx context.Context, raw string, want RefreshedIDTokenExpectation) (*IDToken, error) {
	if c.issuer == "" {
		return nil, errNeedsIssuer
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	header, payload, err := c.verifySignature(ctx, raw, idTokenTypes, &c.refreshKeys)
	if err != nil {
		return nil, err
	}
	// Before the times: an old token of somebody else is somebody else's.
	if name := c.differs(payload, want); name != "" {
		return nil, fmt.Errorf("%w: the claim %s differs", ErrOtherLogin, name)
	}
	if err := c.checkClaims(payload); err != nil {
		return nil, err
	}
	t, err := c.readIDToken(header, payload, want.AccessToken)
	if err != nil {
		return nil, err
	}
	if err := want.check(t); err != nil {
		return nil, err
	}
	return t, nil
}

// differs returns the name of a claim that says that a signed ID token is of
// another login, or "". A claim that is missing, empty or of another type than
// the standard's says nothing.
func (c *Client) differs(p claims, want RefreshedIDTokenExpectation) string {
	for _, claim := range []struct{ name, want string }{
		{"iss", c.issuer}, {"sub", want.Subject}, {"azp", c.clientID}, {"nonce", want.Nonce},
	} {
		got, err := p.text(claim.name)
		if err == nil && got != "" && claim.want != "" && subtle.ConstantTimeCompare([]byte(got), []byte(claim.want)) != 1 {
			return claim.name
		}
	}
	// That it is for others besides is no proof: it is for this client, too.
	aud, err := p.GetAudience()
	named := slices.ContainsFunc(aud, func(a string) bool { return a != "" })
	if err == nil && named && !slices.Contains(aud, c.clientID) {
		return "aud"
	}
	return ""
}

var errNeedsIssuer = errors.New("an ID token needs the option issuer")

func (c *Client) verifyIDToken(ctx context.Context, raw, accessToken string) (*IDToken, error) {
	if c.issuer == "" {
		return nil, errNeedsIssuer
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	header, payload, err := c.verifySignature(ctx, raw, idTokenTypes, &c.loginKeys)
	if err != nil {
		return nil, err
	}
	if err := c.checkClaims(payload); err != nil {
		return nil, err
	}
	return c.readIDToken(header, payload, accessToken)
}

// readIDToken checks and reads the claims that only ID tokens have.
func (c *Client) readIDToken(header jwsHeader, payload claims, accessToken string) (*IDToken, error) {
	if err := payload.checkAuthorizedParty(c.clientID); err != nil {
		return nil, err
	}
	if err := payload.checkAccessTokenHash(header.alg, accessToken); err != nil {
		return nil, err
	}
	return payload.idToken()
}

// checkAuthorizedParty refuses tokens for others beside this client, unless
// they name this client as the party they were issued to.
func (p claims) checkAuthorizedParty(clientID string) error {
	azp, err := p.text("azp")
	if err != nil {
		return err
	}
	aud, err := p.GetAudience()
	if err != nil {
		return err
	}
	others := slices.ContainsFunc(aud, func(a string) bool { return a != clientID })
	switch {
	case azp == clientID, azp == "" && !others:
		return nil
	case azp == "":
		return errors.New("the token has further audiences and no azp")
	}
	return errors.New("the claim azp names another client")
}

// checkAccessTokenHash compares at_hash, if there is one, with the left half
// of the access token's hash (OpenID Connect Core section 3.1.3.6).
func (p claims) checkAccessTokenHash(alg, accessToken string) error {
	want, err := p.text("at_hash")
	if err != nil || want == "" || accessToken == "" {
		return err
	}
	var sum []byte
	switch {
	case strings.HasSuffix(alg, "256"):
		s := sha256.Sum256([]byte(accessToken))
		sum = s[:]
	case strings.HasSuffix(alg, "384"):
		s := sha512.Sum384([]byte(accessToken))
		sum = s[:]
	default: // the 512s, and EdDSA, whose Ed25519 hashes with SHA-512
		s := sha512.Sum512([]byte(accessToken))
		sum = s[:]
	}
	got := base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
	if subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
		return errors.New("the claim at_hash does not fit the access token")
	}
	return nil
}

func (p claims) idToken() (*IDToken, error) {
	t := &IDToken{Claims: p}
	var err error
	if t.Subject, err = p.text("sub"); err != nil {
		return nil, err
	}
	if t.Subject == "" || len(t.Subject) > maxSubject {
		return nil, fmt.Errorf("the claim sub must have 1 to %d bytes", maxSubject)
	}
	if t.SessionID, err = p.text("sid"); err != nil {
		return nil, err
	}
	if t.IssuedAt, err = p.time("iat"); err != nil {
		return nil, err
	}
	t.AuthTime, err = p.time("auth_time")
	return t, err
}

func (want IDTokenExpectation) check(t *IDToken) error {
	nonce, err := claims(t.Claims).text("nonce")
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(nonce), []byte(want.Nonce)) != 1 {
		return errors.New("the claim nonce is not that of this login")
	}
	if want.MaxAge != nil {
		// Without auth_time the zero time is older than any max_age.
		if time.Since(t.AuthTime) > time.Duration(*want.MaxAge)*time.Second+leeway {
			return errors.New("the claim auth_time is missing or older than max_age")
		}
	}
	if want.ACRValues != "" {
		acr, err := claims(t.Claims).text("acr")
		if err != nil {
			return err
		}
		if !slices.Contains(strings.Fields(want.ACRValues), acr) {
			return errors.New("the claim acr is not among the acr_values asked for")
		}
	}
	return nil
}

// check follows differs, which has compared the claims that are there.
func (want RefreshedIDTokenExpectation) check(t *IDToken) error {
	if _, err := claims(t.Claims).text("nonce"); err != nil {
		return err
	}
	switch {
	case want.Subject == "":
		return errors.New("the session has no subject to compare the claim sub with")
	case !t.AuthTime.IsZero() && !want.AuthTime.IsZero() && t.AuthTime.Unix() < want.AuthTime.Unix():
		return errors.New("the claim auth_time is before that of the login")
	}
	return nil
}

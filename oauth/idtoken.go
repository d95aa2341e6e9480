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

	"github.com/golang-jwt/jwt/v5"
)

// maxSubject is the longest accepted sub, in bytes (OpenID Connect Core section 2).
const maxSubject = 255

// idTokens may be as large as access tokens: users in hundreds of groups have large
// ones.
var idTokens = jwtKind{name: "ID token", types: []string{"JWT"}, maxSize: maxToken}

// ErrOtherLogin means that the server has signed an ID token for another user,
// issuer, client or login than expected.
var ErrOtherLogin = errors.New("the ID token belongs to another login")

// IDToken is a verified ID token (OpenID Connect Core section 2).
type IDToken struct {
	// Subject is the claim sub, 1 to 255 bytes.
	Subject string
	// SessionID is the claim sid, the server's name for its session with the user,
	// or empty.
	SessionID string
	// AuthTime is the claim auth_time: when the user authenticated. Zero means
	// unknown.
	AuthTime time.Time
	// IssuedAt is the claim iat.
	IssuedAt time.Time
	// SessionExpiry is the claim session_expiry: when the session of this client must
	// end, unless a later ID token moves it (OpenID IPSIE SL1). Zero means that the
	// server sets no such limit, or sends a value that is no NumericDate.
	SessionExpiry time.Time
	// Claims are all claims, in the JSON of the server.
	Claims map[string]json.RawMessage
}

// IDTokenExpectation is compared with the ID token of a login.
type IDTokenExpectation struct {
	// Nonce is that of the authorization request. Required.
	Nonce string
	// AccessToken is the one of the same response. A claim at_hash must match it.
	AccessToken string
	// MaxAge is that of the authorization request, in seconds. The claim auth_time
	// must then exist and not be older, with a leeway of 60 seconds. If
	// Config.AuthorizeParams has a max_age, too, the smaller one is the limit. Nil
	// means that of Config.AuthorizeParams, or no limit.
	MaxAge *int
	// Requested is when the authorization request was made. MaxAge counts back from it,
	// because the user may have further steps to take at the server after the
	// authentication. Zero means now.
	Requested time.Time
	// ACRValues are those of the authorization request, separated by spaces. If not
	// empty, the claim acr must be one of them.
	ACRValues string
}

// RefreshedIDTokenExpectation is compared with the ID token of a refresh. Except for
// AccessToken, its values come from the ID token of the login.
type RefreshedIDTokenExpectation struct {
	// Subject must equal the claim sub. Required.
	Subject string
	// Nonce must equal the claim nonce, if neither is empty.
	Nonce string
	// AuthTime must not be later than the claim auth_time, if neither is zero.
	// OpenID Connect Core section 12.2 requires equal times. This check is weaker,
	// because some servers update auth_time when the user authenticates elsewhere.
	AuthTime time.Time
	// AccessToken is the one of the same response. A claim at_hash must match it.
	AccessToken string
}

// VerifyIDToken verifies the ID token of a login (OpenID Connect Core section
// 3.1.3.7). It accepts one signature algorithm, see Config.IDTokenAlgorithm. If the
// token has further audiences, Config.TrustedAudiences must list them, and the token
// must name this client as azp. Clocks may differ by 60 seconds. The claims azp, at_hash,
// sid, auth_time, nbf and session_expiry count as missing if they are of another type
// than they should be. A session_expiry in the past is refused.
//
// An error for which errors.Is reports ErrKeysUnavailable says nothing about the
// token. All other errors mean that the token is invalid.
func (c *Client) VerifyIDToken(ctx context.Context, raw string, want IDTokenExpectation) (*IDToken, error) {
	if want.Nonce == "" {
		return nil, errors.New("verifying ID token: no nonce to compare with")
	}
	want.MaxAge = c.smallerMaxAge(want.MaxAge)
	t, err := c.verifyIDToken(ctx, raw, want.AccessToken)
	if err == nil {
		err = want.check(t)
	}
	if err != nil {
		return nil, fmt.Errorf("verifying ID token: %w", err)
	}
	return t, nil
}

// VerifyRefreshedIDToken verifies the ID token of a refresh (OpenID Connect Core
// section 12.2): it must belong to the same login.
//
// An error for which errors.Is reports ErrOtherLogin proves that the token belongs to
// another login: its signature is valid, and iss, sub, aud, azp or nonce exists and
// differs. The token may have further defects, such as wrong times. Any other error
// means that the token is unusable, and proves nothing about the login.
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
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	header, payload, err := c.verifySignature(ctx, raw, idTokens, &c.refreshKeys)
	if err != nil {
		return nil, err
	}
	// This comes before the check of the times: an expired token of another user
	// still proves another login.
	if name := c.contradictedClaim(payload, want); name != "" {
		return nil, fmt.Errorf("%w: the claim %s differs", ErrOtherLogin, name)
	}
	if err := c.checkClaims(payload, jwt.WithExpirationRequired()); err != nil {
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

// contradictedClaim returns the name of a claim that proves that a signed ID token
// belongs to another login, or "". Claims that are missing, empty or of a wrong type
// prove nothing.
func (c *Client) contradictedClaim(p claims, want RefreshedIDTokenExpectation) string {
	for _, claim := range []struct{ name, want string }{
		{"iss", c.issuer}, {"sub", want.Subject}, {"azp", c.clientID}, {"nonce", want.Nonce},
	} {
		got, err := p.text(claim.name)
		if err == nil && got != "" && claim.want != "" && subtle.ConstantTimeCompare([]byte(got), []byte(claim.want)) != 1 {
			return claim.name
		}
	}
	// Further audiences prove nothing if this client is one of them.
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
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	header, payload, err := c.verifySignature(ctx, raw, idTokens, &c.loginKeys)
	if err != nil {
		return nil, err
	}
	if err := c.checkClaims(payload, jwt.WithExpirationRequired()); err != nil {
		return nil, err
	}
	return c.readIDToken(header, payload, accessToken)
}

// readIDToken checks and reads the claims that are specific to ID tokens.
func (c *Client) readIDToken(header jwsHeader, payload claims, accessToken string) (*IDToken, error) {
	if err := c.checkAudiences(payload, idTokens); err != nil {
		return nil, err
	}
	if err := payload.checkAccessTokenHash(header.alg, accessToken); err != nil {
		return nil, err
	}
	return payload.idToken()
}

// checkAudiences refuses a token that names another client as azp, and a token that has
// further audiences but no azp, or audiences that are not trusted: each of them can
// present the token as its own (OpenID Connect Core section 3.1.3.7).
func (c *Client) checkAudiences(p claims, kind jwtKind) error {
	azp := p.optionalText("azp")
	aud, err := p.GetAudience()
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(slices.Clone(aud), func(a string) bool { return a == c.clientID })
	switch {
	case azp != "" && azp != c.clientID:
		return errors.New("the claim azp names another client")
	case azp == "" && len(others) > 0:
		return errors.New("the token has further audiences and no azp")
	}
	for _, a := range others {
		if !slices.Contains(c.trustedAudiences, a) {
			return operatorError{fmt.Errorf("the %s is also for the audience %s: if you trust it, list it in trusted_audiences", kind.name, quote(a))}
		}
	}
	return nil
}

// checkAccessTokenHash compares at_hash, if it exists, with the left half of the
// access token's hash (OpenID Connect Core section 3.1.3.6).
func (p claims) checkAccessTokenHash(alg, accessToken string) error {
	want := p.optionalText("at_hash")
	if want == "" || accessToken == "" {
		return nil
	}
	var sum []byte
	switch {
	case strings.HasSuffix(alg, "256"):
		s := sha256.Sum256([]byte(accessToken))
		sum = s[:]
	case strings.HasSuffix(alg, "384"):
		s := sha512.Sum384([]byte(accessToken))
		sum = s[:]
	default: // the 512s, and EdDSA: Ed25519 uses SHA-512
		s := sha512.Sum512([]byte(accessToken))
		sum = s[:]
	}
	got := base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
	if subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
		return errors.New("the claim at_hash does not match the access token")
	}
	return nil
}

func (p claims) idToken() (*IDToken, error) {
	t := &IDToken{
		Claims: p, SessionID: p.optionalText("sid"),
		AuthTime: p.optionalTime("auth_time"), SessionExpiry: p.optionalTime("session_expiry"),
	}
	var err error
	if t.Subject, err = p.text("sub"); err != nil {
		return nil, err
	}
	if t.Subject == "" || len(t.Subject) > maxSubject {
		return nil, fmt.Errorf("the claim sub must have 1 to %d bytes", maxSubject)
	}
	t.IssuedAt, err = p.time("iat")
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
	if !t.SessionExpiry.IsZero() && !time.Now().Before(t.SessionExpiry) {
		return fmt.Errorf("the claim session_expiry is %d seconds in the past: the session would end at once", int64(time.Since(t.SessionExpiry).Seconds()))
	}
	if want.MaxAge != nil {
		from := want.Requested
		if from.IsZero() {
			from = time.Now()
		}
		// A missing auth_time is the zero time, which is older than any max_age.
		if from.Sub(t.AuthTime) > time.Duration(*want.MaxAge)*time.Second+leeway {
			return errors.New("the claim auth_time is missing or older than max_age")
		}
	}
	if want.ACRValues != "" {
		acr, err := claims(t.Claims).text("acr")
		if err != nil {
			return err
		}
		if !slices.Contains(strings.Fields(want.ACRValues), acr) {
			return errors.New("the claim acr is not one of the requested acr_values")
		}
	}
	return nil
}

// check checks the claims that contradictedClaim does not.
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

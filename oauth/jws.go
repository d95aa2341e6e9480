package oauth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	maxJWT = 16 << 10
	// leeway is how far the server's clock may be off.
	leeway = 60 * time.Second
)

// algorithms are the signature algorithms that are ever accepted: asymmetric
// ones. "none" and HMAC, for which our own client secret would be the key, are
// not among them, whatever the server's metadata says.
var algorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

var (
	errNoKey = errors.New("no key of the server fits the token's kid and alg")
	// errKeysRecent means that the key set was fetched too recently to be
	// fetched again, so that nobody knows whether the key exists.
	errKeysRecent = errors.New("the key set was fetched a moment ago")
)

// claims are the members of a JWT's payload. A map keeps names that differ
// only in case apart, which the decoding into a struct would not.
type claims map[string]json.RawMessage

// jwsHeader is what counts in a JOSE header (RFC 7515 section 4.1). Its other
// members, such as jwk, jku and x5u, are ignored: keys come from the server's
// key set only.
type jwsHeader struct{ alg, kid string }

// verifySignature checks type and signature of a token. What the claims say is
// not checked.
func (c *Client) verifySignature(ctx context.Context, raw string, types []string, budget *fetchBudget) (jwsHeader, claims, error) {
	allowed := c.allowedAlgorithms()
	header, err := parseHeader(raw, allowed, types)
	if err != nil {
		return header, nil, err
	}
	unsigned := strings.HasSuffix(raw, ".") // no key will ever verify it
	before := c.keys.fetches()
	set, err := c.keys.get(ctx)
	if err != nil {
		return header, nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, err)
	}
	for {
		payload, err := checkSignature(raw, header, allowed, set.value)
		noKey := errors.Is(err, errNoKey)
		if err == nil || !noKey && !errors.Is(err, jwt.ErrTokenSignatureInvalid) || unsigned || set.number > before {
			return header, payload, err
		}
		// The server may have rotated its keys. It rarely does so under the same
		// key id: bad signatures leave the last fetch to unknown key ids.
		reserve := 0
		if set.value.has(header.kid) {
			reserve = 1
		}
		newer, renewErr := c.keys.renew(ctx, set, budget, reserve)
		switch {
		case renewErr != nil:
			return header, nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, renewErr)
		case newer == set && noKey:
			return header, nil, fmt.Errorf("%w: %w", err, errKeysRecent)
		case newer == set:
			return header, nil, err
		}
		// A fetch that was under way already may have missed the new key.
		set = newer
	}
}

// allowedAlgorithms narrows algorithms to those the server's metadata lists,
// if it was fetched and lists usable ones.
func (c *Client) allowedAlgorithms() []string {
	if s := c.discovery.peek(); s != nil {
		listed := slices.DeleteFunc(slices.Clone(algorithms), func(alg string) bool {
			return !slices.Contains(s.value.idTokenAlgs, alg)
		})
		if len(listed) > 0 {
			return listed
		}
	}
	return algorithms
}

// parseHeader refuses, before any key is looked for, what is not a signed JWT
// of an expected type, or of none. Access tokens and logout tokens of the same
// server say what they are: at+jwt, logout+jwt.
func parseHeader(raw string, allowed, types []string) (jwsHeader, error) {
	switch dots := strings.Count(raw, "."); {
	case len(raw) > maxJWT:
		return jwsHeader{}, fmt.Errorf("the token is larger than %d bytes", maxJWT)
	case dots == 4:
		return jwsHeader{}, errors.New("the token is encrypted, which is not supported: register the client for signed ones")
	case dots != 2:
		return jwsHeader{}, errors.New("the token is not a signed JWT")
	}
	encoded, _, _ := strings.Cut(raw, ".")
	data, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return jwsHeader{}, errors.New("the token's header is not base64url")
	}
	members, err := parseObject(data)
	if err != nil {
		return jwsHeader{}, errors.New("the token's header is not a JSON object")
	}
	var h jwsHeader
	h.alg, _ = stringMember(members, "alg")
	h.kid, _ = stringMember(members, "kid")
	typ, _ := stringMember(members, "typ")
	switch _, crit := members["crit"]; {
	case !slices.Contains(allowed, h.alg):
		return h, fmt.Errorf("the signature algorithm %s is not allowed", quote(h.alg))
	case crit:
		// RFC 7515 section 4.1.11: extensions that are not understood make
		// the token invalid, and none is understood here.
		return h, errors.New("the token's header has crit")
	case typ != "" && !slices.ContainsFunc(types, func(t string) bool { return strings.EqualFold(t, typ) }):
		return h, fmt.Errorf("the token's type is %s, not %s", quote(typ), types[0])
	}
	return h, nil
}

// checkSignature returns the claims of a token that one of the keys has signed.
func checkSignature(raw string, h jwsHeader, allowed []string, set keySet) (claims, error) {
	keys := set.find(h.kid, h.alg)
	if len(keys) == 0 {
		return nil, errNoKey
	}
	parser := jwt.NewParser(jwt.WithValidMethods(allowed), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
	payload := make(claims)
	_, err := parser.ParseWithClaims(raw, &payload, func(*jwt.Token) (any, error) {
		return jwt.VerificationKeySet{Keys: keys}, nil
	})
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		// Not the error itself: the decoder's errors quote the token.
		return nil, fmt.Errorf("%w: it is not base64url of JSON", jwt.ErrTokenMalformed)
	case err != nil:
		return nil, err
	}
	return payload, nil
}

// checkClaims checks the claims that every token for this client has.
func (c *Client) checkClaims(payload claims) error {
	validator := jwt.NewValidator(
		jwt.WithIssuer(c.issuer),
		jwt.WithAudience(c.clientID),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(leeway),
	)
	if err := validator.Validate(&payload); err != nil {
		return payload.explain(err, c.issuer, time.Now())
	}
	if iat, _ := payload.time("iat"); iat.IsZero() {
		return errors.New("the claim iat is missing")
	}
	return nil
}

// explain adds to an error of the validator what the operator needs to know.
func (p claims) explain(err error, issuer string, now time.Time) error {
	seconds := func(name string) int64 {
		t, _ := numericDate(p[name])
		return int64(now.Sub(t).Seconds())
	}
	const hint = "clock skew of more than 60 seconds? Compare this host's clock with the server's"
	switch {
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		got, _ := p.GetIssuer()
		return fmt.Errorf("the token's issuer is %s, but the option issuer says %s", quote(got), quote(issuer))
	case errors.Is(err, jwt.ErrTokenExpired):
		return fmt.Errorf("%w: it expired %d seconds ago; %s", jwt.ErrTokenExpired, seconds("exp"), hint)
	case errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return fmt.Errorf("%w: it is issued %d seconds in the future; %s", jwt.ErrTokenUsedBeforeIssued, -seconds("iat"), hint)
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return fmt.Errorf("%w: it is valid in %d seconds; %s", jwt.ErrTokenNotValidYet, -seconds("nbf"), hint)
	}
	return err
}

// text returns a claim that must be a string if it is there; null counts as
// missing.
func (p claims) text(name string) (string, error) {
	raw, ok := p[name]
	if !ok || string(raw) == "null" {
		return "", nil
	}
	s, ok := stringMember(p, name)
	if !ok {
		return "", fmt.Errorf("the claim %s is not a string", name)
	}
	return s, nil
}

// time returns a claim that must be a NumericDate if it is there, else the zero
// time. Some servers write auth_time 0 for a time they do not know; that, too,
// is the zero time.
func (p claims) time(name string) (time.Time, error) {
	raw, ok := p[name]
	if !ok {
		return time.Time{}, nil
	}
	t, err := numericDate(raw)
	if err != nil {
		return time.Time{}, fmt.Errorf("the claim %s %w", name, err)
	}
	if t.Unix() == 0 {
		return time.Time{}, nil
	}
	return t, nil
}

func (p claims) date(name string) (*jwt.NumericDate, error) {
	t, err := p.time(name)
	if err != nil || t.IsZero() {
		return nil, err
	}
	return jwt.NewNumericDate(t), nil
}

// The methods of jwt.Claims, through which the parser reads.

func (p claims) GetExpirationTime() (*jwt.NumericDate, error) { return p.date("exp") }
func (p claims) GetIssuedAt() (*jwt.NumericDate, error)       { return p.date("iat") }
func (p claims) GetNotBefore() (*jwt.NumericDate, error)      { return p.date("nbf") }
func (p claims) GetIssuer() (string, error)                   { return p.text("iss") }
func (p claims) GetSubject() (string, error)                  { return p.text("sub") }

func (p claims) GetAudience() (jwt.ClaimStrings, error) {
	if s, ok := stringMember(p, "aud"); ok {
		return jwt.ClaimStrings{s}, nil
	}
	raw, ok := p["aud"]
	if !ok {
		return nil, nil
	}
	var list []string
	if json.Unmarshal(raw, &list) != nil {
		return nil, errors.New("the claim aud is neither a string nor a list of strings")
	}
	return list, nil
}

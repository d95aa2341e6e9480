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

// leeway is the accepted difference between the server's clock and the local one.
const leeway = 60 * time.Second

// jwtKind says which JWTs are accepted in one place.
type jwtKind struct {
	// name is for errors.
	name string
	// types are the accepted values of typ in the header; typ may also be missing.
	types []string
	// maxSize is in bytes.
	maxSize int
}

var (
	errNoKey = errors.New("no key of the server matches the token's kid and alg")
	// errRecentlyFetched means that the budget allows no fetch of the key set now, so
	// that it is unknown whether the server has the key.
	errRecentlyFetched = errors.New("the key set was fetched recently")
)

// claims are the members of a JWT's payload. Unlike decoding into a struct, a map
// distinguishes names that differ only in case.
type claims map[string]json.RawMessage

// jwsHeader holds the used members of a JOSE header (RFC 7515 section 4.1). Others,
// such as jwk, jku and x5u, are ignored: keys come from the server's key set only.
type jwsHeader struct{ alg, kid string }

// verifySignature checks the type, the algorithm and the signature of a token. It
// fetches the server's keys again if no key matches and the budget allows it. It does
// not check the claims.
func (c *Client) verifySignature(ctx context.Context, raw string, kind jwtKind, budget *fetchBudget) (jwsHeader, claims, error) {
	header, err := parseHeader(raw, kind)
	if err == nil {
		err = c.checkAlgorithm(ctx, header.alg, kind)
	}
	if err != nil {
		return header, nil, err
	}
	payload, err := verifyWithKeys(ctx, raw, header, c.keys, budget)
	return header, payload, err
}

// verifyWithKeys returns the claims of a token whose header parseHeader has accepted,
// if a key of the cached set has signed it.
func verifyWithKeys(ctx context.Context, raw string, header jwsHeader, keys *cache[keySet], budget *fetchBudget) (claims, error) {
	unsigned := strings.HasSuffix(raw, ".") // no new key can verify it
	before := keys.fetchCount()
	set, err := keys.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, err)
	}
	for {
		payload, err := checkSignature(raw, header, set.value)
		noKey := errors.Is(err, errNoKey)
		if err == nil || !noKey && !errors.Is(err, jwt.ErrTokenSignatureInvalid) || unsigned || set.number > before {
			return payload, err
		}
		// The server may have rotated its keys, but rarely keeps the key id. So bad
		// signatures of a known key leave the last fetch to unknown key ids.
		reserve := 0
		if set.value.hasKeyID(header.kid) {
			reserve = 1
		}
		// A key without an id may have replaced another one.
		unknown := noKey || header.kid != "" && !set.value.hasKeyID(header.kid)
		newer, renewErr := keys.renew(ctx, set, budget, reserve)
		switch {
		case renewErr != nil:
			return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, renewErr)
		case newer == set && unknown:
			return nil, fmt.Errorf("%w: %w", err, errRecentlyFetched)
		case newer == set:
			return nil, err
		}
		// A fetch that ran before this call may have missed the new key.
		set = newer
	}
}

// parseHeader reads the header, and refuses tokens that no key can make valid. The
// header must have one of the types of the kind, or no typ. This distinguishes ID
// tokens from access tokens (at+jwt) and logout tokens (logout+jwt) of the same
// server.
func parseHeader(raw string, kind jwtKind) (jwsHeader, error) {
	switch dots := strings.Count(raw, "."); {
	case len(raw) > kind.maxSize:
		return jwsHeader{}, fmt.Errorf("the token is larger than %d bytes", kind.maxSize)
	case dots == 4:
		return jwsHeader{}, errEncrypted
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
	if err := checkSupported(h.alg); err != nil {
		return h, err
	}
	switch _, crit := members["crit"]; {
	case crit:
		// RFC 7515 section 4.1.11: extensions that the client does not implement make
		// the token invalid. It implements none.
		return h, errors.New("the token's header has crit")
	case typ != "" && !slices.ContainsFunc(kind.types, func(t string) bool { return strings.EqualFold(t, typ) }):
		return h, fmt.Errorf("the token's type is %s, not %s", quote(typ), kind.types[0])
	}
	return h, nil
}

// checkSignature returns the claims of a token if one of the keys has signed it.
func checkSignature(raw string, h jwsHeader, set keySet) (claims, error) {
	keys := set.candidates(h.kid, h.alg)
	if len(keys) == 0 {
		return nil, errNoKey
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{h.alg}), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
	payload := make(claims)
	_, err := parser.ParseWithClaims(raw, &payload, func(*jwt.Token) (any, error) {
		return jwt.VerificationKeySet{Keys: keys}, nil
	})
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		// The decoder's errors quote the token.
		return nil, fmt.Errorf("%w: it is not base64url of JSON", jwt.ErrTokenMalformed)
	case err != nil:
		return nil, err
	}
	return payload, nil
}

// checkClaims checks the claims that ID tokens and logout tokens share: iss, aud,
// exp, iat and nbf. Only exp may be missing; the caller decides with options.
func (c *Client) checkClaims(payload claims, options ...jwt.ParserOption) error {
	validator := jwt.NewValidator(append(options,
		jwt.WithIssuer(c.issuer),
		jwt.WithAudience(c.clientID),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(leeway),
	)...)
	if err := validator.Validate(&payload); err != nil {
		return payload.explain(err, c.issuer, time.Now())
	}
	if iat, _ := payload.time("iat"); iat.IsZero() {
		return errors.New("the claim iat is missing")
	}
	return nil
}

// explain adds to an error of the validator the values that the operator needs.
func (p claims) explain(err error, issuer string, now time.Time) error {
	seconds := func(name string) int64 {
		t, _ := parseNumericDate(p[name])
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

// text returns a claim that must be a string. It returns "" for null and for a
// missing claim.
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

// optionalText is text for a claim that need not exist. It counts a value of another
// type as missing, because it says nothing about the token.
func (p claims) optionalText(name string) string {
	s, _ := p.text(name)
	return s
}

// optionalTime is time for a claim that need not exist. It counts a value that is no
// NumericDate as missing.
func (p claims) optionalTime(name string) time.Time {
	t, _ := p.time(name)
	return t
}

// time returns a claim that must be a NumericDate. It returns the zero time for a
// missing claim, and for 0, which some servers send as auth_time if they do not know
// it.
func (p claims) time(name string) (time.Time, error) {
	raw, ok := p[name]
	if !ok {
		return time.Time{}, nil
	}
	t, err := parseNumericDate(raw)
	if err != nil {
		return time.Time{}, fmt.Errorf("the claim %s %w", name, err)
	}
	if t.Unix() == 0 {
		return time.Time{}, nil
	}
	return t, nil
}

func (p claims) numericDate(name string) (*jwt.NumericDate, error) {
	t, err := p.time(name)
	if err != nil || t.IsZero() {
		return nil, err
	}
	return jwt.NewNumericDate(t), nil
}

// The methods of jwt.Claims.

func (p claims) GetExpirationTime() (*jwt.NumericDate, error) { return p.numericDate("exp") }
func (p claims) GetIssuedAt() (*jwt.NumericDate, error)       { return p.numericDate("iat") }
func (p claims) GetIssuer() (string, error)                   { return p.text("iss") }
func (p claims) GetSubject() (string, error)                  { return p.text("sub") }

// GetNotBefore is the only one for an optional claim.
func (p claims) GetNotBefore() (*jwt.NumericDate, error) {
	if t := p.optionalTime("nbf"); !t.IsZero() {
		return jwt.NewNumericDate(t), nil
	}
	return nil, nil
}

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

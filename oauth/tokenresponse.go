package oauth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Limits of a token response.
const (
	maxToken = 64 << 10 // bytes
	// maxLifetime is the longest accepted lifetime. Longer ones are mistakes, such
	// as nanoseconds in place of seconds, or mean "for ever".
	maxLifetime = 10 * 365 * 24 * time.Hour
)

// TokenResponse holds the usable members of a successful token response (RFC
// 6749 section 5.1).
type TokenResponse struct {
	// AccessToken is not empty, and safe to put into a header: printable
	// ASCII without spaces, at most 64 KiB.
	AccessToken string

	// RefreshToken is empty if the response has none. A refresh token that was
	// redeemed then stays valid.
	RefreshToken string

	// IDToken is the unverified ID token, or empty.
	IDToken string

	// Sent is when the request was sent. All lifetimes count from this moment.
	Sent time.Time

	// Expires is when the access token expires. It comes from expires_in or else
	// from the unverified claim exp of an access token that is a JWT. Zero means
	// unknown: the server sent neither, or no lifetime between zero and ten years.
	Expires time.Time

	// RefreshExpires is when the refresh token expires: the one of the response, or else
	// the one of the request. It is the earliest of the times in refreshLifetimes. Zero
	// means unknown, as for Expires.
	RefreshExpires time.Time
}

// refreshLifetimes are the members that limit the refresh token, in seconds:
// refresh_token_timeout and authorization_expires_in
// (draft-ietf-oauth-refresh-token-expiration), refresh_expires_in (Keycloak) and
// refresh_token_expires_in (many other servers).
var refreshLifetimes = []string{"refresh_token_timeout", "authorization_expires_in", "refresh_expires_in", "refresh_token_expires_in"}

// parseTokenResponse reads a response with status 2xx, as JSON or as a form (see
// response.members). It reads each member separately, so that an invalid one does not affect the others. The last of
// members with the same name counts. If the tokens are unusable except for the
// refresh token, it returns that token together with the error.
func parseTokenResponse(r response) (*TokenResponse, error) {
	members, err := r.members()
	if members == nil {
		return nil, malformedError(tokenEndpoint, r.status, err)
	}
	t := &TokenResponse{
		Sent:           r.sent,
		RefreshToken:   opaqueToken(members, "refresh_token"),
		RefreshExpires: earliestExpiry(r.sent, members, refreshLifetimes),
	}
	if err != nil {
		err = malformedError(tokenEndpoint, r.status, err)
	} else if code, _ := stringMember(members, "error"); code != "" {
		err = responseError(tokenEndpoint, r)
		if access, _ := stringMember(members, "access_token"); access != "" || t.RefreshToken != "" {
			// The response contradicts itself, so it proves nothing about the grant.
			err = malformedError(tokenEndpoint, r.status, errors.New("the response has both an error and tokens"))
		}
	} else if e := t.readTokens(members, r.sent); e != nil {
		err = malformedError(tokenEndpoint, r.status, e)
	}
	switch {
	case err == nil:
		return t, nil
	case t.RefreshToken == "":
		return nil, err
	}
	return &TokenResponse{RefreshToken: t.RefreshToken, RefreshExpires: t.RefreshExpires}, err
}

func (t *TokenResponse) readTokens(members map[string]json.RawMessage, sent time.Time) error {
	if err := checkTokenType(members["token_type"]); err != nil {
		return err
	}
	t.AccessToken, _ = stringMember(members, "access_token")
	if err := checkAccessToken(t.AccessToken); err != nil {
		return err
	}
	t.IDToken = readIDToken(members)
	t.Expires = expiry(sent, members, "expires_in")
	if t.Expires.IsZero() {
		t.Expires = jwtExpiry(t.AccessToken, sent)
	}
	return nil
}

// checkTokenType accepts "Bearer" in any case, and a missing token_type. RFC 6749
// section 7.1: a client must not use a token whose type it does not understand.
func checkTokenType(raw json.RawMessage) error {
	var tokenType *string
	if raw == nil {
		return nil
	}
	if json.Unmarshal(raw, &tokenType) != nil {
		return errors.New("the token_type is not a string")
	}
	if tokenType == nil || *tokenType == "" || strings.EqualFold(*tokenType, "bearer") {
		return nil
	}
	return errors.New("the token_type is not Bearer")
}

// checkAccessToken accepts characters that are valid after "Bearer " in a header.
// These are more than those of a b64token (RFC 6750 section 2.1), because some
// servers use more.
func checkAccessToken(token string) error {
	switch {
	case token == "":
		return errors.New("the response has no access_token")
	case len(token) > maxToken:
		return errors.New("the access_token is too long")
	case !isPrintable(token) || strings.Contains(token, " "):
		return errors.New("the access_token has characters that are not allowed")
	}
	return nil
}

// readIDToken reads the ID token. It cuts one that is too large, so that the
// verification refuses it with the reason; as a missing one it would mislead.
func readIDToken(members map[string]json.RawMessage) string {
	token, _ := stringMember(members, "id_token")
	if !isPrintable(token) {
		return ""
	}
	return token[:min(len(token), maxToken+1)]
}

// opaqueToken reads a token that the client only sends back in a form. It may
// contain spaces (RFC 6749 appendix A.17). An unusable one counts as missing.
func opaqueToken(members map[string]json.RawMessage, name string) string {
	token, _ := stringMember(members, name)
	if len(token) > maxToken || !isPrintable(token) {
		return ""
	}
	return token
}

// expiry reads a member that is a lifetime in seconds. The number may be a string, and
// may have a fraction.
func expiry(sent time.Time, members map[string]json.RawMessage, name string) time.Time {
	text := string(members[name])
	if s, ok := stringMember(members, name); ok {
		text = strings.TrimSpace(s)
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err == nil && seconds > 0 && seconds <= maxLifetime.Seconds() {
		return sent.Add(time.Duration(seconds * float64(time.Second)))
	}
	return time.Time{}
}

// earliestExpiry reads several lifetimes and returns the end of the shortest.
func earliestExpiry(sent time.Time, members map[string]json.RawMessage, names []string) (earliest time.Time) {
	for _, name := range names {
		if t := expiry(sent, members, name); !t.IsZero() && (earliest.IsZero() || t.Before(earliest)) {
			earliest = t
		}
	}
	return earliest
}

// jwtExpiry reads the claim exp of an access token that is a JWT. It does not
// verify the signature, because the result decides only when to refresh. If the
// token has iat, the lifetime counts from sent, by the local clock. An earlier exp
// wins, because a server may send a token that it issued before.
func jwtExpiry(token string, sent time.Time) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	members, err := parseObject(payload)
	if err != nil {
		return time.Time{}
	}
	exp, err := parseNumericDate(members["exp"])
	if err != nil || exp.After(sent.Add(maxLifetime)) {
		return time.Time{}
	}
	if iat, err := parseNumericDate(members["iat"]); err == nil && iat.Before(exp) {
		// An exp in the past comes from a slow clock of the server.
		byLifetime := sent.Add(exp.Sub(iat))
		if byLifetime.After(sent.Add(maxLifetime)) && !exp.After(sent) {
			return time.Time{}
		}
		if byLifetime.Before(exp) || !exp.After(sent) {
			return byLifetime
		}
	}
	return exp
}

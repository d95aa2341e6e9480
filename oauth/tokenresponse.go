package oauth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Limits of what is taken over from a token response.
const (
	maxToken = 64 << 10
	// maxLifetime is the longest lifetime that is believed. Longer ones are
	// mistakes, such as nanoseconds in place of seconds, or mean "for ever".
	maxLifetime = 10 * 365 * 24 * time.Hour
)

// TokenResponse is a successful answer of the token endpoint (RFC 6749 section
// 5.1), as far as it is usable.
type TokenResponse struct {
	// AccessToken is not empty, and safe to put into a header: printable
	// ASCII without spaces, at most 64 KiB.
	AccessToken string

	// RefreshToken is empty if the answer has none; then a refresh token that
	// was redeemed stays valid.
	RefreshToken string

	// IDToken is as the server sent it, not verified, or empty.
	IDToken string

	// Sent is when the request was sent, from which all lifetimes count.
	Sent time.Time

	// Expires is when the access token expires, counted from the moment of
	// sending the request. It comes from expires_in or else from the claim exp
	// of an access token that is a JWT, unverified. Zero means not told: there
	// is neither, or none that is positive and at most ten years.
	Expires time.Time

	// RefreshExpires is when the refresh token expires, from
	// refresh_expires_in or refresh_token_expires_in, read like Expires.
	RefreshExpires time.Time
}

// parseTokenResponse reads an answer with status 2xx. Each member is read on
// its own, so that an odd one costs only itself; of members with the same name
// the last counts. If the tokens are not usable but there is a refresh token,
// it returns that one and the error.
func parseTokenResponse(a answer) (*TokenResponse, error) {
	members, err := parseObject(a.body)
	if members == nil {
		return nil, malformed(tokenEndpoint, a.status, err)
	}
	t := &TokenResponse{
		Sent:           a.sent,
		RefreshToken:   opaqueToken(members, "refresh_token"),
		RefreshExpires: expiry(a.sent, members, "refresh_expires_in", "refresh_token_expires_in"),
	}
	if err != nil {
		err = malformed(tokenEndpoint, a.status, err)
	} else if code, _ := stringMember(members, "error"); code != "" {
		err = answerError(tokenEndpoint, a)
		if access, _ := stringMember(members, "access_token"); access != "" || t.RefreshToken != "" {
			// It contradicts itself, and so proves nothing about the grant.
			err = malformed(tokenEndpoint, a.status, errors.New("the answer has both an error and tokens"))
		}
	} else if e := t.readTokens(members, a.sent); e != nil {
		err = malformed(tokenEndpoint, a.status, e)
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
	t.IDToken = opaqueToken(members, "id_token")
	t.Expires = expiry(sent, members, "expires_in")
	if t.Expires.IsZero() {
		t.Expires = jwtExpiry(t.AccessToken, sent)
	}
	return nil
}

// checkTokenType accepts "Bearer" in any case, and its absence. RFC 6749
// section 7.1: a token of a type that is not understood must not be used.
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

// checkAccessToken demands what can stand after "Bearer " in a header. That is
// a little more than the b64token of RFC 6750 section 2.1, because servers are.
func checkAccessToken(token string) error {
	switch {
	case token == "":
		return errors.New("the answer has no access_token")
	case len(token) > maxToken:
		return errors.New("the access_token is too long")
	case !printable(token) || strings.Contains(token, " "):
		return errors.New("the access_token has characters that do not belong there")
	}
	return nil
}

// opaqueToken reads a token that is only sent back in a form. Spaces are legal
// in it (RFC 6749 appendix A.17). One that is not usable counts as missing.
func opaqueToken(members map[string]json.RawMessage, name string) string {
	token, _ := stringMember(members, name)
	if len(token) > maxToken || !printable(token) {
		return ""
	}
	return token
}

// expiry reads the first of the named members that tells a lifetime in
// seconds. Numbers come as strings and with fractions too.
func expiry(sent time.Time, members map[string]json.RawMessage, names ...string) time.Time {
	for _, name := range names {
		text := string(members[name])
		if s, ok := stringMember(members, name); ok {
			text = strings.TrimSpace(s)
		}
		seconds, err := strconv.ParseFloat(text, 64)
		if err == nil && seconds > 0 && seconds <= maxLifetime.Seconds() {
			return sent.Add(time.Duration(seconds * float64(time.Second)))
		}
	}
	return time.Time{}
}

// jwtExpiry reads the claim exp of an access token, if it is a JWT: only to
// know when to refresh, so the signature does not matter. With iat the
// lifetime is counted on our clock; exp itself counts if it is earlier, since
// a server may hand out a token it made before.
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
	exp, err := numericDate(members["exp"])
	if err != nil || exp.After(sent.Add(maxLifetime)) {
		return time.Time{}
	}
	if iat, err := numericDate(members["iat"]); err == nil && iat.Before(exp) {
		// An exp that is over already is that of a slow clock.
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

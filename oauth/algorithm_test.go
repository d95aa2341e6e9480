package oauth

import (
	"errors"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

func withAlgorithm(alg string) func(*Config) {
	return func(c *Config) { c.IDTokenAlgorithm = alg }
}

// TestOneSignatureAlgorithmIsAccepted: a token with any other algorithm than the
// registered one is refused, although the server has a key for it. What the metadata
// lists does not register the client, except if it lists a single algorithm.
func TestOneSignatureAlgorithmIsAccepted(t *testing.T) {
	methods := []struct {
		method jwt.SigningMethod
		key    any
		kid    string
	}{
		{jwt.SigningMethodRS256, rsaKey(), "r"}, {jwt.SigningMethodRS512, rsaKey(), "r"}, {jwt.SigningMethodPS256, rsaKey(), "r"},
		{jwt.SigningMethodES256, keyA(), "a"}, {jwt.SigningMethodES384, key384(), "e"}, {jwt.SigningMethodEdDSA, edKey(), "d"},
		{jwt.SigningMethodHS256, []byte(testSecret), "r"},
	}
	for name, tc := range map[string]struct {
		listed     any
		configured string
		want       string
	}{
		"not listed":              {nil, "", "RS256"},
		"listed first":            {[]string{"RS256", "ES256"}, "", "RS256"},
		"listed last":             {[]string{"ES256", "PS256", "RS256"}, "", "RS256"},
		"one listed":              {[]string{"ES384"}, "", "ES384"},
		"one listed twice":        {[]string{"EdDSA", "EdDSA"}, "", "EdDSA"},
		"one usable":              {[]string{"none", "HS256", "ES256"}, "", "ES256"},
		"several others listed":   {[]string{"ES256", "PS256"}, "", "RS256"},
		"nothing usable":          {[]string{"none", "HS256"}, "", "RS256"},
		"of another type":         {"ES256", "", "RS256"},
		"configured":              {[]string{"RS256", "ES256"}, "ES256", "ES256"},
		"configured, one listed":  {[]string{"RS256"}, "PS256", "PS256"},
		"configured, none listed": {nil, "EdDSA", "EdDSA"},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			s.setKeys(publicJWK(rsaKey(), "r"), publicJWK(keyA(), "a"), publicJWK(key384(), "e"), publicJWK(edKey(), "d"))
			s.metadata = edit(s.metadata, "id_token_signing_alg_values_supported", tc.listed)
			c := s.client(withAlgorithm(tc.configured))
			for _, m := range methods {
				alg := m.method.Alg()
				_, err := c.VerifyIDToken(testContext(t), sign(m.method, m.key, s.idClaims(), "kid", m.kid), IDTokenExpectation{Nonce: testNonce})
				checkAlgorithmError(t, "ID token "+alg, err, alg == tc.want)
				_, err = c.VerifyRefreshedIDToken(testContext(t), sign(m.method, m.key, s.idClaims(), "kid", m.kid), RefreshedIDTokenExpectation{Subject: "alice"})
				checkAlgorithmError(t, "refreshed ID token "+alg, err, alg == tc.want)
				_, err = c.VerifyLogoutToken(testContext(t), sign(m.method, m.key, s.logoutClaims(), "kid", m.kid))
				checkAlgorithmError(t, "logout token "+alg, err, alg == tc.want)
			}
		})
	}
}

// checkAlgorithmError fails the test unless a token was accepted as wanted, or refused
// with an error that names the option and asks for an operator.
func checkAlgorithmError(t *testing.T, token string, err error, accepted bool) {
	t.Helper()
	if (err == nil) != accepted {
		t.Errorf("%s: got error %v, want accepted: %v", token, err, accepted)
	}
	if err != nil && (!NeedsOperator(err) || errors.Is(err, ErrKeysUnavailable) || !strings.Contains(err.Error(), "id_token_signed_response_alg")) {
		t.Errorf("%s: got error %v, want one that names id_token_signed_response_alg", token, err)
	}
}

// TestForgedAlgorithmFetchesNoKeys: a token that no key may have signed causes no fetch.
func TestForgedAlgorithmFetchesNoKeys(t *testing.T) {
	s := startServer(t)
	c := s.client(withAlgorithm("ES256"))
	for _, token := range []string{
		sign(jwt.SigningMethodRS256, rsaKey(), s.logoutClaims(), "kid", "x"), sign(jwt.SigningMethodEdDSA, edKey(), s.logoutClaims(), "kid", "x"),
	} {
		if _, err := c.VerifyLogoutToken(testContext(t), token); err == nil || s.count("/jwks") != 0 {
			t.Errorf("got error %v and %d fetches, want an error without a fetch", err, s.count("/jwks"))
		}
	}
}

// TestAudiencesMustBeTrusted: a token with further audiences is accepted only if each of
// them is trusted and azp names this client.
func TestAudiencesMustBeTrusted(t *testing.T) {
	s := startServer(t)
	tests := []struct {
		name    string
		aud     any
		azp     any
		trusted []string
		want    string // in the error; "" = accepted
	}{
		{"this client alone", testClient, nil, nil, ""},
		{"list with this client alone", []string{testClient, testClient}, nil, nil, ""},
		{"not trusted", []string{testClient, "api"}, testClient, nil, "trusted_audiences"},
		{"trusted", []string{testClient, "api"}, testClient, []string{"api"}, ""},
		{"trusted, in the other order", []string{"api", testClient}, testClient, []string{"x", "api"}, ""},
		{"one of two trusted", []string{testClient, "api", "eve"}, testClient, []string{"api"}, `audience "eve": if you trust it, list it in trusted_audiences`},
		{"all trusted", []string{testClient, "api", "eve"}, testClient, []string{"api", "eve"}, ""},
		{"in another case", []string{testClient, "API"}, testClient, []string{"api"}, "trusted_audiences"},
		{"trusted without azp", []string{testClient, "api"}, nil, []string{"api"}, "no azp"},
		{"trusted, azp of the other", []string{testClient, "api"}, "api", []string{"api"}, "azp names another client"},
		{"trusted alone", "api", nil, []string{"api"}, "audience"},
		{"empty audience", []string{testClient, ""}, testClient, nil, "trusted_audiences"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			c := s.client(func(c *Config) { c.TrustedAudiences = tc.trusted })
			_, idErr := c.VerifyIDToken(testContext(t), s.idToken("aud", tc.aud, "azp", tc.azp), IDTokenExpectation{Nonce: testNonce})
			_, logoutErr := c.VerifyLogoutToken(testContext(t), s.logoutToken("aud", tc.aud, "azp", tc.azp))
			for token, err := range map[string]error{"ID token": idErr, "logout token": logoutErr} {
				switch {
				case tc.want == "" && err != nil:
					t.Errorf("%s: got error %v, want it accepted", token, err)
				case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
					t.Errorf("%s: got error %v, want one with %q", token, err, tc.want)
				case NeedsOperator(err) != strings.Contains(tc.want, "trusted"):
					t.Errorf("%s: got NeedsOperator %v for %v", token, NeedsOperator(err), err)
				}
			}
		})
	}
}

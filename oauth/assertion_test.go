package oauth

import (
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// receivedAssertion is a verified client assertion.
type receivedAssertion struct{ header, claims map[string]any }

// lastAssertion verifies the assertion in the last form with go-jose, which shares no
// code with the signer. It needs a key that the client publishes.
func (s *server) lastAssertion(c *Client) receivedAssertion {
	s.t.Helper()
	form, _ := s.lastPost()
	var keys []jose.JSONWebKey
	if c.keyFile != nil {
		keys = publishedKeys(s.t, c)
	}
	got, err := verifyAssertion(form, keys)
	if err != nil {
		s.t.Fatalf("verifying the assertion: got error %v", err)
	}
	return got
}

// verifyAssertion checks the parameters and the signature of an assertion.
func verifyAssertion(form url.Values, keys []jose.JSONWebKey) (got receivedAssertion, err error) {
	if kind := form.Get("client_assertion_type"); kind != jwtBearer || form.Has("client_secret") || form.Get("client_id") != testClient {
		return got, fmt.Errorf("got client_assertion_type %q, client_id %q, client_secret %v; want %s, the client_id and no secret",
			kind, form.Get("client_id"), form.Has("client_secret"), jwtBearer)
	}
	raw := form.Get("client_assertion")
	part, _, _ := strings.Cut(raw, ".")
	if err := json.Unmarshal(must(base64.RawURLEncoding.DecodeString(part)), &got.header); err != nil {
		return got, err
	}
	payload, err := verifyWithJOSE(raw, got.header, keys)
	if err != nil {
		return got, err
	}
	return got, json.Unmarshal(payload, &got.claims)
}

func verifyWithJOSE(raw string, header map[string]any, keys []jose.JSONWebKey) ([]byte, error) {
	alg, _ := header["alg"].(string)
	if alg == "HS256" {
		jws, err := jose.ParseSigned(raw, []jose.SignatureAlgorithm{jose.HS256})
		if err != nil {
			return nil, err
		}
		return jws.Verify([]byte(testSecret))
	}
	set := jose.JSONWebKeySet{Keys: keys}
	kid, _ := header["kid"].(string)
	found := set.Key(kid)
	if len(found) != 1 {
		return nil, errors.New("kid is not that of one published key")
	}
	if alg == "Ed25519" { // RFC 9864, unknown to go-jose
		end := strings.LastIndexByte(raw, '.')
		signed, signature := raw[:end], raw[end+1:]
		if !ed25519.Verify(found[0].Key.(ed25519.PublicKey), []byte(signed), must(base64.RawURLEncoding.DecodeString(signature))) {
			return nil, errors.New("wrong signature")
		}
		_, payload, _ := strings.Cut(signed, ".")
		return base64.RawURLEncoding.DecodeString(payload)
	}
	jws, err := jose.ParseSigned(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		return nil, err
	}
	return jws.Verify(found[0].Key)
}

// TestAssertionAlgorithmFitsTheKey: the key and the server's metadata decide, and the alg
// of a JWK overrides both where the key can.
func TestAssertionAlgorithmFitsTheKey(t *testing.T) {
	all := []string{"RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "HS256"}
	for name, tc := range map[string]struct {
		content string
		listed  []string // nil: not in the metadata
		want    string
		fails   string
	}{
		"RSA":                               {content: pkcs8(rsaKey()), want: "RS256"},
		"RSA, all":                          {content: pkcs8(rsaKey()), listed: all, want: "PS256"},
		"RSA, RS256":                        {content: pkcs8(rsaKey()), listed: []string{"HS256", "RS256"}, want: "RS256"},
		"RSA, PS512":                        {content: pkcs8(rsaKey()), listed: []string{"PS512"}, want: "PS512"},
		"RSA, RS384":                        {content: pkcs8(rsaKey()), listed: []string{"RS384", "RS512"}, want: "RS384"},
		"RSA, ES256 only":                   {content: pkcs8(rsaKey()), listed: []string{"ES256"}, fails: `lists \"ES256\"`},
		"RSA, alg of the JWK":               {content: asJSON(privateJWK(rsaKey(), "alg", "RS512")), listed: all, want: "RS512"},
		"P-256":                             {content: pkcs8(keyA()), listed: all, want: "ES256"},
		"P-256, not listed":                 {content: pkcs8(keyA()), listed: []string{"RS256"}, fails: "signs with ES256"},
		"P-256, not listed, alg of the JWK": {content: asJSON(privateJWK(keyA(), "alg", "ES256")), listed: []string{"RS256"}, want: "ES256"},
		"P-384":                             {content: pkcs8(key384()), want: "ES384"},
		"P-521":                             {content: pkcs8(key521()), want: "ES512"},
		"Ed25519":                           {content: pkcs8(edKey()), want: "EdDSA"},
		"Ed25519, all":                      {content: pkcs8(edKey()), listed: all, want: "EdDSA"},
		"Ed25519, new name":                 {content: pkcs8(edKey()), listed: []string{"ES256", "Ed25519"}, want: "Ed25519"},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			if tc.listed != nil {
				s.metadata["token_endpoint_auth_signing_alg_values_supported"] = tc.listed
			}
			s.respond("/token", 200, goodTokens)
			path := keyFileOf(t, tc.content)
			c := s.client(withKey(path))
			_, err := c.Refresh(testContext(t), testRefresh, nil)
			if tc.fails != "" {
				e, ok := errors.AsType[*TokenError](err)
				if !ok || e.Kind != Misconfigured || !strings.Contains(err.Error(), strings.ReplaceAll(tc.fails, `\`, "")) ||
					!strings.Contains(err.Error(), "client_key "+path) || s.count("/token") != 0 {
					t.Fatalf("got error %v, want %v with %q and the file, and nothing sent", err, Misconfigured, tc.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := s.lastAssertion(c).header["alg"]; got != tc.want {
				t.Errorf("got alg %v, want %s", got, tc.want)
			}
			if got := c.Registration().AuthSigningAlg; got != tc.want {
				t.Errorf("got registered algorithm %q, want %s", got, tc.want)
			}
		})
	}
}

// assertionCalls are all calls that authenticate the client.
func assertionCalls(t *testing.T, c *Client) map[string]func() error {
	return map[string]func() error{
		"code":    func() error { _, err := c.RedeemCode(testContext(t), testCode, testVerifier, testRedirect); return err },
		"refresh": func() error { _, err := c.Refresh(testContext(t), testRefresh, nil); return err },
		"revoke":  func() error { return c.Revoke(testContext(t), testRefresh, "refresh_token") },
		"push":    func() error { _, err := c.AuthorizationURL(testContext(t), goodRequest()); return err },
	}
}

func serveAllCalls(s *server) {
	s.respond("/token", 200, goodTokens)
	s.respond("/revoke", 200, "")
	s.respond("/par", 201, `{"request_uri":"urn:x:1","expires_in":60}`)
}

// TestAssertionHasTheFormOfTheStandard: every call sends a new assertion about the
// client, in the form of the draft rfc7523bis or, on demand, in the older one.
func TestAssertionHasTheFormOfTheStandard(t *testing.T) {
	for _, tc := range []struct {
		name, audience, typ string
		wantAudience        func(*server) string
	}{
		{"default", "", "client-authentication+jwt", func(s *server) string { return s.issuer }},
		{"issuer", "issuer", "client-authentication+jwt", func(s *server) string { return s.issuer }},
		{"token endpoint", "token_endpoint", "JWT", func(s *server) string { return s.issuer + "/token" }},
	} {
		for _, method := range []string{"private_key_jwt", "client_secret_jwt"} {
			t.Run(tc.name+", "+method, func(t *testing.T) {
				s := startServer(t)
				serveAllCalls(s)
				c := s.client(func(cfg *Config) {
					if method == "private_key_jwt" {
						withKey(keyFileOf(t, pkcs8(keyA())))(cfg)
					}
					cfg.AuthMethod, cfg.AssertionAudience = method, tc.audience
					cfg.Endpoints.PushedAuthorizationRequest = s.issuer + "/par"
				})
				seen := map[any]bool{}
				for name, call := range assertionCalls(t, c) {
					if err := call(); err != nil {
						t.Fatalf("%s: got error %v", name, err)
					}
					form, header := s.lastPost()
					got := s.lastAssertion(c)
					if header.Get("Authorization") != "" || got.header["typ"] != tc.typ {
						t.Errorf("%s: got Authorization %q, typ %v; want none and %s", name, header.Get("Authorization"), got.header["typ"], tc.typ)
					}
					checkAssertionClaims(t, got.claims, tc.wantAudience(s))
					if jti := got.claims["jti"]; seen[jti] {
						t.Errorf("%s: got jti %v a second time", name, jti)
					} else {
						seen[jti] = true
					}
					if name == "push" && form.Get("code_challenge") == "" {
						t.Errorf("got pushed request %v, want the authorization request", form)
					}
				}
			})
		}
	}
}

func checkAssertionClaims(t *testing.T, claims map[string]any, audience string) {
	t.Helper()
	if claims["iss"] != testClient || claims["sub"] != testClient || claims["aud"] != audience {
		t.Errorf("got iss %v, sub %v, aud %v; want the client twice, and %s as a string", claims["iss"], claims["sub"], claims["aud"], audience)
	}
	issued, expires := claims["iat"].(float64), claims["exp"].(float64)
	if now := float64(time.Now().Unix()); expires-issued != 60 || issued > now || issued < now-60 {
		t.Errorf("got iat %v, exp %v; want now, and 60 seconds later", issued, expires)
	}
	if jti, _ := claims["jti"].(string); len(jti) < 22 {
		t.Errorf("got jti %q, want 128 random bits", jti)
	}
	if len(claims) != 6 {
		t.Errorf("got claims %v, want six", claims)
	}
}

// TestAssertionIsNotSentTwice: also a retry after a broken connection has a new one.
func TestAssertionIsNotSentTwice(t *testing.T) {
	s := startServer(t)
	s.handle("/token", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	c := s.client(withKey(keyFileOf(t, pkcs8(keyA()))))
	seen := map[any]bool{}
	for range 5 {
		if _, err := c.Refresh(testContext(t), testRefresh, nil); kindOf(err) != Unanswered {
			t.Fatalf("got error %v, want %v", err, Unanswered)
		}
		seen[s.lastAssertion(c).claims["jti"]] = true
	}
	if n := s.count("/token"); len(seen) != 5 || n != 5 {
		t.Errorf("got %d assertions in %d requests, want 5 in 5", len(seen), n)
	}
}

// TestAssertionIsNotInErrors: a server may repeat the request in its refusal.
func TestAssertionIsNotInErrors(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"private_key_jwt":   withKey(keyFileOf(t, pkcs8(keyA()))),
		"client_secret_jwt": func(c *Config) { c.AuthMethod = "client_secret_jwt" },
		"client_assertion": func(c *Config) {
			c.ClientSecret, c.ClientAssertion = nil, ClientAssertion{File: keyFileOf(t, testAssertion(time.Hour))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			s.handle("/token", func(w http.ResponseWriter, r *http.Request) {
				_ = r.ParseForm()
				w.WriteHeader(401)
				_, _ = io.WriteString(w, asJSON(map[string]string{"error": "invalid_client", "error_description": r.PostForm.Get("client_assertion")}))
			})
			_, err := s.client(change).Refresh(testContext(t), testRefresh, nil)
			form, _ := s.lastPost()
			assertion := form.Get("client_assertion")
			if kindOf(err) != Misconfigured || assertion == "" || strings.Contains(err.Error(), assertion[:20]) {
				t.Errorf("got error %v, want %v without the assertion", err, Misconfigured)
			}
			checkNoSecret(t, err)
		})
	}
}

// TestSecretOfHMACIsChecked: a secret that becomes too short is not used.
func TestSecretOfHMACIsChecked(t *testing.T) {
	s := startServer(t)
	current := testSecret
	c := s.client(func(c *Config) {
		c.AuthMethod, c.ClientSecret = "client_secret_jwt", func() (string, error) { return current, nil }
	})
	current = canary
	_, err := c.Refresh(testContext(t), testRefresh, nil)
	if kindOf(err) != Misconfigured || !strings.Contains(err.Error(), "client_secret: ") || s.count("/token") != 0 {
		t.Errorf("got error %v, want %v for client_secret, and nothing sent", err, Misconfigured)
	}
	checkNoSecret(t, err)
	checkNoSecret(t, c.CheckCredentials())
}

// TestKeyNeedsNoMetadataIfItHasOneAlgorithm: a refresh at a configured endpoint does not
// depend on the metadata.
func TestKeyNeedsNoMetadataIfItHasOneAlgorithm(t *testing.T) {
	for name, tc := range map[string]struct {
		key  crypto.Signer
		want Kind
	}{"EC": {keyA(), 0}, "RSA": {rsaKey(), Unavailable}} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			s.respond("/token", 200, goodTokens)
			s.respond("/.well-known/openid-configuration", 503, "")
			c := s.client(withKey(keyFileOf(t, pkcs8(tc.key))), func(c *Config) { c.Endpoints.Token = s.issuer + "/token" })
			if _, err := c.Refresh(testContext(t), testRefresh, nil); kindOf(err) != tc.want {
				t.Errorf("got error %v, want %v", err, tc.want)
			}
		})
	}
}

// TestRegistrationTellsTheTruth: what is not known yet is left out.
func TestRegistrationTellsTheTruth(t *testing.T) {
	rsaFile := keyFileOf(t, pkcs8(rsaKey()))
	for name, tc := range map[string]struct {
		change        func(*Config)
		before, after Registration // before and after the metadata was fetched
	}{
		"public":          {func(c *Config) { c.ClientSecret = nil }, Registration{AuthMethod: "none"}, Registration{AuthMethod: "none"}},
		"secret":          {func(*Config) {}, Registration{}, Registration{AuthMethod: "client_secret_post"}},
		"secret, basic":   {func(c *Config) { c.AuthMethod = "client_secret_basic" }, Registration{AuthMethod: "client_secret_basic"}, Registration{AuthMethod: "client_secret_basic"}},
		"secret, HMAC":    {func(c *Config) { c.AuthMethod = "client_secret_jwt" }, Registration{AuthMethod: "client_secret_jwt", AuthSigningAlg: "HS256"}, Registration{AuthMethod: "client_secret_jwt", AuthSigningAlg: "HS256"}},
		"RSA":             {withKey(rsaFile), Registration{AuthMethod: "private_key_jwt"}, Registration{AuthMethod: "private_key_jwt", AuthSigningAlg: "PS256"}},
		"EC":              {withKey(keyFileOf(t, pkcs8(keyA()))), Registration{AuthMethod: "private_key_jwt", AuthSigningAlg: "ES256"}, Registration{AuthMethod: "private_key_jwt"}},
		"other assertion": {func(c *Config) { c.ClientSecret, c.ClientAssertion.File = nil, keyFileOf(t, testAssertion(time.Hour)) }, Registration{}, Registration{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			s.metadata["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"}
			s.metadata["token_endpoint_auth_signing_alg_values_supported"] = []string{"PS256", "RS256"}
			c := s.client(tc.change, func(c *Config) { c.Scopes = []string{"openid", "email"} })
			for i, want := range []Registration{tc.before, tc.after} {
				want.ClientID, want.Scope = testClient, "openid email"
				if got := c.Registration(); got != want {
					t.Errorf("metadata fetched: %v: got %+v, want %+v", i == 1, got, want)
				}
				if _, err := c.AuthorizationURL(testContext(t), goodRequest()); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

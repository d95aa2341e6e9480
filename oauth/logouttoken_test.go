package oauth

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
)

// logoutClaims returns the claims of a valid logout token, with the given changes.
func (s *server) logoutClaims(change ...any) map[string]any {
	now := time.Now()
	return edit(map[string]any{
		"iss": s.issuer, "aud": testClient, "sub": "alice", "sid": "sid-1", "jti": "token-1",
		"iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(),
		"events": map[string]any{backchannelEvent: map[string]any{}},
	}, change...)
}

// logoutToken returns a logout token with the given changes, signed with key A.
func (s *server) logoutToken(change ...any) string {
	return sign(jwt.SigningMethodES256, keyA(), s.logoutClaims(change...), "kid", "a", "typ", "logout+jwt")
}

// TestLogoutTokenWithOneDefectIsRefused verifies valid tokens, and tokens with one
// defect each. A token that no key can make valid causes no fetch of keys.
func TestLogoutTokenWithOneDefectIsRefused(t *testing.T) {
	s := startServer(t)
	s.setKeys(publicJWK(keyA(), "a"), publicJWK(rsaKey(), "r"))
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	header := func(h ...any) string {
		return sign(jwt.SigningMethodES256, keyA(), s.logoutClaims(), append([]any{"kid", "a"}, h...)...)
	}
	hs256 := func(key []byte) string { return sign(jwt.SigningMethodHS256, key, s.logoutClaims(), "kid", "r") }
	spki := must(x509.MarshalPKIXPublicKey(rsaKey().Public()))
	events := func(v any) string { return s.logoutToken("events", v) }
	tests := []struct {
		name    string
		raw     string
		want    string // in the error; "" = accepted
		fetches bool   // the verification needs a key
	}{
		{"good", s.logoutToken(), "", true},
		{"sid alone", s.logoutToken("sub", nil), "", true},
		{"sub alone", s.logoutToken("sid", nil), "", true},
		{"typ JWT", header("typ", "JWT"), "", true},
		{"no typ", header("typ", nil), "", true},
		{"typ in another case", header("typ", "Logout+JWT"), "", true},
		{"list of one audience", s.logoutToken("aud", []string{testClient}), "", true},
		{"event with members", events(map[string]any{backchannelEvent: map[string]any{"x": 1}, "other": 1}), "", true},
		{"clock 45 s ahead", s.logoutToken("iat", in(45*time.Second), "exp", in(2*time.Minute)), "", true},
		{"clock 45 s behind", s.logoutToken("exp", in(-45*time.Second)), "", true},
		{"no exp", s.logoutToken("exp", nil), "", true},
		{"no exp, almost too old", s.logoutToken("exp", nil, "iat", in(-maxLogoutAge-leeway+5*time.Second)), "", true},
		{"exp null", s.logoutToken("exp", json.RawMessage("null")), "", true},
		{"exp as string", s.logoutToken("exp", "2026-11-22T05:00:00Z"), "", true},
		{"as Hydra sends it", sign(jwt.SigningMethodES256, keyA(), s.logoutClaims("exp", nil, "sub", nil, "aud", []string{testClient}), "kid", "a", "typ", "JWT"), "", true},
		{"almost too old", s.logoutToken("iat", in(-maxLogoutAge-leeway+5*time.Second)), "", true},

		{"other key", sign(jwt.SigningMethodES256, keyB(), s.logoutClaims(), "kid", "a"), "signature", true},
		{"unknown kid", sign(jwt.SigningMethodES256, keyB(), s.logoutClaims(), "kid", "x"), "no key", true},
		{"flipped", flipSignature(s.logoutToken()), "signature", true},
		{"payload of another", swapPayload(s.logoutToken(), s.logoutClaims("sub", "bob")), "signature", true},
		{"not valid yet", s.logoutToken("nbf", in(time.Hour)), "is valid in", false},

		{"nothing", "", "not a signed JWT", false},
		{"dots", "..", "base64url|JSON object", false},
		{"many dots", strings.Repeat(".", 1000), "not a signed JWT", false},
		{"large", strings.Repeat("a", logoutTokens.maxSize) + ".b.c", "larger", false},
		{"no payload", strings.Split(s.logoutToken(), ".")[0] + "..", "payload", false},
		{"payload is no JSON", strings.Split(s.logoutToken(), ".")[0] + ".YWJj.", "payload", false},
		{"none", forge(`{"alg":"none"}`, s.logoutClaims(), ""), "not allowed", false},
		{"nOnE", forge(`{"alg":"nOnE"}`, s.logoutClaims(), ""), "not allowed", false},
		{"HMAC with the client secret", hs256([]byte(testSecret)), "not allowed", false},
		{"HMAC with the public key", hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})), "not allowed", false},
		{"crit", header("crit", []string{"x"}), "crit", false},
		{"typ of an access token", header("typ", "at+jwt"), `type is "at+jwt", not logout+jwt`, false},
		{"wrong iss", s.logoutToken("iss", "https://evil.test"), `issuer is "https://evil.test"`, false},
		{"iss with slash", s.logoutToken("iss", s.issuer+"/"), "issuer", false},
		{"no iss", s.logoutToken("iss", nil), "iss claim is required", false},
		{"wrong aud", s.logoutToken("aud", "other"), "audience", false},
		{"no aud", s.logoutToken("aud", nil), "aud claim is required", false},
		{"further audience", s.logoutToken("aud", []string{testClient, "other"}), "no azp", false},
		{"further audience with azp", s.logoutToken("aud", []string{testClient, "other"}, "azp", testClient), "trusted_audiences", false},
		{"other algorithm", sign(jwt.SigningMethodRS256, rsaKey(), s.logoutClaims(), "kid", "r", "typ", "logout+jwt"), "RS256, not with ES256", false},
		{"other algorithm of the same key type", sign(jwt.SigningMethodPS256, rsaKey(), s.logoutClaims(), "kid", "r"), "PS256, not with ES256", false},
		{"encrypted", "a.b.c.d.e", "encrypted", false},
		{"ID token", s.idToken("jti", "1"), "nonce", false},
		{"refreshed ID token", s.idToken("jti", "1", "nonce", nil), "events", false},
		{"nonce", s.logoutToken("nonce", "n"), "nonce", false},
		{"null as nonce", swapPayload(s.logoutToken(), map[string]any{"iss": s.issuer, "aud": testClient, "nonce": nil}), "nonce", false},
		{"no events", events(nil), "events", false},
		{"events as list", events([]string{backchannelEvent}), "events", false},
		{"events as string", events(backchannelEvent), "events", false},
		{"other event", events(map[string]any{"http://schemas.openid.net/event/other": map[string]any{}}), "does not name", false},
		{"event in upper case", events(map[string]any{strings.ToUpper(backchannelEvent): map[string]any{}}), "does not name", false},
		{"event as string", events(map[string]any{backchannelEvent: "{}"}), "does not name", false},
		{"event as null", events(map[string]any{backchannelEvent: json.RawMessage("null")}), "does not name", false},
		{"event as list", events(map[string]any{backchannelEvent: []any{}}), "does not name", false},
		{"neither sub nor sid", s.logoutToken("sub", nil, "sid", nil), "neither sub nor sid", false},
		{"empty sub and sid", s.logoutToken("sub", "", "sid", ""), "neither sub nor sid", false},
		{"sub of a wrong type", s.logoutToken("sub", 7), "sub is not a string", false},
		{"sid of a wrong type", s.logoutToken("sid", []string{"sid-1"}), "sid is not a string", false},
		{"long sub", s.logoutToken("sub", strings.Repeat("a", maxSubject+1)), "sub has more", false},
		{"names in another case", s.logoutToken("sub", nil, "sid", nil, "SUB", "alice", "Sid", "sid-1"), "neither", false},
		{"no jti", s.logoutToken("jti", nil), "jti must have", false},
		{"long jti", s.logoutToken("jti", strings.Repeat("a", maxTokenID+1)), "jti must have", false},
		{"no iat", s.logoutToken("iat", nil), "iat is missing", false},
		{"exp overflows", s.logoutToken("exp", 1e300), "exp is not a number", false},
		{"negative exp", s.logoutToken("exp", -1), "exp is not a number", false},
		{"zero exp", s.logoutToken("exp", 0), "seconds old", false},
		{"no exp, issued an hour ago", s.logoutToken("exp", nil, "iat", in(-time.Hour)), "seconds old, the limit is 300", false},
		{"no exp, issued in the future", s.logoutToken("exp", nil, "iat", in(time.Hour)), "in the future", false},
		{"no exp and no iat", s.logoutToken("exp", nil, "iat", nil), "iat is missing", false},
		{"expired", s.logoutToken("iat", in(-4*time.Minute), "exp", in(-2*time.Minute)), "expired", false},
		{"issued an hour ago", s.logoutToken("iat", in(-time.Hour), "exp", in(time.Hour)), "seconds old, the limit is 300", false},
		{"issued in the future", s.logoutToken("iat", in(time.Hour), "exp", in(2*time.Hour)), "in the future", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, before := s.client(), s.count("/jwks")
			got, err := c.VerifyLogoutToken(testContext(t), tt.raw)
			checkNoSecret(t, err)
			switch {
			case tt.want == "" && (err != nil || got.ID != "token-1"):
				t.Errorf("got %+v, error %v; want token-1", got, err)
			case tt.want != "" && (err == nil || got != nil || !containsOne(err.Error(), tt.want)):
				t.Errorf("got %+v, error %v; want an error with %q", got, err, tt.want)
			case errors.Is(err, ErrKeysUnavailable):
				t.Errorf("got error %v, want one that calls the token invalid", err)
			}
			if fetched := s.count("/jwks") > before; fetched != tt.fetches {
				t.Errorf("got keys fetched: %v, want %v", fetched, tt.fetches)
			}
		})
	}
}

func containsOne(s, of string) bool {
	for part := range strings.SplitSeq(of, "|") {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

func TestLogoutTokenIsAcceptedUntilValidUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		now := time.Unix(time.Now().Unix(), 0)
		got, err := c.VerifyLogoutToken(testContext(t), s.logoutToken())
		want := &LogoutToken{ID: "token-1", Subject: "alice", SessionID: "sid-1", IssuedAt: now, ValidUntil: now.Add(3 * time.Minute)}
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("got error %v, diff %s", err, cmp.Diff(want, got))
		}
		// ValidUntil is six minutes after iat at the latest, even if exp is later or
		// missing.
		raw := s.logoutToken("exp", nil)
		if got, err = c.VerifyLogoutToken(testContext(t), raw); err != nil || !got.ValidUntil.Equal(now.Add(6*time.Minute)) {
			t.Errorf("without exp: got %+v, error %v; want ValidUntil 6m after iat", got, err)
		}
		raw = s.logoutToken("exp", now.Add(24*time.Hour).Unix())
		if got, err = c.VerifyLogoutToken(testContext(t), raw); err != nil || !got.ValidUntil.Equal(now.Add(6*time.Minute)) {
			t.Fatalf("got %+v, error %v; want ValidUntil 6m after iat", got, err)
		}
		time.Sleep(time.Until(got.ValidUntil) - time.Second)
		if _, err := c.VerifyLogoutToken(testContext(t), raw); err != nil {
			t.Errorf("before ValidUntil: got error %v", err)
		}
		time.Sleep(time.Second)
		if _, err := c.VerifyLogoutToken(testContext(t), raw); err == nil {
			t.Error("at ValidUntil: accepted")
		}
	})
}

// TestLogoutTokenIsNotCalledInvalidWithoutKeys: without keys the client cannot know
// whether the token is valid.
func TestLogoutTokenIsNotCalledInvalidWithoutKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		s.respond("/jwks", 503, "")
		if _, err := c.VerifyLogoutToken(testContext(t), s.logoutToken()); !errors.Is(err, ErrKeysUnavailable) {
			t.Errorf("got error %v, want %v", err, ErrKeysUnavailable)
		}
	})
}

func TestLogoutTokenNeedsIssuer(t *testing.T) {
	s := newServer(t, "https://idp.test")
	c := s.client(func(cfg *Config) {
		cfg.Issuer, cfg.Scopes = "", nil
		cfg.Endpoints = Endpoints{Authorization: s.issuer + "/authorize", Token: s.issuer + "/token"}
	})
	if _, err := c.VerifyLogoutToken(testContext(t), s.logoutToken()); err == nil || !strings.Contains(err.Error(), "issuer") {
		t.Errorf("got error %v, want one about the issuer", err)
	}
}

// FuzzLogoutToken signs arbitrary payloads: an accepted one is a recent logout for
// this client, and no ID token.
func FuzzLogoutToken(f *testing.F) {
	s := newServer(f, "https://idp.test")
	c := s.client()
	c.http.Transport = inProcess{s}
	far := time.Now().Add(24 * time.Hour).Unix()
	for _, claims := range []map[string]any{
		s.logoutClaims("exp", far), s.logoutClaims("exp", far, "sub", nil), s.idClaims("exp", far, "jti", "1"), s.logoutClaims("nonce", "x"),
		s.logoutClaims("events", []any{backchannelEvent}), s.logoutClaims("aud", []any{testClient, "b"}, "azp", testClient),
	} {
		f.Add(must(json.Marshal(claims)))
	}
	f.Add([]byte(`{"iss":"https://idp.test","aud":[null],"exp":1e400,"iat":-0.0,"sub":null,"events":{"` + backchannelEvent + `":{}}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := c.VerifyLogoutToken(t.Context(), signPayload(string(payload)))
		if err != nil {
			if !isPrintable(err.Error()) || len(err.Error()) > 1000 {
				t.Errorf("got error %q, want short printable ASCII", err)
			}
			return
		}
		var m map[string]json.RawMessage
		if err := json.Unmarshal(payload, &m); err != nil {
			t.Fatalf("accepted %q, which is not JSON: %v", payload, err)
		}
		_, nonce := m["nonce"]
		if nonce || got.ID == "" || got.Subject == "" && got.SessionID == "" || !strings.Contains(string(m["events"]), "{") ||
			!got.ValidUntil.After(time.Now()) || got.ValidUntil.After(got.IssuedAt.Add(maxLogoutAge+leeway)) {
			t.Errorf("accepted %q: %+v", payload, got)
		}
	})
}

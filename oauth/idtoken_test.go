package oauth

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// forge makes a JWT with an arbitrary header and signature.
func forge(header string, claims map[string]any, signature string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(header)) + "." + enc(must(json.Marshal(claims))) + "." + enc([]byte(signature))
}

// TestIDTokenWithOneDefectIsRefused verifies valid tokens, and tokens with one defect
// each.
func TestIDTokenWithOneDefectIsRefused(t *testing.T) {
	s := startServer(t)
	s.setKeys(publicJWK(keyA(), "a"), publicJWK(rsaKey(), "r"))
	c := s.client()
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	good := s.idToken()
	hs256 := func(key []byte) string { return sign(jwt.SigningMethodHS256, key, s.idClaims(), "kid", "r") }
	spki := must(x509.MarshalPKIXPublicKey(rsaKey().Public()))
	header := func(h ...any) string {
		return sign(jwt.SigningMethodES256, keyA(), s.idClaims(), append([]any{"kid", "a"}, h...)...)
	}
	leftHalf := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b[:len(b)/2]) }
	null := json.RawMessage("null")
	hash := sha256.Sum256([]byte(testAccess))
	tests := []struct {
		name string
		raw  string
		want string // in the error; "" = accepted
	}{
		{"good", good, ""},
		{"list of one audience", s.idToken("aud", []string{testClient}), ""},
		{"client twice in aud", s.idToken("aud", []string{testClient, testClient}), ""},
		{"azp", s.idToken("azp", testClient), ""},
		{"at_hash", s.idToken("at_hash", leftHalf(hash[:])), ""},
		{"clock 45 s ahead", s.idToken("iat", in(45*time.Second), "nbf", in(45*time.Second)), ""},
		{"clock 45 s behind", s.idToken("exp", in(-45*time.Second)), ""},
		{"fractions", s.idToken("iat", float64(time.Now().UnixMilli())/1000), ""},
		{"typ in lower case", header("typ", "jwt"), ""},
		{"no typ", header("typ", nil), ""},
		{"header members with keys", header("jku", "https://evil.test", "x5u", "https://evil.test", "jwk", publicJWK(keyB(), "a")), ""},
		{"names in another case", s.idToken("SUB", "eve", "Nonce", "x", "EXP", 1), ""},
		{"unix epoch as auth_time", s.idToken("auth_time", 0), ""},
		{"auth_time null", s.idToken("auth_time", null), ""},
		{"auth_time as string", s.idToken("auth_time", "2026-11-22T05:00:00Z"), ""},
		{"auth_time before the epoch", s.idToken("auth_time", -62135596800), ""},
		{"auth_time overflows", s.idToken("auth_time", 1e300), ""},
		{"nbf null", s.idToken("nbf", null), ""},
		{"nbf as string", s.idToken("nbf", "now"), ""},
		{"azp null", s.idToken("azp", null), ""},
		{"azp as number", s.idToken("azp", 7), ""},
		{"at_hash as boolean", s.idToken("at_hash", true), ""},
		{"acr, amr and profile claims of odd types", s.idToken("acr", 1, "amr", "pwd", "email", null, "email_verified", "yes", "updated_at", []int{1}, "name", map[string]any{}), ""},

		{"wrong iss", s.idToken("iss", "https://evil.test"), `issuer is "https://evil.test"`},
		{"iss with slash", s.idToken("iss", s.issuer+"/"), "issuer"},
		{"no iss", s.idToken("iss", nil), "iss claim is required"},
		{"wrong aud", s.idToken("aud", "other"), "audience"},
		{"aud in another case", s.idToken("aud", strings.ToUpper(testClient)), "audience"},
		{"no aud", s.idToken("aud", nil), "aud claim is required"},
		{"empty aud", s.idToken("aud", []string{}), "aud claim is required"},
		{"aud of a wrong type", s.idToken("aud", []any{testClient, 7}), "aud"},
		{"two audiences", s.idToken("aud", []string{testClient, "other"}), "no azp"},
		{"two audiences with azp", s.idToken("aud", []string{"other", testClient}, "azp", testClient), "trusted_audiences"},
		{"two audiences, other azp", s.idToken("aud", []string{testClient, "other"}, "azp", "other"), "azp names another client"},
		{"other azp", s.idToken("azp", "other"), "azp names another client"},
		{"two audiences, azp as number", s.idToken("aud", []string{testClient, "other"}, "azp", 7), "no azp"},
		{"expired", s.idToken("exp", in(-10*time.Minute)), "it expired 60"},
		{"exp just over the leeway", s.idToken("exp", in(-61*time.Second)), "seconds ago; clock skew"},
		{"issued in the future", s.idToken("iat", in(time.Hour)), "seconds in the future; clock skew"},
		{"not valid yet", s.idToken("nbf", in(time.Hour)), "is valid in"},
		{"no exp", s.idToken("exp", nil), "exp claim is required"},
		{"exp as string", s.idToken("exp", "9999999999"), "exp is not a number"},
		{"exp overflows", s.idToken("exp", 1e300), "exp is not a number"},
		{"negative iat", s.idToken("iat", -1), "iat is not a number"},
		{"no iat", s.idToken("iat", nil), "iat is missing"},
		{"no sub", s.idToken("sub", nil), "sub must have"},
		{"empty sub", s.idToken("sub", ""), "sub must have"},
		{"long sub", s.idToken("sub", strings.Repeat("s", 256)), "sub must have"},
		{"sub as number", s.idToken("sub", 7), "sub is not a string"},
		{"Sub only", s.idToken("sub", nil, "Sub", "alice"), "sub must have"},
		{"wrong nonce", s.idToken("nonce", "nonce-of-another-login"), "nonce"},
		{"no nonce", s.idToken("nonce", nil), "nonce"},
		{"null nonce", s.idToken("nonce", json.RawMessage("null")), "nonce"},
		{"wrong at_hash", s.idToken("at_hash", leftHalf(make([]byte, 32))), "at_hash"},

		{"signed by another key", sign(jwt.SigningMethodES256, keyB(), s.idClaims(), "kid", "a"), "signature is invalid"},
		{"expired and badly signed", sign(jwt.SigningMethodES256, keyB(), s.idClaims("exp", in(-time.Hour)), "kid", "a"), "signature is invalid"},
		{"wrong issuer and badly signed", sign(jwt.SigningMethodES256, keyB(), s.idClaims("iss", "https://evil.test"), "kid", "a"), "signature is invalid"},
		{"no signature", good[:strings.LastIndex(good, ".")+1], "signature is invalid"},
		{"flipped signature", flipSignature(good), "signature is invalid"},
		{"signature in another spelling", respellSignature(good), "malformed"},
		{"swapped payload", swapPayload(good, s.idClaims("sub", "eve")), "signature is invalid"},
		{"unknown kid", sign(jwt.SigningMethodES256, keyA(), s.idClaims(), "kid", "zzz"), "no key"},
		{"kid of another type of key", sign(jwt.SigningMethodES256, keyA(), s.idClaims(), "kid", "r"), "no key"},
		{"alg none", forge(`{"alg":"none","kid":"a"}`, s.idClaims(), ""), `"none" is not allowed`},
		{"alg None", forge(`{"alg":"None","kid":"a"}`, s.idClaims(), ""), `"None" is not allowed`},
		{"alg nOnE", forge(`{"alg":"nOnE","kid":"a"}`, s.idClaims(), ""), `"nOnE" is not allowed`},
		{"no alg", forge(`{"kid":"a"}`, s.idClaims(), ""), "is not allowed"},
		{"alg null", forge(`{"alg":null,"kid":"a"}`, s.idClaims(), ""), "is not allowed"},
		{"alg list", forge(`{"alg":["ES256"],"kid":"a"}`, s.idClaims(), ""), "is not allowed"},
		{"alg twice", forge(`{"alg":"ES256","alg":"none","kid":"a"}`, s.idClaims(), ""), "is not allowed"},
		{"HS256 with the client secret", hs256([]byte(testSecret)), `"HS256" is not allowed`},
		{"HS256 with the public key, DER", hs256(spki), `"HS256" is not allowed`},
		{"HS256 with the public key, PEM", hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})), `"HS256" is not allowed`},
		{"RS256 with the EC key's id", forge(`{"alg":"RS256","kid":"a"}`, s.idClaims(), "x"), "RS256, not with ES256"},
		{"crit", header("crit", []string{"exp"}), "crit"},
		{"empty crit", header("crit", []string{}), "crit"},
		{"logout token", header("typ", "logout+jwt"), `"logout+jwt"`},
		{"access token", header("typ", "at+jwt"), `"at+jwt"`},
		{"encrypted", "a.b.c.d.e", "id_token_encrypted_response_alg"},
		{"two parts", "a.b", "not a signed JWT"},
		{"a thousand dots", strings.Repeat(".", 1000), "not a signed JWT"},
		{"60 KiB", s.idToken("groups", strings.Repeat("x", 44<<10)), ""},
		{"too large", s.idToken("x", strings.Repeat("x", maxToken)), "larger than"},
		{"empty", "", "not a signed JWT"},
		{"header with padding", "e30=.e30.x", "base64url"},
		{"header is no object", forge(`[]`, s.idClaims(), ""), "not a JSON object"},
		{"payload is null", signPayload(`null`), "required"},
		{"payload is a list", signPayload(`[]`), "malformed"},
		{"payload is no JSON", signPayload("\xe5"), "malformed"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := c.VerifyIDToken(testContext(t), tc.raw, IDTokenExpectation{Nonce: testNonce, AccessToken: testAccess})
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got.Subject != "alice" || got.SessionID != "sid-1" || !got.AuthTime.IsZero() ||
					got.IssuedAt.IsZero() || string(got.Claims["nonce"]) != `"`+testNonce+`"` {
					t.Errorf("got %+v, want the claims of the token", got)
				}
				return
			}
			if err == nil || got != nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %+v, %v; want an error with %q", got, err, tc.want)
			}
			if errors.Is(err, ErrKeysUnavailable) {
				t.Errorf("got error %v, want one that calls the token invalid", err)
			}
			checkNoSecret(t, err)
			if len(tc.raw) > 40 && strings.Contains(err.Error(), tc.raw[len(tc.raw)-20:]) {
				t.Errorf("got error %v, want one without the token", err)
			}
		})
	}
}

// signPayload signs a payload that need not be an object.
func signPayload(payload string) string {
	enc := base64.RawURLEncoding.EncodeToString
	text := enc([]byte(`{"alg":"ES256","kid":"a"}`)) + "." + enc([]byte(payload))
	return text + "." + enc(must(jwt.SigningMethodES256.Sign(text, keyA())))
}

// flipSignature changes the first character of the signature.
func flipSignature(token string) string {
	i := strings.LastIndex(token, ".") + 1
	c := byte('A')
	if token[i] == c {
		c = 'B'
	}
	return token[:i] + string(c) + token[i+1:]
}

// respellSignature changes bits of the last character that do not change the decoded
// bytes.
func respellSignature(token string) string {
	last := token[len(token)-1] // of 64 bytes: A, Q, g or w
	return token[:len(token)-1] + string(last+1)
}

func swapPayload(token string, claims map[string]any) string {
	parts := strings.Split(token, ".")
	parts[1] = base64.RawURLEncoding.EncodeToString(must(json.Marshal(claims)))
	return strings.Join(parts, ".")
}

func TestIDTokenMustMatchTheLogin(t *testing.T) {
	s := startServer(t)
	age, bare := 60, s.client()
	configured := s.client(func(c *Config) { c.AuthorizeParams = []Param{{"max_age", "60"}} })
	now := time.Now()
	tests := []struct {
		name   string
		client *Client
		raw    string
		want   IDTokenExpectation
		ok     bool
	}{
		{"no nonce to compare", bare, s.idToken("nonce", ""), IDTokenExpectation{}, false},
		{"max_age kept", bare, s.idToken("auth_time", now.Unix()-30), IDTokenExpectation{Nonce: testNonce, MaxAge: &age}, true},
		{"max_age exceeded", bare, s.idToken("auth_time", now.Unix()-180), IDTokenExpectation{Nonce: testNonce, MaxAge: &age}, false},
		{"max_age with a text as auth_time", bare, s.idToken("auth_time", "now"), IDTokenExpectation{Nonce: testNonce, MaxAge: &age}, false},
		{"acr of a wrong type", bare, s.idToken("acr", 1), IDTokenExpectation{Nonce: testNonce, ACRValues: "1"}, false},
		{"max_age without auth_time", bare, s.idToken(), IDTokenExpectation{Nonce: testNonce, MaxAge: &age}, false},
		{"configured max_age kept", configured, s.idToken("auth_time", now.Unix()), IDTokenExpectation{Nonce: testNonce}, true},
		{"configured max_age exceeded", configured, s.idToken("auth_time", now.Unix()-180), IDTokenExpectation{Nonce: testNonce}, false},
		{"larger max_age than configured", configured, s.idToken("auth_time", now.Unix()-180), IDTokenExpectation{Nonce: testNonce, MaxAge: new(3600)}, false},
		{"smaller max_age than configured", configured, s.idToken("auth_time", now.Unix()-90), IDTokenExpectation{Nonce: testNonce, MaxAge: new(0)}, false},
		{"acr", bare, s.idToken("acr", "gold"), IDTokenExpectation{Nonce: testNonce, ACRValues: "silver gold"}, true},
		{"other acr", bare, s.idToken("acr", "bronze"), IDTokenExpectation{Nonce: testNonce, ACRValues: "silver gold"}, false},
		{"no acr", bare, s.idToken(), IDTokenExpectation{Nonce: testNonce, ACRValues: "silver"}, false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := tc.client.VerifyIDToken(testContext(t), tc.raw, tc.want); (err == nil) != tc.ok {
				t.Errorf("got error %v, want accepted: %v", err, tc.ok)
			}
		})
	}
	t.Run("plain OAuth", func(t *testing.T) {
		c := plainClient(t, s.issuer+"/token", func(c *Config) { c.Endpoints.JWKS = s.issuer + "/jwks" })
		_, err := c.VerifyIDToken(testContext(t), s.idToken(), IDTokenExpectation{Nonce: testNonce})
		if err == nil || errors.Is(err, ErrKeysUnavailable) {
			t.Errorf("without an issuer: got error %v, want one that calls the token invalid", err)
		}
	})
}

// TestSessionIDOfAWrongTypeCountsAsMissing: the login counts, and the server cannot
// name its session.
func TestSessionIDOfAWrongTypeCountsAsMissing(t *testing.T) {
	s := startServer(t)
	c := s.client()
	for _, sid := range []any{7, json.RawMessage("null"), []string{"sid-1"}, true, map[string]any{"id": "sid-1"}} {
		got, err := c.VerifyIDToken(testContext(t), s.idToken("sid", sid), IDTokenExpectation{Nonce: testNonce, AccessToken: testAccess})
		if err != nil || got.SessionID != "" || got.Subject != "alice" {
			t.Errorf("sid %v: got %+v, error %v; want no session ID", sid, got, err)
		}
	}
}

func TestAccessTokenHashMustMatch(t *testing.T) {
	s := startServer(t)
	s.setKeys(publicJWK(rsaKey(), "r"), publicJWK(key384(), "e"), publicJWK(edKey(), "d"))
	s256, s384, s512 := sha256.Sum256([]byte(testAccess)), sha512.Sum384([]byte(testAccess)), sha512.Sum512([]byte(testAccess))
	for _, tc := range []struct {
		method jwt.SigningMethod
		key    any
		kid    string
		sum    []byte
	}{
		{jwt.SigningMethodPS256, rsaKey(), "r", s256[:]},
		{jwt.SigningMethodES384, key384(), "e", s384[:]},
		{jwt.SigningMethodRS512, rsaKey(), "r", s512[:]},
		{jwt.SigningMethodEdDSA, edKey(), "d", s512[:]},
	} {
		c := s.client(withAlgorithm(tc.method.Alg()))
		half := base64.RawURLEncoding.EncodeToString(tc.sum[:len(tc.sum)/2])
		token := sign(tc.method, tc.key, s.idClaims("at_hash", half), "kid", tc.kid)
		if _, err := c.VerifyIDToken(testContext(t), token, IDTokenExpectation{Nonce: testNonce, AccessToken: testAccess}); err != nil {
			t.Errorf("%s: got error %v", tc.method.Alg(), err)
		}
		if _, err := c.VerifyIDToken(testContext(t), token, IDTokenExpectation{Nonce: testNonce, AccessToken: "another"}); err == nil {
			t.Errorf("%s: accepted with another access token", tc.method.Alg())
		}
	}
}

// TestRefreshedIDTokenProvesSameOrOtherLogin: a token proves the same login, proves
// another login, or proves nothing.
func TestRefreshedIDTokenProvesSameOrOtherLogin(t *testing.T) {
	s := startServer(t)
	s.setKeys(publicJWK(keyA(), "a"), publicJWK(rsaKey(), "r"))
	c := s.client(func(c *Config) { c.TrustedAudiences = []string{"trusted"} })
	now := time.Now().Truncate(time.Second)
	login := now.Add(-time.Hour)
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	full := RefreshedIDTokenExpectation{Subject: "alice", Nonce: testNonce, AuthTime: login, AccessToken: testAccess}
	but := func(change func(*RefreshedIDTokenExpectation)) RefreshedIDTokenExpectation {
		w := full
		change(&w)
		return w
	}
	unsigned := func(token string) string { return token[:strings.LastIndex(token, ".")+1] }
	header := func(h ...any) string {
		return sign(jwt.SigningMethodES256, keyA(), s.idClaims("sub", "eve"), append([]any{"kid", "a"}, h...)...)
	}
	const same, other, unclear = "same", "other", "unclear" // login
	tests := []struct {
		name    string
		raw     string
		want    RefreshedIDTokenExpectation
		verdict string
	}{
		{"same", s.idToken("auth_time", login.Unix()), full, same},
		{"no nonce", s.idToken("nonce", nil), full, same},
		{"empty nonce", s.idToken("nonce", ""), full, same},
		{"null nonce", s.idToken("nonce", json.RawMessage("null")), full, same},
		{"nonce not known", s.idToken(), but(func(w *RefreshedIDTokenExpectation) { w.Nonce = "" }), same},
		{"no auth_time", s.idToken(), full, same},
		{"auth_time not known", s.idToken("auth_time", login.Unix()), but(func(w *RefreshedIDTokenExpectation) { w.AuthTime = time.Time{} }), same},
		{"newer auth_time", s.idToken("auth_time", login.Unix()+60), full, same},
		{"changed e-mail", s.idToken("email", "new@x.test"), full, same},
		{"own azp", s.idToken("azp", testClient), full, same},
		{"trusted audience with azp", s.idToken("aud", []string{testClient, "trusted"}, "azp", testClient), full, same},

		{"other sub", s.idToken("sub", "eve"), full, other},
		{"sub in another case", s.idToken("sub", "Alice"), full, other},
		{"sub with a blank", s.idToken("sub", "alice "), full, other},
		{"endless sub", s.idToken("sub", strings.Repeat("x", maxSubject+1)), full, other},
		{"other iss", s.idToken("iss", "https://evil.test"), full, other},
		{"iss with a slash", s.idToken("iss", s.issuer+"/"), full, other},
		{"other aud", s.idToken("aud", "other"), full, other},
		{"other auds", s.idToken("aud", []string{"other", "", "another"}), full, other},
		{"other azp", s.idToken("azp", "other"), full, other},
		{"other nonce", s.idToken("nonce", "other"), full, other},
		{"other sub, expired", s.idToken("sub", "eve", "iat", at(-2*time.Hour), "exp", at(-time.Hour)), full, other},
		{"other sub, later", s.idToken("sub", "eve", "iat", at(time.Hour), "exp", at(2*time.Hour)), full, other},
		{"other sub, no times", s.idToken("sub", "eve", "iat", nil, "exp", nil), full, other},
		{"other sub, invalid times", s.idToken("sub", "eve", "iat", "x", "exp", []int{1}), full, other},
		{"other sub, wrong at_hash", s.idToken("sub", "eve", "at_hash", "AAAA"), full, other},
		{"other sub, no iss and aud", s.idToken("sub", "eve", "iss", nil, "aud", nil), full, other},
		{"other sub, invalid sid", s.idToken("sub", "eve", "sid", 5), full, other},
		{"other nonce, no sub", s.idToken("nonce", "other", "sub", nil), full, other},

		{"no sub", s.idToken("sub", nil), full, unclear},
		{"empty sub", s.idToken("sub", ""), full, unclear},
		{"sub is a number", s.idToken("sub", 5), full, unclear},
		{"sub is a list", s.idToken("sub", []string{"eve"}), full, unclear},
		{"no subject to compare", s.idToken(), but(func(w *RefreshedIDTokenExpectation) { w.Subject = "" }), unclear},
		{"no iss", s.idToken("iss", nil), full, unclear},
		{"iss is a list", s.idToken("iss", []string{"x"}), full, unclear},
		{"no aud", s.idToken("aud", nil), full, unclear},
		{"empty aud", s.idToken("aud", ""), full, unclear},
		{"no audience in the list", s.idToken("aud", []string{}), full, unclear},
		{"audiences of a wrong type", s.idToken("aud", []any{"other", 5}), full, unclear},
		{"further audience", s.idToken("aud", []string{testClient, "b"}), full, unclear},
		{"further audience with azp", s.idToken("aud", []string{testClient, "b"}, "azp", testClient), full, unclear},
		{"other sub, other algorithm", sign(jwt.SigningMethodRS256, rsaKey(), s.idClaims("sub", "eve"), "kid", "r"), full, unclear},
		{"azp is a number", s.idToken("azp", 5), full, same},
		{"further audience, azp is a number", s.idToken("aud", []string{testClient, "b"}, "azp", 5), full, unclear},
		{"nonce is a number", s.idToken("nonce", 5), full, unclear},
		{"sid is a number", s.idToken("sid", 5), full, same},
		{"older auth_time", s.idToken("auth_time", login.Unix()-60), full, unclear},
		{"invalid auth_time", s.idToken("auth_time", "yesterday"), full, same},
		{"expired", s.idToken("iat", at(-2*time.Hour), "exp", at(-time.Hour)), full, unclear},
		{"90 seconds ahead", s.idToken("iat", at(90*time.Second), "exp", at(time.Hour)), full, unclear},
		{"not yet valid", s.idToken("nbf", at(time.Hour)), full, unclear},
		{"no iat", s.idToken("iat", nil), full, unclear},
		{"no exp", s.idToken("exp", nil), full, unclear},
		{"invalid exp", s.idToken("exp", "tomorrow"), full, unclear},
		{"wrong at_hash", s.idToken("at_hash", "AAAA"), full, unclear},
		{"large", s.idToken("x", strings.Repeat("x", maxToken)), full, unclear},
		{"garbage", "not.a-jwt", full, unclear},
		{"encrypted", "a.b.c.d.e", full, unclear},
		{"other sub, other key", sign(jwt.SigningMethodES256, keyB(), s.idClaims("sub", "eve"), "kid", "a"), full, unclear},
		{"other sub, unknown kid", header("kid", "x"), full, unclear},
		{"other sub, not signed", unsigned(s.idToken("sub", "eve")), full, unclear},
		{"other sub, none", forge(`{"alg":"none","kid":"a"}`, s.idClaims("sub", "eve"), ""), full, unclear},
		{"other sub, HMAC", sign(jwt.SigningMethodHS256, []byte(testSecret), s.idClaims("sub", "eve"), "kid", "a"), full, unclear},
		{"other sub, crit", header("crit", []string{"x"}), full, unclear},
		{"other sub, an access token", header("typ", "at+jwt"), full, unclear},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := c.VerifyRefreshedIDToken(testContext(t), tc.raw, tc.want)
			checkNoSecret(t, err)
			verdict := unclear
			if err == nil {
				verdict = same
			} else if errors.Is(err, ErrOtherLogin) {
				verdict = other
			}
			if verdict != tc.verdict || (got == nil) != (err != nil) {
				t.Errorf("got verdict %s with %v, %v; want %s", verdict, got, err, tc.verdict)
			}
		})
	}
}

func FuzzIDToken(f *testing.F) {
	s := newServer(f, "https://idp.test")
	c := s.client()
	c.http.Transport = inProcess{s}
	s.metadata["jwks_uri"] = "https://idp.test/jwks"
	good := s.idToken()
	for _, seed := range []string{
		good, s.idToken("aud", []string{"x"}), "a.b.c", "a.b.c.d.e", forge(`{"alg":"none"}`, s.idClaims(), ""),
		signPayload(`{"exp":1e999}`), signPayload(`{"aud":[null],"iss":{}}`), signPayload(`{"exp":null}`),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := c.VerifyIDToken(t.Context(), raw, IDTokenExpectation{Nonce: testNonce, AccessToken: testAccess})
		if err == nil && !strings.HasPrefix(raw, good[:strings.LastIndex(good, ".")]) {
			t.Errorf("accepted %q: %+v", raw, got)
		}
		if err != nil && (!isPrintable(err.Error()) || len(err.Error()) > 1000) {
			t.Errorf("got error %q, want short printable ASCII", err)
		}
	})
}

// FuzzClaims signs arbitrary payloads: the checks after the signature must handle
// them.
func FuzzClaims(f *testing.F) {
	s := newServer(f, "https://idp.test")
	c := s.client()
	c.http.Transport = inProcess{s}
	f.Add(must(json.Marshal(s.idClaims())))
	f.Add(must(json.Marshal(s.idClaims("aud", []any{testClient, "b"}, "azp", nil))))
	f.Add([]byte(`{"iss":"https://idp.test","aud":[null],"exp":1e400,"iat":-0.0,"sub":null}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := c.VerifyIDToken(t.Context(), signPayload(string(payload)), IDTokenExpectation{Nonce: testNonce})
		if err != nil {
			if !isPrintable(err.Error()) || len(err.Error()) > 1000 {
				t.Errorf("got error %q, want short printable ASCII", err)
			}
			return
		}
		var m map[string]json.RawMessage
		if json.Unmarshal(payload, &m) != nil || !maps.EqualFunc(m, got.Claims, func(a, b json.RawMessage) bool { return string(a) == string(b) }) {
			t.Errorf("got claims %s, want those of %q", got.Claims, payload)
		}
		issuer, _ := stringMember(got.Claims, "iss")
		exp, err := claims(got.Claims).time("exp")
		if err != nil || issuer != s.issuer || got.Subject == "" || got.IssuedAt.IsZero() || exp.Before(time.Now().Add(-leeway-time.Second)) {
			t.Errorf("accepted %+v", got)
		}
	})
}

func TestMissingMetadataMeansKeysUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		s.respond("/.well-known/openid-configuration", 503, "")
		err := verify(t, s, c, keyA(), "a")
		if !errors.Is(err, ErrKeysUnavailable) || !errors.Is(err, ErrMetadataUnavailable) {
			t.Errorf("got error %v, want %v and %v", err, ErrKeysUnavailable, ErrMetadataUnavailable)
		}
	})
}

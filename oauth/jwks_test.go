package oauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// TestInvalidKeysAreSkipped: a set of invalid keys is unusable, and an invalid key
// does not affect a valid one.
func TestInvalidKeysAreSkipped(t *testing.T) {
	good := publicJWK(keyA(), "a")
	var many []any
	for i := range 500 {
		many = append(many, map[string]any{"kty": "XYZ", "kid": fmt.Sprint(i)})
	}
	for name, invalid := range map[string][]any{
		"unknown kty":         {map[string]any{"kty": "XYZ", "kid": "a"}},
		"unknown curve":       {publicJWK(keyA(), "a", "crv", "P-999")},
		"no n":                {publicJWK(rsaKey(), "a", "n", nil)},
		"no x":                {publicJWK(keyA(), "a", "x", nil)},
		"not on the curve":    {publicJWK(keyA(), "a", "x", publicJWK(keyB(), "")["x"])},
		"weak RSA":            {publicJWK(weakRSA(), "a")},
		"exponent 1":          {publicJWK(rsaKey(), "a", "e", "AQ")},
		"even exponent":       {publicJWK(rsaKey(), "a", "e", "BA")},
		"oct":                 {map[string]any{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}},
		"use enc":             {publicJWK(keyA(), "a", "use", "enc")},
		"use of a wrong type": {publicJWK(keyA(), "a", "use", 7)},
		"ops without verify":  {publicJWK(keyA(), "a", "key_ops", []string{"encrypt"})},
		"ops of a wrong type": {publicJWK(keyA(), "a", "key_ops", "verify")},
		"no object":           {"a", 7, nil, []any{}},
		"five hundred":        many,
	} {
		t.Run(name, func(t *testing.T) {
			if set, err := parseKeySet(must(json.Marshal(map[string]any{"keys": invalid}))); err == nil {
				t.Errorf("alone: got %d keys, want an error", len(set.keys))
			}
			set, err := parseKeySet(must(json.Marshal(map[string]any{"keys": append(invalid, good)})))
			if err != nil || len(set.keys) != 1 {
				t.Errorf("with a valid key: got %d keys, error %v; want 1", len(set.keys), err)
			}
		})
	}
}

// TestPrivateMembersAndChainsAreIgnored: an invalid certificate chain does not
// invalidate the key.
func TestPrivateMembersAndChainsAreIgnored(t *testing.T) {
	for name, key := range map[string]any{
		"private": jose.JSONWebKey{Key: keyA(), KeyID: "a"},
		"chain":   publicJWK(keyA(), "a", "x5c", []string{"junk"}),
		"use sig": publicJWK(keyA(), "a", "use", "sig", "key_ops", []string{"sign", "verify"}),
		"nulls":   publicJWK(keyA(), "a", "use", json.RawMessage("null"), "key_ops", json.RawMessage("null")),
	} {
		set, err := parseKeySet(must(json.Marshal(map[string]any{"keys": []any{key}})))
		if err != nil || len(set.keys) != 1 {
			t.Errorf("%s: got %d keys, error %v; want 1", name, len(set.keys), err)
			continue
		}
		if k, ok := set.keys[0].public.(*ecdsa.PublicKey); !ok || !k.Equal(keyA().Public()) {
			t.Errorf("%s: got %T, want the public key", name, set.keys[0].public)
		}
	}
}

func TestKeySetIsBounded(t *testing.T) {
	var keys []any
	for range maxKeys + 5 {
		keys = append(keys, publicJWK(edKey(), ""))
	}
	set, err := parseKeySet(must(json.Marshal(map[string]any{"keys": keys})))
	if err != nil || len(set.keys) != maxKeys {
		t.Fatalf("got %d keys, error %v; want %d", len(set.keys), err, maxKeys)
	}
	if n := len(set.candidates("", "EdDSA")); n != maxKeysTried {
		t.Errorf("got %d candidates, want %d", n, maxKeysTried)
	}
}

// TestKeyMustMatchToken: kid, type, curve and the key's own alg must match.
func TestKeyMustMatchToken(t *testing.T) {
	s := startServer(t)
	s.setKeys(
		publicJWK(rsaKey(), "same"), publicJWK(key384(), "same"), publicJWK(keyA(), "same"), publicJWK(edKey(), "same"),
		publicJWK(rsaKey(), "rs256", "alg", "RS256"),
		publicJWK(rsaKey(), "enc", "use", "enc"),
	)
	tests := []struct {
		method jwt.SigningMethod
		key    any
		kid    any
		ok     bool
	}{
		{jwt.SigningMethodRS256, rsaKey(), "same", true},
		{jwt.SigningMethodRS512, rsaKey(), "same", true},
		{jwt.SigningMethodPS384, rsaKey(), "same", true},
		{jwt.SigningMethodES256, keyA(), "same", true},
		{jwt.SigningMethodES384, key384(), "same", true},
		{jwt.SigningMethodEdDSA, edKey(), "same", true},
		{jwt.SigningMethodES256, keyA(), nil, true}, // no kid: all matching keys
		{jwt.SigningMethodEdDSA, edKey(), nil, true},
		{jwt.SigningMethodRS256, rsaKey(), "rs256", true},
		{jwt.SigningMethodPS256, rsaKey(), "rs256", false},
		{jwt.SigningMethodRS256, rsaKey(), "enc", false},
		{jwt.SigningMethodES256, keyA(), "other", false},
		{jwt.SigningMethodES256, keyB(), "same", false},
		{jwt.SigningMethodES256, keyB(), nil, false},
	}
	for _, tc := range tests {
		c := s.client(withAlgorithm(tc.method.Alg()))
		token := sign(tc.method, tc.key, s.idClaims(), "kid", tc.kid)
		if _, err := c.VerifyIDToken(testContext(t), token, IDTokenExpectation{Nonce: testNonce}); (err == nil) != tc.ok {
			t.Errorf("%s, kid %v: got error %v, want accepted: %v", tc.method.Alg(), tc.kid, err, tc.ok)
		}
	}
}

// verify verifies an ID token that is signed with the given key and has the given
// kid.
func verify(t testing.TB, s *server, c *Client, key *ecdsa.PrivateKey, kid any) error {
	token := sign(jwt.SigningMethodES256, key, s.idClaims(), "kid", kid)
	_, err := c.VerifyIDToken(testContext(t), token, IDTokenExpectation{Nonce: testNonce})
	checkNoSecret(t, err)
	return err
}

// TestKeyRotationTakesOneFetch: the client finds a new key with one fetch, whether its
// kid is new or not.
func TestKeyRotationTakesOneFetch(t *testing.T) {
	for name, kids := range map[string][2]any{
		"new kid": {"a", "b"}, "same kid": {"a", "a"}, "no kid": {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := newSynctestServer(t)
				jwk := func(key *ecdsa.PrivateKey, kid any) any { return publicJWK(key, "", "kid", kid) }
				s.setKeys(jwk(keyA(), kids[0]))
				if err := verify(t, s, c, keyA(), kids[0]); err != nil {
					t.Fatal(err)
				}
				s.setKeys(jwk(keyB(), kids[1]))
				if err := verify(t, s, c, keyB(), kids[1]); err != nil {
					t.Error(err)
				}
				if n := s.count("/jwks"); n != 2 {
					t.Errorf("got %d fetches, want 2", n)
				}
				if err := verify(t, s, c, keyA(), kids[0]); err == nil || errors.Is(err, ErrKeysUnavailable) {
					t.Errorf("removed key: got error %v, want one that calls the token invalid", err)
				}
			})
		})
	}
}

// TestKeysThatChangeWithEachLoginAreFollowed: a server with a new key for each login, as
// a test suite is, logs users in as long as it changes its key no more than every five
// seconds for a minute.
func TestKeysThatChangeWithEachLoginAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		for i := range 14 {
			key, kid := newECKey(elliptic.P256()), fmt.Sprint(i)
			s.setKeys(publicJWK(key, kid))
			if err := verify(t, s, c, key, kid); err != nil {
				t.Errorf("login %d: got error %v", i+1, err)
			}
			time.Sleep(5 * time.Second)
		}
	})
}

// TestInvalidTokensCauseFewFetches: invented key ids and bad signatures cause a short
// burst of fetches, and then one in ten seconds.
func TestInvalidTokensCauseFewFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		if err := verify(t, s, c, keyA(), "a"); err != nil {
			t.Fatal(err)
		}
		sendInvalidTokens := func() {
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					if err := verify(t, s, c, keyB(), fmt.Sprint("invented ", i)); !errors.Is(err, errNoKey) {
						t.Errorf("got error %v, want %v", err, errNoKey)
					}
					if err := verify(t, s, c, keyB(), "a"); !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
						t.Errorf("got error %v, want %v", err, jwt.ErrTokenSignatureInvalid)
					}
				})
			}
			wg.Wait()
			// Tokens that arrive together share a fetch. These cannot.
			for i := range 2 * serverKeyFetchBurst {
				if err := verify(t, s, c, keyB(), fmt.Sprint("single ", i)); !errors.Is(err, errNoKey) {
					t.Errorf("got error %v, want %v", err, errNoKey)
				}
			}
		}
		sendInvalidTokens()
		if n := s.count("/jwks"); n != 1+serverKeyFetchBurst {
			t.Errorf("got %d fetches, want %d", n, 1+serverKeyFetchBurst)
		}
		time.Sleep(serverKeyFetchInterval)
		sendInvalidTokens()
		if n := s.count("/jwks"); n != 2+serverKeyFetchBurst {
			t.Errorf("after ten seconds: got %d fetches, want %d", n, 2+serverKeyFetchBurst)
		}
	})
}

// TestForgedLogoutTokensDoNotDelayNewKeys: while forged tokens arrive at the logout
// endpoint, logins and refreshes find several new keys of the server at once.
func TestForgedLogoutTokensDoNotDelayNewKeys(t *testing.T) {
	for name, forged := range map[string]func(s *server, i int) string{
		"invented kid": func(s *server, i int) string {
			return sign(jwt.SigningMethodES256, keyB(), s.logoutClaims(), "kid", fmt.Sprint("invented ", i), "typ", "logout+jwt")
		},
		"known kid": func(s *server, _ int) string {
			return sign(jwt.SigningMethodES256, keyB(), s.logoutClaims(), "kid", "a", "typ", "logout+jwt")
		},
		"no kid": func(s *server, _ int) string {
			return sign(jwt.SigningMethodES256, keyB(), s.logoutClaims(), "typ", "logout+jwt")
		},
		"known kid, other type of key": func(s *server, _ int) string {
			return sign(jwt.SigningMethodRS256, rsaKey(), s.logoutClaims(), "kid", "a", "typ", "logout+jwt")
		},
	} {
		for _, down := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, keys down: %v", name, down), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, c := newSynctestServer(t)
					if err := verify(t, s, c, keyA(), "a"); err != nil {
						t.Fatal(err)
					}
					if down {
						s.respond("/jwks", 503, "")
					}
					for i := range 20 {
						if _, err := c.VerifyLogoutToken(testContext(t), forged(s, i)); err == nil {
							t.Fatal("accepted a forged token")
						}
						time.Sleep(500 * time.Millisecond)
					}
					s.handle("/jwks", nil)
					if n := s.count("/jwks"); n > 1+keyFetchBurst+1 {
						t.Errorf("got %d fetches, want at most %d", n, 1+keyFetchBurst+1)
					}
					for _, kid := range []string{"b", "c", "d"} {
						key := newECKey(elliptic.P256())
						s.setKeys(publicJWK(key, kid))
						if err := verify(t, s, c, key, kid); err != nil {
							t.Errorf("login with key %s: got error %v", kid, err)
						}
						key = newECKey(elliptic.P256())
						s.setKeys(publicJWK(key, kid+kid))
						token := sign(jwt.SigningMethodES256, key, s.idClaims(), "kid", kid+kid)
						if _, err := c.VerifyRefreshedIDToken(testContext(t), token, RefreshedIDTokenExpectation{Subject: "alice"}); err != nil {
							t.Errorf("refresh with key %s: got error %v", kid+kid, err)
						}
					}
				})
			})
		}
	}
}

// TestLogoutTokenOfNewKeyIsNotCalledInvalid: after forged tokens have used up the
// budget of logouts, a token may be valid, and the server should send it again.
func TestLogoutTokenOfNewKeyIsNotCalledInvalid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		verifyLogout := func(key *ecdsa.PrivateKey, kid string) error {
			_, err := c.VerifyLogoutToken(testContext(t), sign(jwt.SigningMethodES256, key, s.logoutClaims(), "kid", kid))
			return err
		}
		if err := verifyLogout(keyA(), "a"); err != nil {
			t.Fatal(err)
		}
		for i := range keyFetchBurst {
			if err := verifyLogout(keyB(), fmt.Sprint(i)); !errors.Is(err, errNoKey) || errors.Is(err, ErrKeysUnavailable) {
				t.Errorf("invented kid: got error %v, want %v", err, errNoKey)
			}
		}
		s.setKeys(publicJWK(keyB(), "b"))
		if err := verifyLogout(keyB(), "b"); !errors.Is(err, ErrKeysUnavailable) {
			t.Errorf("without budget: got error %v, want %v", err, ErrKeysUnavailable)
		}
		time.Sleep(keyFetchInterval)
		if err := verifyLogout(keyB(), "b"); err != nil {
			t.Errorf("after the interval: got error %v", err)
		}
	})
}

// TestBadSignaturesLeaveFetchForNewKeys: a bad signature of a known key id rarely
// means a new key; an unknown key id usually does.
func TestBadSignaturesLeaveFetchForNewKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		for range 10 {
			token := sign(jwt.SigningMethodES256, keyB(), s.logoutClaims(), "kid", "a")
			if _, err := c.VerifyLogoutToken(testContext(t), token); !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
				t.Fatalf("got error %v, want %v", err, jwt.ErrTokenSignatureInvalid)
			}
		}
		s.setKeys(publicJWK(keyB(), "b"))
		if _, err := c.VerifyLogoutToken(testContext(t), sign(jwt.SigningMethodES256, keyB(), s.logoutClaims(), "kid", "b")); err != nil {
			t.Errorf("new key: got error %v", err)
		}
	})
}

// TestRunningKeyFetchDoesNotHideNewKey: a forged token starts a fetch that reaches the
// server before the server changes its key.
func TestRunningKeyFetchDoesNotHideNewKey(t *testing.T) {
	for _, status := range []int{200, 503} {
		synctest.Test(t, func(t *testing.T) {
			s, c := newSynctestServer(t)
			if err := verify(t, s, c, keyA(), "a"); err != nil {
				t.Fatal(err)
			}
			old := string(must(json.Marshal(map[string]any{"keys": s.keys})))
			s.handle("/jwks", func(w http.ResponseWriter, _ *http.Request) {
				s.handle("/jwks", nil)
				time.Sleep(time.Second)
				w.WriteHeader(status)
				_, _ = w.Write([]byte(old))
			})
			go func() {
				_, _ = c.VerifyLogoutToken(testContext(t), sign(jwt.SigningMethodES256, keyB(), s.logoutClaims(), "kid", "invented"))
			}()
			synctest.Wait()
			s.setKeys(publicJWK(keyB(), "b"))
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					if err := verify(t, s, c, keyB(), "b"); err != nil {
						t.Errorf("status %d: got error %v", status, err)
					}
				})
			}
			all.Wait()
			if n := s.count("/jwks"); n != 3 {
				t.Errorf("status %d: got %d fetches, want 3", status, n)
			}
		})
	}
}

// TestKeysOutliveOutageForTwoDays: fetched keys remain usable while the server is
// down. A token of an unknown key is not called invalid during that time.
func TestKeysOutliveOutageForTwoDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		if err := verify(t, s, c, keyA(), "a"); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []struct {
			status int
			body   string
		}{{503, ""}, {200, `{"keys":[]}`}, {200, `{}`}, {200, `<html>`}, {404, ""}} {
			s.respond("/jwks", bad.status, bad.body)
			time.Sleep(2 * time.Hour)
			if err := verify(t, s, c, keyA(), "a"); err != nil {
				t.Errorf("%d %s: got error %v", bad.status, bad.body, err)
			}
			synctest.Wait()
			if err := verify(t, s, c, keyB(), "b"); !errors.Is(err, ErrKeysUnavailable) {
				t.Errorf("%d %s, unknown key: got error %v, want %v", bad.status, bad.body, err, ErrKeysUnavailable)
			}
		}
		time.Sleep(48 * time.Hour)
		if err := verify(t, s, c, keyA(), "a"); !errors.Is(err, ErrKeysUnavailable) {
			t.Errorf("after two days: got error %v, want %v", err, ErrKeysUnavailable)
		}
		s.handle("/jwks", nil)
		time.Sleep(30 * time.Second)
		if err := verify(t, s, c, keyA(), "a"); err != nil {
			t.Errorf("after the outage: got error %v", err)
		}
	})
}

// TestWithdrawnKeyIsRefusedAfterRenewal: the next renewal removes a key that the
// server has withdrawn.
func TestWithdrawnKeyIsRefusedAfterRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		s.handle("/jwks", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=600")
			writeJSON(w, map[string]any{"keys": s.keys})
		})
		s.setKeys(publicJWK(keyA(), "a"), publicJWK(keyB(), "b"))
		if err := verify(t, s, c, keyB(), "b"); err != nil {
			t.Fatal(err)
		}
		s.setKeys(publicJWK(keyA(), "a"))
		time.Sleep(10 * time.Minute)
		if err := verify(t, s, c, keyA(), "a"); err != nil { // renews in the background
			t.Fatal(err)
		}
		synctest.Wait()
		if err := verify(t, s, c, keyB(), "b"); !errors.Is(err, errNoKey) {
			t.Errorf("got error %v, want %v", err, errNoKey)
		}
	})
}

// TestFirstKeysAreRetriedEverySecond: if the keys have never been fetched, logins work
// a second after the end of the outage.
func TestFirstKeysAreRetriedEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		s.respond("/jwks", 503, "")
		for range 50 {
			if err := verify(t, s, c, keyA(), "a"); !errors.Is(err, ErrKeysUnavailable) {
				t.Fatalf("got error %v, want %v", err, ErrKeysUnavailable)
			}
			time.Sleep(time.Second)
		}
		s.handle("/jwks", nil)
		if err := verify(t, s, c, keyA(), "a"); err != nil {
			t.Error(err)
		}
	})
}

func FuzzKeySet(f *testing.F) {
	for _, keys := range [][]any{
		{publicJWK(keyA(), "a")}, {publicJWK(rsaKey(), "a", "alg", "RS256")}, {publicJWK(edKey(), "", "use", "sig")},
		{publicJWK(keyA(), "a", "crv", "P-384")}, {nil, 1}, {jose.JSONWebKey{Key: keyA()}},
	} {
		f.Add(must(json.Marshal(map[string]any{"keys": keys})))
	}
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		set, err := parseKeySet(body)
		if err != nil {
			if !isPrintable(err.Error()) {
				t.Errorf("got error %q, want short printable ASCII", err)
			}
			return
		}
		for _, k := range set.keys {
			switch k := k.public.(type) {
			case *rsa.PublicKey:
				if k.N.BitLen() < minRSABits {
					t.Errorf("accepted an RSA key of %d bits", k.N.BitLen())
				}
			case *ecdsa.PublicKey:
				if _, err := k.ECDH(); err != nil {
					t.Error(err)
				}
			case ed25519.PublicKey:
				if len(k) != ed25519.PublicKeySize {
					t.Errorf("accepted an Ed25519 key of %d bytes", len(k))
				}
			default:
				t.Errorf("accepted a key of type %T", k)
			}
		}
	})
}

// TestKeyWithoutIDIsTriedIfItIsTheOnlyOne: the token names a key that the set does
// not name.
func TestKeyWithoutIDIsTriedIfItIsTheOnlyOne(t *testing.T) {
	bare := func(key crypto.Signer, change ...any) any { return publicJWK(key, "", change...) }
	for _, tc := range []struct {
		name string
		keys []any
		kid  any
		ok   bool
	}{
		{"one key", []any{bare(keyA())}, "x", true},
		{"one key with alg", []any{bare(keyA(), "alg", "ES256")}, "x", true},
		{"empty kid", []any{bare(keyA(), "kid", "")}, "x", true},
		{"kid of a wrong type", []any{bare(keyA(), "kid", 7)}, "x", true},
		{"one of its type", []any{bare(rsaKey()), bare(edKey()), bare(key384()), bare(keyA())}, "x", true},
		{"beside keys with kid", []any{publicJWK(keyB(), "b"), bare(keyA())}, "x", true},
		{"beside an encryption key", []any{bare(keyB(), "use", "enc"), bare(keyA())}, "x", true},
		{"beside a key with another alg", []any{bare(rsaKey(), "alg", "ES256"), bare(keyA())}, "x", true},

		{"two keys", []any{bare(keyB()), bare(keyA())}, "x", false},
		{"the same key twice", []any{bare(keyA()), bare(keyA())}, "x", false},
		{"another key", []any{bare(keyB())}, "x", false},
		{"the set has the kid", []any{publicJWK(keyB(), "x"), bare(keyA())}, "x", false},
		{"the set has the kid for another type", []any{publicJWK(rsaKey(), "x"), bare(keyA())}, "x", false},
		{"another alg", []any{bare(keyA(), "alg", "ES384")}, "x", false},
		{"a key with another kid", []any{publicJWK(keyA(), "a")}, "x", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := startServer(t)
			s.setKeys(tc.keys...)
			err := verify(t, s, s.client(), keyA(), tc.kid)
			if (err == nil) != tc.ok || errors.Is(err, ErrKeysUnavailable) {
				t.Errorf("got error %v, want accepted: %v", err, tc.ok)
			}
			_, err = s.client().VerifyLogoutToken(testContext(t), sign(jwt.SigningMethodES256, keyA(), s.logoutClaims(), "kid", tc.kid))
			if (err == nil) != tc.ok {
				t.Errorf("logout token: got error %v, want accepted: %v", err, tc.ok)
			}
		})
	}
}

// TestKeyWithoutIDMayBeReplaced: the token of the new key causes a fetch, as one with
// an unknown kid does. While no fetch is allowed, a logout token is not called
// invalid.
func TestKeyWithoutIDMayBeReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		logout := func(key *ecdsa.PrivateKey) error {
			_, err := c.VerifyLogoutToken(testContext(t), sign(jwt.SigningMethodES256, key, s.logoutClaims(), "kid", "x"))
			return err
		}
		s.setKeys(publicJWK(keyA(), ""))
		if err := verify(t, s, c, keyA(), "a"); err != nil {
			t.Fatalf("first key: got error %v", err)
		}
		time.Sleep(time.Minute)
		s.setKeys(publicJWK(keyB(), ""))
		if err := verify(t, s, c, keyB(), "b"); err != nil {
			t.Errorf("second key: got error %v", err)
		}
		for range 20 {
			_ = logout(keyA()) // a forger, who spends the budget
		}
		s.setKeys(publicJWK(keyA(), ""))
		if err := logout(keyA()); !errors.Is(err, ErrKeysUnavailable) {
			t.Errorf("third key, budget spent: got error %v, want %v", err, ErrKeysUnavailable)
		}
		time.Sleep(5 * time.Minute)
		if err := logout(keyA()); err != nil {
			t.Errorf("third key, later: got error %v", err)
		}
	})
}

package oauth

import (
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

// TestOddKeysAreSkipped: each odd key alone makes an unusable set, and costs
// nothing beside a good one.
func TestOddKeysAreSkipped(t *testing.T) {
	good := publicJWK(keyA(), "a")
	var many []any
	for i := range 500 {
		many = append(many, map[string]any{"kty": "XYZ", "kid": fmt.Sprint(i)})
	}
	for name, odd := range map[string][]any{
		"unknown kty":      {map[string]any{"kty": "XYZ", "kid": "a"}},
		"unknown curve":    {publicJWK(keyA(), "a", "crv", "P-999")},
		"no n":             {publicJWK(rsaKey(), "a", "n", nil)},
		"no x":             {publicJWK(keyA(), "a", "x", nil)},
		"not on the curve": {publicJWK(keyA(), "a", "x", publicJWK(keyB(), "")["x"])},
		"weak RSA":         {publicJWK(weakRSA(), "a")},
		"exponent 1":       {publicJWK(rsaKey(), "a", "e", "AQ")},
		"even exponent":    {publicJWK(rsaKey(), "a", "e", "BA")},
		"oct":              {map[string]any{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}},
		"use enc":          {publicJWK(keyA(), "a", "use", "enc")},
		"use of odd type":  {publicJWK(keyA(), "a", "use", 7)},
		"ops without":      {publicJWK(keyA(), "a", "key_ops", []string{"encrypt"})},
		"ops of odd type":  {publicJWK(keyA(), "a", "key_ops", "verify")},
		"no object":        {"a", 7, nil, []any{}},
		"five hundred":     many,
	} {
		t.Run(name, func(t *testing.T) {
			if set, err := parseKeySet(must(json.Marshal(map[string]any{"keys": odd}))); err == nil {
				t.Errorf("alone: accepted %d keys", len(set.keys))
			}
			set, err := parseKeySet(must(json.Marshal(map[string]any{"keys": append(odd, good)})))
			if err != nil || len(set.keys) != 1 {
				t.Errorf("beside a good key: %d keys, %v", len(set.keys), err)
			}
		})
	}
}

// TestPrivateKeysAndChains: private members are dropped, and a certificate
// chain that does not parse does not cost the key.
func TestPrivateKeysAndChains(t *testing.T) {
	for name, key := range map[string]any{
		"private": jose.JSONWebKey{Key: keyA(), KeyID: "a"},
		"chain":   publicJWK(keyA(), "a", "x5c", []string{"junk"}),
		"use sig": publicJWK(keyA(), "a", "use", "sig", "key_ops", []string{"sign", "verify"}),
		"nulls":   publicJWK(keyA(), "a", "use", json.RawMessage("null"), "key_ops", json.RawMessage("null")),
	} {
		set, err := parseKeySet(must(json.Marshal(map[string]any{"keys": []any{key}})))
		if err != nil || len(set.keys) != 1 {
			t.Errorf("%s: %d keys, %v", name, len(set.keys), err)
			continue
		}
		if k, ok := set.keys[0].public.(*ecdsa.PublicKey); !ok || !k.Equal(keyA().Public()) {
			t.Errorf("%s: got %T", name, set.keys[0].public)
		}
	}
}

func TestKeySetBounds(t *testing.T) {
	var keys []any
	for range maxKeys + 5 {
		keys = append(keys, publicJWK(edKey(), ""))
	}
	set, err := parseKeySet(must(json.Marshal(map[string]any{"keys": keys})))
	if err != nil || len(set.keys) != maxKeys {
		t.Fatalf("%d keys, %v", len(set.keys), err)
	}
	if n := len(set.find("", "EdDSA")); n != maxTries {
		t.Errorf("%d keys would be tried", n)
	}
}

// TestKeyChoice: kid, type, curve and the key's own alg must all fit.
func TestKeyChoice(t *testing.T) {
	s := startServer(t)
	s.setKeys(
		publicJWK(rsaKey(), "same"), publicJWK(key384(), "same"), publicJWK(keyA(), "same"), publicJWK(edKey(), "same"),
		publicJWK(rsaKey(), "rs256", "alg", "RS256"),
		publicJWK(rsaKey(), "enc", "use", "enc"),
	)
	c := s.client()
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
		{jwt.SigningMethodES256, keyA(), nil, true}, // no kid: all fitting keys
		{jwt.SigningMethodEdDSA, edKey(), nil, true},
		{jwt.SigningMethodRS256, rsaKey(), "rs256", true},
		{jwt.SigningMethodPS256, rsaKey(), "rs256", false},
		{jwt.SigningMethodRS256, rsaKey(), "enc", false},
		{jwt.SigningMethodES256, keyA(), "other", false},
		{jwt.SigningMethodES256, keyB(), "same", false},
		{jwt.SigningMethodES256, keyB(), nil, false},
	}
	for _, tc := range tests {
		token := sign(tc.method, tc.key, s.idClaims(), "kid", tc.kid)
		if _, err := c.VerifyIDToken(within(t), token, IDTokenExpectation{Nonce: testNonce}); (err == nil) != tc.ok {
			t.Errorf("%s, kid %v: got %v", tc.method.Alg(), tc.kid, err)
		}
	}
}

// verify checks an ID token signed with the given key under the given kid.
func verify(t testing.TB, s *server, c *Client, key *ecdsa.PrivateKey, kid any) error {
	token := sign(jwt.SigningMethodES256, key, s.idClaims(), "kid", kid)
	_, err := c.VerifyIDToken(within(t), token, IDTokenExpectation{Nonce: testNonce})
	noCanary(t, err)
	return err
}

// TestKeyRotation: a new key costs one fetch, announced by its kid or not.
func TestKeyRotation(t *testing.T) {
	for name, kids := range map[string][2]any{
		"new kid": {"a", "b"}, "same kid": {"a", "a"}, "no kid": {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := bubbleServer(t)
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
					t.Errorf("fetched %d times", n)
				}
				if err := verify(t, s, c, keyA(), kids[0]); err == nil || errors.Is(err, ErrKeysUnavailable) {
					t.Errorf("the removed key: got %v", err)
				}
			})
		})
	}
}

// TestUnknownKeyStorm: made-up key ids and bad signatures become no more
// requests than a short burst, and then one in 30 seconds.
func TestUnknownKeyStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := bubbleServer(t)
		if err := verify(t, s, c, keyA(), "a"); err != nil {
			t.Fatal(err)
		}
		storm := func() {
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					if err := verify(t, s, c, keyB(), fmt.Sprint("made up ", i)); !errors.Is(err, errNoKey) {
						t.Errorf("got %v", err)
					}
					if err := verify(t, s, c, keyB(), "a"); !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
						t.Errorf("got %v", err)
					}
				})
			}
			wg.Wait()
		}
		storm()
		storm()
		if n := s.count("/jwks"); n != 1+keyBurst {
			t.Errorf("fetched %d times, want the first and a burst", n)
		}
		time.Sleep(30 * time.Second)
		storm()
		if n := s.count("/jwks"); n != 2+keyBurst {
			t.Errorf("fetched %d times", n)
		}
	})
}

// TestMadeUpLogoutTokensLeaveTheKeysToOthers: whatever anybody sends to the
// logout endpoint, a key that the server has just begun to use is found for the
// next login and the next refresh, at once and several times.
func TestMadeUpLogoutTokensLeaveTheKeysToOthers(t *testing.T) {
	for name, garbage := range map[string]func(s *server, i int) string{
		"made-up kid": func(s *server, i int) string {
			return sign(jwt.SigningMethodES256, keyB(), s.logoutClaims(), "kid", fmt.Sprint("made up ", i), "typ", "logout+jwt")
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
					s, c := bubbleServer(t)
					if err := verify(t, s, c, keyA(), "a"); err != nil {
						t.Fatal(err)
					}
					if down {
						s.answer("/jwks", 503, "")
					}
					for i := range 20 {
						if _, err := c.VerifyLogoutToken(within(t), garbage(s, i)); err == nil {
							t.Fatal("the made-up token is accepted")
						}
						time.Sleep(500 * time.Millisecond)
					}
					s.handle("/jwks", nil)
					if n := s.count("/jwks"); n > 1+keyBurst+1 {
						t.Errorf("fetched %d times", n)
					}
					for _, kid := range []string{"b", "c", "d"} {
						key := newECKey(elliptic.P256())
						s.setKeys(publicJWK(key, kid))
						if err := verify(t, s, c, key, kid); err != nil {
							t.Errorf("login, key %s: %v", kid, err)
						}
						key = newECKey(elliptic.P256())
						s.setKeys(publicJWK(key, kid+kid))
						token := sign(jwt.SigningMethodES256, key, s.idClaims(), "kid", kid+kid)
						if _, err := c.VerifyRefreshedIDToken(within(t), token, RefreshedIDTokenExpectation{Subject: "alice"}); err != nil {
							t.Errorf("refresh, key %s: %v", kid+kid, err)
						}
					}
				})
			})
		}
	}
}

// TestLogoutTokenOfANewKeyIsNotCalledInvalid while made-up tokens have used up
// what may be fetched for logouts: it may be good, and is to be sent again.
func TestLogoutTokenOfANewKeyIsNotCalledInvalid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := bubbleServer(t)
		made := func(key *ecdsa.PrivateKey, kid string) error {
			_, err := c.VerifyLogoutToken(within(t), sign(jwt.SigningMethodES256, key, s.logoutClaims(), "kid", kid))
			return err
		}
		if err := made(keyA(), "a"); err != nil {
			t.Fatal(err)
		}
		for i := range keyBurst {
			if err := made(keyB(), fmt.Sprint(i)); !errors.Is(err, errNoKey) || errors.Is(err, ErrKeysUnavailable) {
				t.Errorf("made up: %v", err)
			}
		}
		s.setKeys(publicJWK(keyB(), "b"))
		if err := made(keyB(), "b"); !errors.Is(err, ErrKeysUnavailable) {
			t.Errorf("at once: %v", err)
		}
		time.Sleep(keyGap)
		if err := made(keyB(), "b"); err != nil {
			t.Errorf("a pause later: %v", err)
		}
	})
}

// TestBadSignaturesLeaveAFetchToNewKeys: a known key id with a bad signature
// rarely means a new key, an unknown one usually does.
func TestBadSignaturesLeaveAFetchToNewKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := bubbleServer(t)
		for range 10 {
			token := sign(jwt.SigningMethodES256, keyB(), s.logoutClaims(), "kid", "a")
			if _, err := c.VerifyLogoutToken(within(t), token); !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
				t.Fatalf("got %v", err)
			}
		}
		s.setKeys(publicJWK(keyB(), "b"))
		if _, err := c.VerifyLogoutToken(within(t), sign(jwt.SigningMethodES256, keyB(), s.logoutClaims(), "kid", "b")); err != nil {
			t.Errorf("the new key: %v", err)
		}
	})
}

// TestKeyFetchUnderWayDoesNotHideANewKey: a fetch that a made-up token began
// reached the server before it changed its key.
func TestKeyFetchUnderWayDoesNotHideANewKey(t *testing.T) {
	for _, status := range []int{200, 503} {
		synctest.Test(t, func(t *testing.T) {
			s, c := bubbleServer(t)
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
				_, _ = c.VerifyLogoutToken(within(t), sign(jwt.SigningMethodES256, keyB(), s.logoutClaims(), "kid", "made up"))
			}()
			synctest.Wait()
			s.setKeys(publicJWK(keyB(), "b"))
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					if err := verify(t, s, c, keyB(), "b"); err != nil {
						t.Errorf("status %d: %v", status, err)
					}
				})
			}
			all.Wait()
			if n := s.count("/jwks"); n != 3 {
				t.Errorf("status %d: fetched %d times", status, n)
			}
		})
	}
}

// TestKeysDown: fetched keys work on while the server is down, for two days;
// what cannot be judged without new keys is not called invalid.
func TestKeysDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := bubbleServer(t)
		if err := verify(t, s, c, keyA(), "a"); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []struct {
			status int
			body   string
		}{{503, ""}, {200, `{"keys":[]}`}, {200, `{}`}, {200, `<html>`}, {404, ""}} {
			s.answer("/jwks", bad.status, bad.body)
			time.Sleep(2 * time.Hour)
			if err := verify(t, s, c, keyA(), "a"); err != nil {
				t.Errorf("%d %s: %v", bad.status, bad.body, err)
			}
			synctest.Wait()
			if err := verify(t, s, c, keyB(), "b"); !errors.Is(err, ErrKeysUnavailable) {
				t.Errorf("%d %s, unknown key: got %v", bad.status, bad.body, err)
			}
		}
		time.Sleep(48 * time.Hour)
		if err := verify(t, s, c, keyA(), "a"); !errors.Is(err, ErrKeysUnavailable) {
			t.Errorf("after two days: got %v", err)
		}
		s.handle("/jwks", nil)
		time.Sleep(30 * time.Second)
		if err := verify(t, s, c, keyA(), "a"); err != nil {
			t.Errorf("after the outage: %v", err)
		}
	})
}

// TestWithdrawnKey: a key that the server removed is out at the next renewal.
func TestWithdrawnKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := bubbleServer(t)
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
		if err := verify(t, s, c, keyA(), "a"); err != nil { // renews behind
			t.Fatal(err)
		}
		synctest.Wait()
		if err := verify(t, s, c, keyB(), "b"); !errors.Is(err, errNoKey) {
			t.Errorf("got %v", err)
		}
	})
}

// TestColdKeys: a server that is down at the first login is usable a second
// after it is back.
func TestColdKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := bubbleServer(t)
		s.answer("/jwks", 503, "")
		for range 50 {
			if err := verify(t, s, c, keyA(), "a"); !errors.Is(err, ErrKeysUnavailable) {
				t.Fatalf("got %v", err)
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
			if !printable(err.Error()) {
				t.Errorf("bad error %q", err)
			}
			return
		}
		for _, k := range set.keys {
			switch k := k.public.(type) {
			case *rsa.PublicKey:
				if k.N.BitLen() < minRSABits {
					t.Errorf("accepted %d bits", k.N.BitLen())
				}
			case *ecdsa.PublicKey:
				if _, err := k.ECDH(); err != nil {
					t.Error(err)
				}
			case ed25519.PublicKey:
				if len(k) != ed25519.PublicKeySize {
					t.Errorf("accepted %d bytes", len(k))
				}
			default:
				t.Errorf("accepted %T", k)
			}
		}
	})
}

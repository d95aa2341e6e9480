package fakeas

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// publishedKeys returns the keys of the JWKS by kid, without the OddKeys.
func (g *rig) publishedKeys() map[string]crypto.PublicKey {
	g.t.Helper()
	keys := map[string]crypto.PublicKey{}
	list, _ := g.get("/jwks").json["keys"].([]any)
	for _, one := range list {
		m, _ := one.(map[string]any)
		bytes := func(name string) []byte {
			b, err := base64.RawURLEncoding.DecodeString(fmt.Sprint(m[name]))
			if err != nil {
				g.t.Fatalf("decoding %s: %v", name, err)
			}
			return b
		}
		kid, _ := m["kid"].(string)
		switch {
		case strings.HasPrefix(kid, "odd-"):
		case m["kty"] == "RSA":
			keys[kid] = &rsa.PublicKey{N: new(big.Int).SetBytes(bytes("n")), E: int(new(big.Int).SetBytes(bytes("e")).Int64())}
		case m["kty"] == "EC":
			key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, bytes("x"), bytes("y")))
			if err != nil {
				g.t.Fatal(err)
			}
			keys[kid] = key
		case m["kty"] == "OKP":
			keys[kid] = ed25519.PublicKey(bytes("x"))
		}
	}
	return keys
}

// verify verifies an ID token strictly.
func (g *rig) verify(token, access string) (jwt.MapClaims, error) {
	g.t.Helper()
	keys := g.publishedKeys()
	claims := jwt.MapClaims{}
	parsed, err := jwt.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if t.Header["typ"] != "JWT" || t.Header["crit"] != nil {
			return nil, fmt.Errorf("header %v", t.Header)
		}
		if key := keys[fmt.Sprint(t.Header["kid"])]; key != nil {
			return key, nil
		}
		return nil, fmt.Errorf("no key %v", t.Header["kid"])
	}, jwt.WithValidMethods([]string{g.as.Knobs().SigningAlg}), jwt.WithIssuer("https://as.test"),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt())
	if err != nil {
		return nil, err
	}
	for name, want := range map[string]any{"aud": "app", "nonce": "n0nce", "sub": DefaultUser, "at_hash": atHash(fmt.Sprint(parsed.Header["alg"]), access)} {
		if claims[name] != want {
			return nil, fmt.Errorf("got %s %v, want %v", name, claims[name], want)
		}
	}
	authTime, _ := claims["auth_time"].(float64)
	switch {
	case claims["azp"] != nil && claims["azp"] != "app":
		return nil, fmt.Errorf("got azp %v, want app", claims["azp"])
	case claims["iat"] == nil:
		return nil, fmt.Errorf("no iat")
	case claims["acr"] != "gold":
		return nil, fmt.Errorf("got acr %v, want gold", claims["acr"])
	case time.Since(time.Unix(int64(authTime), 0)) > time.Hour:
		return nil, fmt.Errorf("auth_time is old")
	}
	return claims, nil
}

func TestIDTokensAreValidForEachAlgorithm(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			g := newRig(t, func(k *Knobs) { k.SigningAlg = alg })
			r := g.login("acr_values", "gold silver")
			claims, err := g.verify(r.text("id_token"), r.text("access_token"))
			if err != nil {
				t.Fatal(err)
			}
			if sid := g.as.Tokens()[0].Family; claims["sid"] != sid || claims["email"] != "alice@example.test" {
				t.Errorf("got claims %v, want the sid %s and alice's email", claims, sid)
			}
			r = g.wantRefreshed(r.text("refresh_token"))
			if _, err := g.verify(r.text("id_token"), r.text("access_token")); err != nil {
				t.Errorf("verifying the ID token of the refresh: %v", err)
			}
		})
	}
}

// TestEachDefectInvalidatesTheToken uses one server per algorithm, since RSA
// keys are slow to generate.
func TestEachDefectInvalidatesTheToken(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256"} {
		g := newRig(t, func(k *Knobs) { k.SigningAlg = alg })
		g.authorize("nonce", "of-another-login")
		for _, defect := range Defects() {
			g.as.Set(func(k *Knobs) { k.LoginIDToken.Defect = defect })
			r := g.login("acr_values", "gold")
			if _, err := g.verify(r.text("id_token"), r.text("access_token")); err == nil {
				t.Errorf("%s, %s: the login's token is valid, want an error", alg, defect)
			}
			// The defect is for the login's token only.
			r = g.wantRefreshed(r.text("refresh_token"))
			if _, err := g.verify(r.text("id_token"), r.text("access_token")); err != nil {
				t.Errorf("%s, %s: verifying the ID token of the refresh: %v", alg, defect, err)
			}
		}
	}
}

// TestDefectChangesOnlyItsPart checks that the signature is valid if the defect
// concerns a claim only.
func TestDefectChangesOnlyItsPart(t *testing.T) {
	g := newRig(t)
	g.authorize("nonce", "of-another-login")
	tests := []struct {
		defect  Defect
		keys    func(*jwt.Token) (any, error)
		claim   string
		want    any
		refused bool
	}{
		{DefectIssuerSlash, nil, "iss", "https://as.test/", false},
		{DefectOtherNonce, nil, "nonce", "of-another-login", false},
		{DefectEmptySubject, nil, "sub", "", false},
		{DefectHMACSecret, func(*jwt.Token) (any, error) { return []byte("s3cret"), nil }, "sub", "alice", false},
		{DefectFlipped, nil, "", nil, true},
		{DefectKey, nil, "", nil, true},
		{DefectAudience, nil, "aud", "other-client", false},
	}
	for _, tt := range tests {
		g.as.Set(func(k *Knobs) { k.LoginIDToken.Defect = tt.defect })
		token := g.login().text("id_token")
		published := g.publishedKeys()
		claims := jwt.MapClaims{}
		keys := tt.keys
		if keys == nil {
			keys = func(t *jwt.Token) (any, error) { return published[fmt.Sprint(t.Header["kid"])], nil }
		}
		_, err := jwt.ParseWithClaims(token, claims, keys)
		if (err != nil) != tt.refused || tt.claim != "" && claims[tt.claim] != tt.want {
			t.Errorf("%s: got error %v (want one: %t) and %s %v, want %v", tt.defect, err, tt.refused, tt.claim, claims[tt.claim], tt.want)
		}
	}
}

func TestEditsChangeHeaderAndClaims(t *testing.T) {
	g := newRig(t, func(k *Knobs) {
		k.LoginIDToken = TokenEdit{
			Header: Edit{Set: map[string]any{"typ": "x"}, Omit: []string{"kid"}},
			Claims: Edit{Set: map[string]any{"groups": nil, "n": json.RawMessage("1.0")}, Omit: []string{"email"}},
		}
		k.RefreshSubject = "mallory"
		k.GroupsOverage = true
	})
	r := g.login()
	part := strings.Split(r.text("id_token"), ".")
	header, _ := base64.RawURLEncoding.DecodeString(part[0])
	claims, _ := base64.RawURLEncoding.DecodeString(part[1])
	if string(header) != `{"alg":"ES256","typ":"x"}` {
		t.Errorf("got header %s", header)
	}
	for text, want := range map[string]bool{`"groups":null`: true, `"n":1.0`: true, `"email":`: false, "_claim_names": true, `"sub":"alice"`: true} {
		if strings.Contains(string(claims), text) != want {
			t.Errorf("claims contain %s: got %t, want %t: %s", text, !want, want, claims)
		}
	}
	r = g.wantRefreshed(r.text("refresh_token"))
	claims, _ = base64.RawURLEncoding.DecodeString(strings.Split(r.text("id_token"), ".")[1])
	if !strings.Contains(string(claims), `"sub":"mallory"`) {
		t.Errorf("claims of the refresh: got %s, want the subject mallory", claims)
	}
	g.as.Set(func(k *Knobs) { k.UserInfo.Set = map[string]any{"sub": "eve"} })
	if info := g.bearer("/userinfo", r.text("access_token")); info.text("sub") != "eve" || info.json["groups"] != nil || info.json["_claim_names"] == nil {
		t.Errorf("userinfo: got %s, want the subject eve and claim names in place of groups", info.body)
	}
}

func TestClockOffsetShiftsTimesButNotLifetimes(t *testing.T) {
	g := newRig(t, func(k *Knobs) { k.ClockOffset = time.Hour })
	r := g.login("acr_values", "gold")
	if _, err := g.verify(r.text("id_token"), r.text("access_token")); err == nil || !strings.Contains(err.Error(), "before issued") {
		t.Errorf("verifying an ID token of the future: got error %v, want one about iat", err)
	}
	if !g.valid(r.text("access_token")) {
		t.Error("the access token is invalid, want the offset to leave its lifetime alone")
	}
	if at, err := time.Parse(time.RFC1123, r.header.Get("Date")); err != nil || time.Until(at) < 50*time.Minute {
		t.Errorf("got Date %q, want one in an hour", r.header.Get("Date"))
	}
}

func TestKeysRotateRetireAndAreReplaced(t *testing.T) {
	g := newRig(t)
	verify := func(r result) error {
		_, err := g.verify(r.text("id_token"), r.text("access_token"))
		return err
	}
	first := g.login("acr_values", "gold")
	g.as.RotateKey()
	second := g.login("acr_values", "gold")
	if verify(first) != nil || verify(second) != nil || len(g.publishedKeys()) != 2 {
		t.Errorf("after RotateKey: got errors %v and %v and %d keys, want none, none and 2", verify(first), verify(second), len(g.publishedKeys()))
	}
	g.as.RetireKeys()
	if verify(first) == nil || verify(second) != nil {
		t.Errorf("after RetireKeys: got errors %v and %v, want one and none", verify(first), verify(second))
	}
	if err := g.as.ReplaceKey(); err != nil {
		t.Fatal(err)
	}
	third := g.login("acr_values", "gold")
	if verify(second) == nil || verify(third) != nil || len(g.publishedKeys()) != 1 {
		t.Errorf("after ReplaceKey: got errors %v and %v and %d keys, want one, none and 1", verify(second), verify(third), len(g.publishedKeys()))
	}
	g.as.Set(func(k *Knobs) { k.ExtraKeys = OddKeys("key-2") })
	if keys := g.get("/jwks").json["keys"].([]any); len(keys) != 507 || verify(third) != nil {
		t.Errorf("with OddKeys: got %d keys and error %v, want 507 and none", len(keys), verify(third))
	}
}

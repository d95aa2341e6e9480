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

// published reads the JWKS as a client would.
func (g *rig) published() map[string]crypto.PublicKey {
	g.t.Helper()
	keys := map[string]crypto.PublicKey{}
	list, _ := g.get("/jwks").json["keys"].([]any)
	for _, one := range list {
		m, _ := one.(map[string]any)
		bytes := func(name string) []byte {
			b, err := base64.RawURLEncoding.DecodeString(fmt.Sprint(m[name]))
			if err != nil {
				g.t.Fatalf("%s: %v", name, err)
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

// check verifies an ID token the way a careful client does.
func (g *rig) check(token, access string) (jwt.MapClaims, error) {
	g.t.Helper()
	keys := g.published()
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
			return nil, fmt.Errorf("%s is %v, want %v", name, claims[name], want)
		}
	}
	authTime, _ := claims["auth_time"].(float64)
	switch {
	case claims["azp"] != nil && claims["azp"] != "app":
		return nil, fmt.Errorf("azp is %v", claims["azp"])
	case claims["iat"] == nil:
		return nil, fmt.Errorf("no iat")
	case claims["acr"] != "gold":
		return nil, fmt.Errorf("acr is %v", claims["acr"])
	case time.Since(time.Unix(int64(authTime), 0)) > time.Hour:
		return nil, fmt.Errorf("auth_time is old")
	}
	return claims, nil
}

func TestIDTokens(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			g := newRig(t, func(k *Knobs) { k.SigningAlg = alg })
			r := g.login("acr_values", "gold silver")
			claims, err := g.check(r.text("id_token"), r.text("access_token"))
			if err != nil {
				t.Fatal(err)
			}
			if sid := g.as.Tokens()[0].Family; claims["sid"] != sid || claims["email"] != "alice@example.test" {
				t.Errorf("claims: %v", claims)
			}
			r = g.wantRefreshed(r.text("refresh_token"))
			if _, err := g.check(r.text("id_token"), r.text("access_token")); err != nil {
				t.Errorf("refreshed: %v", err)
			}
		})
	}
}

// TestDefects shows that each defect spoils an otherwise good token. The slow
// RSA keys are made once.
func TestDefects(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256"} {
		g := newRig(t, func(k *Knobs) { k.SigningAlg = alg })
		g.authorize("nonce", "of-another-login")
		for _, defect := range Defects() {
			g.as.Set(func(k *Knobs) { k.LoginIDToken.Defect = defect })
			r := g.login("acr_values", "gold")
			if _, err := g.check(r.text("id_token"), r.text("access_token")); err == nil {
				t.Errorf("%s, %s: nothing is wrong with the token", alg, defect)
			}
			// The refreshed token is not touched.
			r = g.wantRefreshed(r.text("refresh_token"))
			if _, err := g.check(r.text("id_token"), r.text("access_token")); err != nil {
				t.Errorf("%s, %s: refreshed: %v", alg, defect, err)
			}
		}
	}
}

// TestDefectsAreWhatTheySay spot-checks those whose name could lie: the
// signature must be good where only a claim is to be wrong.
func TestDefectsAreWhatTheySay(t *testing.T) {
	g := newRig(t, func(k *Knobs) { k.SigningAlg = "ES256" })
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
		{DefectAudience, nil, "aud", "somebody-else", false},
	}
	for _, tt := range tests {
		g.as.Set(func(k *Knobs) { k.LoginIDToken.Defect = tt.defect })
		token := g.login().text("id_token")
		published := g.published()
		claims := jwt.MapClaims{}
		keys := tt.keys
		if keys == nil {
			keys = func(t *jwt.Token) (any, error) { return published[fmt.Sprint(t.Header["kid"])], nil }
		}
		_, err := jwt.ParseWithClaims(token, claims, keys)
		if (err != nil) != tt.refused || tt.claim != "" && claims[tt.claim] != tt.want {
			t.Errorf("%s: %v, %s = %v", tt.defect, err, tt.claim, claims[tt.claim])
		}
	}
}

func TestIDTokenEdits(t *testing.T) {
	g := newRig(t, func(k *Knobs) {
		k.SigningAlg = "ES256"
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
		t.Errorf("header: %s", header)
	}
	for text, want := range map[string]bool{`"groups":null`: true, `"n":1.0`: true, `"email":`: false, "_claim_names": true, `"sub":"alice"`: true} {
		if strings.Contains(string(claims), text) != want {
			t.Errorf("%s there: %t in %s", text, !want, claims)
		}
	}
	r = g.wantRefreshed(r.text("refresh_token"))
	claims, _ = base64.RawURLEncoding.DecodeString(strings.Split(r.text("id_token"), ".")[1])
	if !strings.Contains(string(claims), `"sub":"mallory"`) {
		t.Errorf("refreshed claims: %s", claims)
	}
	g.as.Set(func(k *Knobs) { k.UserInfo.Set = map[string]any{"sub": "eve"} })
	if info := g.bearer("/userinfo", r.text("access_token")); info.text("sub") != "eve" || info.json["groups"] != nil || info.json["_claim_names"] == nil {
		t.Errorf("userinfo: %s", info.body)
	}
}

func TestClockOffset(t *testing.T) {
	g := newRig(t, func(k *Knobs) { k.SigningAlg, k.ClockOffset = "ES256", time.Hour })
	r := g.login("acr_values", "gold")
	if _, err := g.check(r.text("id_token"), r.text("access_token")); err == nil || !strings.Contains(err.Error(), "before issued") {
		t.Errorf("token from the future: %v", err)
	}
	if !g.valid(r.text("access_token")) {
		t.Error("the offset must not change how long tokens live")
	}
	if at, err := time.Parse(time.RFC1123, r.header.Get("Date")); err != nil || time.Until(at) < 50*time.Minute {
		t.Errorf("Date: %q", r.header.Get("Date"))
	}
}

func TestKeyRotation(t *testing.T) {
	g := newRig(t, func(k *Knobs) { k.SigningAlg = "ES256" })
	checked := func(r result) error {
		_, err := g.check(r.text("id_token"), r.text("access_token"))
		return err
	}
	first := g.login("acr_values", "gold")
	g.as.RotateKey()
	second := g.login("acr_values", "gold")
	if checked(first) != nil || checked(second) != nil || len(g.published()) != 2 {
		t.Errorf("after rotation: %v, %v, %d keys", checked(first), checked(second), len(g.published()))
	}
	g.as.RetireKeys()
	if checked(first) == nil || checked(second) != nil {
		t.Errorf("after retiring: %v, %v", checked(first), checked(second))
	}
	if err := g.as.ReplaceKey(); err != nil {
		t.Fatal(err)
	}
	third := g.login("acr_values", "gold")
	if checked(second) == nil || checked(third) != nil || len(g.published()) != 1 {
		t.Errorf("after replacing: %v, %v, %d keys", checked(second), checked(third), len(g.published()))
	}
	g.as.Set(func(k *Knobs) { k.ExtraKeys = OddKeys("key-2") })
	if keys := g.get("/jwks").json["keys"].([]any); len(keys) != 507 || checked(third) != nil {
		t.Errorf("%d keys, %v", len(keys), checked(third))
	}
}

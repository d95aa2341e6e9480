package security

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestS128AssertionsAreForOneServer: a client with a key sends no secret. Each assertion
// has the issuer as its only audience, a new jti and a short life, and is signed as the
// published key says. Neither the key nor an assertion is found anywhere else.
func TestS128AssertionsAreForOneServer(t *testing.T) {
	w := shared(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	w.addSecret(strings.Split(string(text), "\n")[1]) // the first line of base64
	v := &variant{name: "keyed", keyFile: filepath.Join(t.TempDir(), "client.pem")}
	if err := os.WriteFile(v.keyFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	w.addVariants(t, v)
	kid := publishedKeyID(t, v)
	v.idp.SetAssertionKeys(clientID, map[string]crypto.PublicKey{kid: key.Public()})
	announceLifetimes(v.idp, 1, 3600)
	b := w.browser()
	v.login(t, b, "u")
	eventually(t, "refresh", func() bool {
		v.get(t, b, "/x")
		return v.refreshes() > 0
	})
	if resp := b.xhr(t, http.MethodPost, v.url+"/oauth2/logout"); resp.Status != http.StatusOK {
		t.Fatalf("logout: got %v, want 200", resp)
	}
	eventually(t, "revocation", func() bool { return len(v.idp.Log(fakeas.EndpointRevoke)) > 0 })
	seen := map[string]bool{}
	for _, e := range v.idp.Log(fakeas.EndpointToken, fakeas.EndpointRevoke) {
		assertion := e.Form.Get("client_assertion")
		w.addSecret(tail(assertion))
		// The server has checked audience, type and signature.
		if e.AuthMethod != fakeas.AuthPrivateKeyJWT || e.Status != http.StatusOK || e.Form.Has("client_secret") || e.Header.Get("Authorization") != "" {
			t.Errorf("got %s with status %d (%s), want private_key_jwt alone and 200", e.AuthMethod, e.Status, e.Reason)
		}
		var claims struct {
			JTI      string
			IAT, EXP int64
		}
		if err := json.Unmarshal(decodeSegment(assertion, 1), &claims); err != nil {
			t.Fatal(err)
		}
		if seen[claims.JTI] || len(claims.JTI) < 16 || claims.EXP-claims.IAT > 300 || claims.EXP <= claims.IAT {
			t.Errorf("got jti %q (seen before: %v), valid for %d s; want a new one, valid for 300 s at most", claims.JTI, seen[claims.JTI], claims.EXP-claims.IAT)
		}
		seen[claims.JTI] = true
	}
	if len(seen) < 3 {
		t.Errorf("got %d assertions, want those of a login, a refresh and a revocation", len(seen))
	}
}

// publishedKeyID returns the kid of the only key in jwks.json, which has no private part.
func publishedKeyID(t *testing.T, v *variant) string {
	t.Helper()
	resp := v.get(t, v.w.browser(), "/oauth2/jwks.json")
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(resp.Body, &set); err != nil || len(set.Keys) != 1 || set.Keys[0]["d"] != "" {
		t.Fatalf("jwks.json: got %v: %s, want one public key", resp, resp.Body)
	}
	return set.Keys[0]["kid"]
}

package handler

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// clientKeyFile writes a new private key to a file.
func clientKeyFile(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// withClientKey configures private_key_jwt.
func withClientKey(t *testing.T) func(*setup) {
	return func(s *setup) {
		s.oauth.ClientSecret, s.oauth.ClientKeyFile = nil, clientKeyFile(t)
		s.oauth.Scopes = []string{"openid", "email"}
	}
}

// TestClientMetadataSaysWhatToRegister: the document has no statement that is not true,
// and needs neither a session nor the authorization server.
func TestClientMetadataSaysWhatToRegister(t *testing.T) {
	const base = appOrigin + "/oauth2"
	full := map[string]any{
		"client_id": "app", "application_type": "web", "redirect_uris": []any{base + "/callback"},
		"post_logout_redirect_uris": []any{base + "/logout/callback"}, "backchannel_logout_uri": base + "/backchannel_logout",
		"grant_types": []any{"authorization_code", "refresh_token"}, "response_types": []any{"code"}, "scope": "openid email",
		"token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": "ES256", "jwks_uri": base + "/jwks.json",
	}
	changed := func(change map[string]any) map[string]any {
		m := map[string]any{}
		for _, from := range []map[string]any{full, change} {
			for name, value := range from {
				if m[name] = value; value == nil {
					delete(m, name)
				}
			}
		}
		return m
	}
	for name, tc := range map[string]struct {
		options []func(*setup)
		want    map[string]any
	}{
		"key": {[]func(*setup){withClientKey(t)}, full},
		"secret, method unknown": {[]func(*setup){withClientKey(t), func(s *setup) {
			s.oauth.ClientSecret, s.oauth.ClientKeyFile = func() (string, error) { return clientSecret, nil }, ""
		}}, changed(map[string]any{"token_endpoint_auth_method": nil, "token_endpoint_auth_signing_alg": nil, "jwks_uri": nil})},
		"public, plain OAuth": {[]func(*setup){plainOAuth, func(s *setup) { s.oauth.ClientSecret = nil }}, changed(map[string]any{
			"token_endpoint_auth_method": "none", "token_endpoint_auth_signing_alg": nil, "jwks_uri": nil,
			"post_logout_redirect_uris": nil, "backchannel_logout_uri": nil, "scope": nil,
		})},
		"prefix": {[]func(*setup){withClientKey(t), func(s *setup) { s.handler.PathPrefix = "/auth" }}, changed(map[string]any{
			"redirect_uris": []any{appOrigin + "/auth/callback"}, "post_logout_redirect_uris": []any{appOrigin + "/auth/logout/callback"},
			"backchannel_logout_uri": appOrigin + "/auth/backchannel_logout", "jwks_uri": appOrigin + "/auth/jwks.json",
		})},
		"client ID metadata document": {[]func(*setup){withClientKey(t), func(s *setup) { s.oauth.ClientID = base + "/client.json" }}, changed(map[string]any{
			"client_id": base + "/client.json",
		})},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, tc.options...)
			a := g.get(g.handler.PathPrefix + "/client.json")
			var got map[string]any
			if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 || a.header.Get("Content-Type") != "application/json" {
				t.Fatalf("got status %d, Content-Type %s, error %v in %q; want a document", a.status, a.header.Get("Content-Type"), err, a.body)
			}
			delete(got, "initiate_login_uri") // see the test below
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("client.json (-want +got):\n%s", diff)
			}
			if a.header.Get("Cache-Control") != "no-store" || a.header.Values("Set-Cookie") != nil {
				t.Errorf("got Cache-Control %q, cookies %v; want no-store and none", a.header.Get("Cache-Control"), a.header.Values("Set-Cookie"))
			}
			if n := len(g.as.Log()); n != 0 {
				t.Errorf("got %d requests at the authorization server, want none", n)
			}
		})
	}
}

// TestOtherMetadataDocumentIsNotContradicted: a client_id that is a URL names the only
// document about the client.
func TestOtherMetadataDocumentIsNotContradicted(t *testing.T) {
	for _, id := range []string{appOrigin + "/oauth2/client", "https://other.test/oauth2/client.json", appOrigin + "/oauth2/client.json?v=1"} {
		g := newRig(t, withClientKey(t), func(s *setup) { s.oauth.ClientID = id })
		if a := g.get("/oauth2/client.json"); a.status != 404 || strings.Contains(a.body, "redirect_uris") {
			t.Errorf("client_id %s: got status %d: %s, want 404", id, a.status, a.body)
		}
	}
}

// TestPublicKeysArePublished: jwks.json has the public keys alone, and does not exist
// without a key.
func TestPublicKeysArePublished(t *testing.T) {
	g := newRig(t, withClientKey(t))
	a := g.get("/oauth2/jwks.json")
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(a.body), &set); err != nil || a.status != 200 || len(set.Keys) != 1 {
		t.Fatalf("got status %d, error %v in %q; want a set with one key", a.status, err, a.body)
	}
	if k := set.Keys[0]; k["kty"] != "EC" || k["use"] != "sig" || k["alg"] != "ES256" || k["kid"] == "" || k["d"] != nil || len(k) != 7 {
		t.Errorf("got key %v, want a public one", k)
	}
	if a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("got Cache-Control %q, want no-store", a.header.Get("Cache-Control"))
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		for _, path := range []string{"/oauth2/jwks.json", "/oauth2/client.json"} {
			if a := g.do(g.request(method, path)); a.status != 405 || a.header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: got status %d, Allow %q; want 405 and GET, HEAD", method, path, a.status, a.header.Get("Allow"))
			}
		}
	}
	if a := g.do(g.request("HEAD", "/oauth2/jwks.json")); a.status != 200 || a.body != "" {
		t.Errorf("HEAD: got status %d, body %q; want 200 without a body", a.status, a.body)
	}
	if a := newRig(t).get("/oauth2/jwks.json"); a.status != 404 {
		t.Errorf("without a key: got status %d, want 404", a.status)
	}
}

// TestLoginURIIsPublishedIfItTakesBothMethods: OpenID Connect Core, section 4, demands
// GET and POST.
func TestLoginURIIsPublishedIfItTakesBothMethods(t *testing.T) {
	g := newRig(t, withClientKey(t))
	takesPost := methodListed(g.handler.endpoints["/login"].methods, "POST")
	if got := strings.Contains(g.get("/oauth2/client.json").body, "initiate_login_uri"); got != takesPost {
		t.Errorf("got initiate_login_uri: %v, want %v", got, takesPost)
	}
}

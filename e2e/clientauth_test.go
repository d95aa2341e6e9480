package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestPrivateKeyJWT runs a session of a client without a secret at oidc-provider, which fetches the public keys from the site:
// a pushed request, the code, refreshes with the first and then with the second key, and the revocation at logout.
func TestPrivateKeyJWT(t *testing.T) {
	t.Parallel()
	site, app := newSite(t), echo.Start(t, echo.Options{})
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{
		RedirectURIs: []string{site + "/oauth2/callback"}, AccessTokenLifetime: shortLife,
		Clients: []map[string]any{{
			"client_id": "keyed", "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": site + "/oauth2/jwks.json",
		}},
	})
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "client.pem")
	writeKeys(t, file, rsaKey, ecKey)
	caddy := caddyserver.Start(t, caddyserver.Config{Sites: block(site, fmt.Sprintf(
		"oauth_session {\nissuer %s\nclient_id keyed\nclient_key %s\nscope openid offline_access\n"+
			"pushed_authorization_request_endpoint %s/request\nrefresh_timeout 50s\n}\nreverse_proxy %s", p.Issuer, file, p.Issuer, app.Addr()))})

	s := p.Server
	s.ClientID, s.ClientSecret = "keyed", ""
	c := login(t, &s, site+"/wanted")
	wantRegistration(t, site)
	token := awaitNewBearer(t, c, site+"/", bearer(fetch(t, c, site+"/")))
	// The server knows both keys, so the other one may sign at once.
	writeKeys(t, file, ecKey, rsaKey)
	eventually(t, "log line about the new keys", func() bool { return strings.Contains(caddy.Log(t), "client keys replaced") })
	p.SetAccessTokenLifetime(t, longLife)
	token = awaitNewBearer(t, c, site+"/", token)

	if resp, err := c.Fetch(t.Context(), http.MethodPost, site+"/oauth2/logout", ""); err != nil || resp.Status != http.StatusOK {
		t.Fatalf("logout: got %v, error %v; want 200", resp, err)
	}
	eventually(t, "revocation of the login's tokens", func() bool { return userInfoStatus(t, &s, token) == http.StatusUnauthorized })
	stats := p.Stats(t)
	if stats.Requests["POST /request"] != 1 || stats.Requests["POST /token/revocation"] != 1 || len(stats.GrantErrors)+len(stats.ServerErrors) != 0 {
		t.Errorf("got %+v, want one pushed request, one revocation and no error", stats)
	}
	if log := caddy.Log(t); strings.Contains(log, "client_assertion") || strings.Contains(log, "PRIVATE KEY") {
		t.Errorf("got an assertion or a key in the log:\n%s", log)
	}
}

// writeKeys replaces the key file.
func writeKeys(t *testing.T, file string, keys ...crypto.Signer) {
	t.Helper()
	var content []byte
	for _, key := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		content = append(content, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	}
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// wantRegistration checks that client.json says what the client is registered with.
func wantRegistration(t *testing.T, site string) {
	t.Helper()
	resp, err := http.Get(site + "/oauth2/client.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"client_id": "keyed", "jwks_uri": site + "/oauth2/jwks.json", "token_endpoint_auth_method": "private_key_jwt",
		"token_endpoint_auth_signing_alg": "PS256",
	} {
		if got[name] != want {
			t.Errorf("client.json: got %s %v, want %s", name, got[name], want)
		}
	}
}

// userInfoStatus returns the status of the UserInfo endpoint for a token.
func userInfoStatus(t *testing.T, s *op.Server, token string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Issuer+"/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

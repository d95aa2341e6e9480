package op

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/oauth-session/caddy-oauth-session/e2e/build"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// installLimit bounds npm.
const installLimit = 20 * time.Minute

// installOIDCProvider returns the directory with the program and its npm packages.
var installOIDCProvider = sync.OnceValues(func() (string, error) {
	root, err := build.ModuleDir()
	if err != nil {
		return "", err
	}
	var inputs []string
	for _, name := range []string{"package.json", "package-lock.json", "op.mjs", "control.mjs", "faults.mjs", "interactions.mjs"} {
		inputs = append(inputs, filepath.Join(root, "oidc-provider", name))
	}
	return build.Cached("oidc-provider", inputs, func(dir string) error {
		// Node loads packages from the program's directory, so the program is copied there.
		for _, input := range inputs {
			content, err := os.ReadFile(input)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(input)), content, 0o644); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), installLimit)
		defer cancel()
		return build.Run(ctx, dir, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	})
})

// OIDCProviderOptions configure an oidc-provider. Only RedirectURIs is required.
type OIDCProviderOptions struct {
	RedirectURIs           []string
	PostLogoutRedirectURIs []string
	BackchannelLogoutURI   string

	// Forms shows a login form and a consent form, which accept any name and password. Without it, the server logs in the
	// user of login_hint, or "alice", without a form.
	Forms bool

	// AccessTokenLifetime is a whole number of seconds. Zero means 5 minutes.
	AccessTokenLifetime time.Duration

	// KeepRefreshTokens turns rotation off. By default, refresh tokens are single use.
	KeepRefreshTokens bool

	// RequireOfflineAccess issues refresh tokens only with the scope offline_access. The server ignores this scope without
	// prompt=consent (OpenID Connect Core 1.0, section 11).
	RequireOfflineAccess bool

	// Clients are additional clients, as metadata of OpenID Connect Dynamic Client Registration. Missing redirect and
	// logout URIs, grant types and response types are those of the first client.
	Clients []map[string]any
}

// An OIDCProvider is a running oidc-provider. By default, a second use of a refresh token revokes the whole family.
type OIDCProvider struct {
	Server
	control string // address of the control interface
}

// StartOIDCProvider starts an oidc-provider.
func StartOIDCProvider(t testing.TB, o OIDCProviderOptions) *OIDCProvider {
	t.Helper()
	dir, err := installOIDCProvider()
	if err != nil {
		t.Fatal(err)
	}
	// The special characters reveal a client that does not form-encode ID and secret for Basic (RFC 6749, section 2.3.1).
	p := &OIDCProvider{Server: Server{
		ClientID: "odd:id+1", ClientSecret: "p+s %41:&=/?~secret-of-more-than-32-characters", User: "alice", Password: "any",
	}}
	if o.AccessTokenLifetime == 0 {
		o.AccessTokenLifetime = 5 * time.Minute
	}
	keys, err := signingKeys()
	if err != nil {
		t.Fatal(err)
	}
	settings, err := json.Marshal(map[string]any{
		"forms":                o.Forms,
		"accessTokenTTL":       int(o.AccessTokenLifetime.Seconds()),
		"rotate":               !o.KeepRefreshTokens,
		"requireOfflineAccess": o.RequireOfflineAccess,
		"clients":              o.clients(p.ClientID, p.ClientSecret),
		"jwks":                 keys,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Process = proc.Start(t, "oidc-provider", exec.Command("node", filepath.Join(dir, "op.mjs"), string(settings)))
	var ready struct{ Issuer, Control string }
	if err := json.Unmarshal([]byte(p.Process.AwaitLine(t, "ready ")), &ready); err != nil {
		t.Fatalf("reading the ready line of oidc-provider: %v", err)
	}
	p.Issuer, p.control = ready.Issuer, ready.Control
	return p
}

// signingKeys generates the keys in Go: in about one of a hundred node processes, generating and exporting a key pair
// never ends.
func signingKeys() (jose.JSONWebKeySet, error) {
	var set jose.JSONWebKeySet
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return set, fmt.Errorf("generating an RSA key: %w", err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return set, fmt.Errorf("generating an EC key: %w", err)
	}
	set.Keys = []jose.JSONWebKey{
		{Key: rsaKey, KeyID: "rsa-" + rand.Text(), Algorithm: "RS256", Use: "sig"},
		{Key: ecKey, KeyID: "ec-" + rand.Text(), Algorithm: "ES256", Use: "sig"},
	}
	return set, nil
}

// clients returns the metadata of the client with the given ID and of o.Clients.
func (o OIDCProviderOptions) clients(id, secret string) []map[string]any {
	clients := append([]map[string]any{{"client_id": id, "client_secret": secret}}, o.Clients...)
	common := map[string]any{
		"redirect_uris":             o.RedirectURIs,
		"post_logout_redirect_uris": append([]string{}, o.PostLogoutRedirectURIs...),
		"grant_types":               []string{"authorization_code", "refresh_token"},
		"response_types":            []string{"code"},
	}
	if o.BackchannelLogoutURI != "" {
		common["backchannel_logout_uri"] = o.BackchannelLogoutURI
		common["backchannel_logout_session_required"] = true
	}
	for i, client := range clients {
		clients[i] = maps.Clone(common)
		maps.Copy(clients[i], client)
	}
	return clients
}

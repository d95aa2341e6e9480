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

// installTime bounds npm.
const installTime = 20 * time.Minute

// installOIDCProvider returns the directory with the program and the packages it needs.
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
		// Node looks for packages next to the program, so the program moves to where the packages are.
		for _, input := range inputs {
			content, err := os.ReadFile(input)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(input)), content, 0o644); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), installTime)
		defer cancel()
		return build.Run(ctx, dir, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	})
})

// OIDCProviderOptions says how an oidc-provider is set up. Only RedirectURIs is needed.
type OIDCProviderOptions struct {
	RedirectURIs           []string
	PostLogoutRedirectURIs []string
	BackchannelLogoutURI   string

	// Forms makes the user go through a login and a consent form, where any name and password will do. Without it,
	// login_hint or "alice" is logged in at once.
	Forms bool

	// AccessTokenLifetime is 5 minutes by default. Whole seconds only.
	AccessTokenLifetime time.Duration

	// KeepRefreshTokens makes a refresh token serve many times. By default it serves once.
	KeepRefreshTokens bool

	// RequireOfflineAccess gives refresh tokens only with the scope offline_access, which the server in turn drops
	// unless prompt=consent is asked for (OpenID Connect Core 1.0, section 11).
	RequireOfflineAccess bool

	// Clients are registered besides the one in Server, in the form of OpenID Connect Dynamic Client Registration. Redirect
	// and logout URIs, grant and response types are added where missing.
	Clients []map[string]any
}

// An OIDCProvider is a running oidc-provider. Its refresh tokens serve once, and a second use revokes the whole family.
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
	// The characters show whether id and secret are form-encoded before they go into the Basic scheme.
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

// signingKeys are made here: about one node process in a hundred never returns from making a key pair and exporting it.
func signingKeys() (jose.JSONWebKeySet, error) {
	var set jose.JSONWebKeySet
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return set, fmt.Errorf("making an RSA key: %w", err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return set, fmt.Errorf("making an EC key: %w", err)
	}
	set.Keys = []jose.JSONWebKey{
		{Key: rsaKey, KeyID: "rsa-" + rand.Text(), Algorithm: "RS256", Use: "sig"},
		{Key: ecKey, KeyID: "ec-" + rand.Text(), Algorithm: "ES256", Use: "sig"},
	}
	return set, nil
}

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

package op

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/build"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// A GlewlwydServer is a running Glewlwyd. Its pages are scripts on its API: Login, SignOut and RevokeTokens do what these
// scripts do.
type GlewlwydServer struct {
	Server
	origin string
}

// Glewlwyd starts Glewlwyd of Debian, with the app at the origin site as its client. Refresh tokens are single use: after
// a second use, the whole family is refused. The refusal has an empty body, and a second use of a code is 403. Logout
// tokens have neither exp nor sid.
func Glewlwyd(t testing.TB, site string, accessTokenLifetime time.Duration) *GlewlwydServer {
	t.Helper()
	root := needDebianServers(t)
	dir, port := t.TempDir(), proc.FreePort(t)
	g := &GlewlwydServer{origin: fmt.Sprintf("http://127.0.0.1:%d", port)}
	g.Server = Server{
		Issuer: g.origin + "/api/oidc", ClientID: "app", ClientSecret: "glewlwyd-client-secret",
		User: "alice", Password: "alice-password", login: g.enter,
	}
	env := []string{"LD_LIBRARY_PATH=" + strings.Join(libraryDirs(root), ":"), "PATH=" + os.Getenv("PATH") + ":" + filepath.Join(root, "usr/bin")}
	database := filepath.Join(dir, "db")
	tables := filepath.Join(root, "usr/share/dbconfig-common/data/glewlwyd/install/sqlite3")
	if err := build.Run(t.Context(), dir, env, "sqlite3", database, ".read "+tables); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "glewlwyd.conf")
	if err := os.WriteFile(file, []byte(g.config(port, root, database)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(root, "usr/bin/glewlwyd"), "--config-file="+file)
	cmd.Env = append(os.Environ(), env...)
	g.Process = proc.Start(t, "glewlwyd", cmd)
	g.Process.Await(t, "start", func(ctx context.Context) bool { return healthy(ctx, g.origin+"/config") })
	if err := g.provision(t.Context(), site, accessTokenLifetime); err != nil {
		t.Fatal(err)
	}
	return g
}

// libraryDirs returns the directories of shared libraries below root. Their name depends on the machine's architecture.
func libraryDirs(root string) []string {
	dirs, _ := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu*")) // the pattern is valid
	return dirs
}

func (g *GlewlwydServer) config(port int, root, database string) string {
	modules := filepath.Join(root, "usr/lib/glewlwyd")
	return fmt.Sprintf(`port=%d
bind_address="127.0.0.1"
external_url=%q
login_url="login.html"
api_prefix="api"
log_mode="console"
log_level="WARNING"
session_key="GLEWLWYD2_SESSION_ID"
session_expiration=3600
admin_scope="g_admin"
profile_scope="g_profile"
hash_algorithm="SHA256"
user_module_path="%[3]s/user"
client_module_path="%[3]s/client"
user_auth_scheme_module_path="%[3]s/scheme"
plugin_module_path="%[3]s/plugin"
database = { type = "sqlite3"; path = %[4]q; };
`, port, g.origin, modules, database)
}

// provision adds the OpenID Connect plugin, the users alice and bob, and the client.
func (g *GlewlwydServer) provision(ctx context.Context, site string, accessTokenLifetime time.Duration) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("generating an RSA key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("encoding the RSA key: %w", err)
	}
	parameters := map[string]any{
		"iss": g.Issuer, "jwt-type": "rsa", "jwt-key-size": "256",
		"key":  string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		"cert": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		// Durations are whole seconds.
		"code-duration": 60, "access-token-duration": int(accessTokenLifetime.Seconds()), "refresh-token-duration": 3600,
		"refresh-token-rolling": true, "refresh-token-one-use": "always", "allow-non-oidc": true, "jwks-show": true,
		"auth-type-code-enabled": true, "auth-type-code-revoke-replayed": true, "auth-type-refresh-enabled": true,
		"pkce-allowed": true, "pkce-required": true, "subject-type": "public",
		"introspection-revocation-allowed": true, "introspection-revocation-allow-target-client": true,
		"session-management-allowed": true, "back-channel-logout-allowed": true,
		"session-cookie-name": "GLEWLWYD2_OIDC_SID", "session-cookie-expiration": 3600,
		"scope": []any{map[string]any{"name": "openid"}}, "claims": []any{}, "name-claim": "no", "email-claim": "mandatory",
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	admin := &http.Client{Jar: jar}
	for _, step := range []struct {
		path string
		body map[string]any
	}{
		{"auth/", map[string]any{"username": "admin", "password": "password"}}, // of the new database
		{"mod/plugin/", map[string]any{
			"module": "oidc", "name": "oidc", "display_name": "oidc", "enabled": true, "parameters": parameters,
		}},
		{"user/", g.user("alice")},
		{"user/", g.user("bob")},
		{"client/", map[string]any{
			"client_id": g.ClientID, "name": "App", "client_secret": g.ClientSecret, "confidential": true, "enabled": true,
			"redirect_uri": []string{site + "/oauth2/callback"}, "scope": []string{"openid"},
			"authorization_type": []string{"code", "refresh_token"}, "token_endpoint_auth_method": []string{"client_secret_basic"},
			"post_logout_redirect_uri": site + "/oauth2/logout/callback",
			"backchannel_logout_uri":   site + "/oauth2/backchannel_logout",
		}},
	} {
		req, err := jsonRequest(ctx, http.MethodPost, g.origin+"/api/"+step.path, step.body)
		if err != nil {
			return err
		}
		if err := do(admin, req, nil); err != nil {
			return fmt.Errorf("provisioning Glewlwyd: %w", err)
		}
	}
	return nil
}

func (g *GlewlwydServer) user(name string) map[string]any {
	return map[string]any{
		"username": name, "email": name + "@example.test", "password": name + "-password", "enabled": true, "scope": []string{"openid"},
	}
}

// enter enters user and password of the browser on the login page, and grants the scopes of the client.
func (g *GlewlwydServer) enter(ctx context.Context, browser *client.Client, rawURL string) (*client.Response, error) {
	page, err := browser.Visit(ctx, rawURL)
	if err != nil {
		return nil, err
	}
	query := page.URL.Query()
	if page.URL.Path != "/login.html" || query.Get("callback_url") == "" {
		return nil, fmt.Errorf("got %v, want Glewlwyd's login page", page)
	}
	for _, step := range []struct {
		method, path string
		body         map[string]string
	}{
		{http.MethodPost, "auth/", map[string]string{"username": browser.User, "password": browser.Password}},
		{http.MethodPut, "auth/grant/" + url.PathEscape(query.Get("client_id")), map[string]string{"scope": query.Get("scope")}},
	} {
		if _, err := g.call(ctx, browser, step.method, step.path, step.body); err != nil {
			return nil, err
		}
	}
	return browser.Visit(ctx, query.Get("callback_url")+"&g_continue")
}

// SignOut confirms the logout on the page to which the logout endpoint has redirected the browser.
func (g *GlewlwydServer) SignOut(ctx context.Context, browser *client.Client, page *client.Response) error {
	sid := page.URL.Query().Get("sid")
	if page.URL.Path != "/login.html" || sid == "" {
		return fmt.Errorf("got %v, want Glewlwyd's page for a logout", page)
	}
	if _, err := g.call(ctx, browser, http.MethodDelete, "oidc/session/"+url.PathEscape(sid), nil); err != nil {
		return err
	}
	_, err := g.call(ctx, browser, http.MethodDelete, "auth/?username="+url.QueryEscape(browser.User), nil)
	return err
}

// RevokeTokens revokes the refresh tokens of the user who is logged in.
func (g *GlewlwydServer) RevokeTokens(ctx context.Context, browser *client.Client) error {
	list, err := g.call(ctx, browser, http.MethodGet, "oidc/token/", nil)
	if err != nil {
		return err
	}
	var tokens []struct {
		Hash    string `json:"token_hash"`
		Enabled bool   `json:"enabled"` // false: spent or revoked
	}
	if err := json.Unmarshal(list.Body, &tokens); err != nil {
		return fmt.Errorf("reading the list of refresh tokens: %w", err)
	}
	for _, token := range tokens {
		if !token.Enabled {
			continue
		}
		if _, err := g.call(ctx, browser, http.MethodDelete, "oidc/token/"+url.PathEscape(token.Hash), nil); err != nil {
			return err
		}
	}
	return nil
}

// call calls the API as a script in the browser does. A nil body sends none.
func (g *GlewlwydServer) call(ctx context.Context, browser *client.Client, method, path string, body map[string]string) (*client.Response, error) {
	var content any
	if body != nil {
		content = body
	}
	req, err := jsonRequest(ctx, method, g.origin+"/api/"+path, content)
	if err != nil {
		return nil, err
	}
	resp, err := browser.Do(req)
	if err == nil && resp.Status != http.StatusOK {
		err = fmt.Errorf("got %v, want success", resp)
	}
	return resp, err
}

package op

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/build"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// heap bounds the memory of Keycloak, which otherwise takes a share of the machine's.
const heap = "JAVA_OPTS_KC_HEAP=-Xms64m -Xmx512m"

// installKeycloak returns a directory with Keycloak, built for a database in memory. It needs Java and Maven.
func installKeycloak(ctx context.Context) (string, error) {
	root, err := build.ModuleDir()
	if err != nil {
		return "", err
	}
	src := filepath.Join(root, "keycloak")
	return build.Cached("keycloak", []string{filepath.Join(src, "pom.xml")}, func(dir string) error {
		if err := build.Run(ctx, src, nil, "mvn", "--quiet", "--batch-mode", "dependency:unpack-dependencies", "-DoutputDirectory="+dir); err != nil {
			return err
		}
		homes, err := filepath.Glob(filepath.Join(dir, "keycloak-*"))
		if err != nil || len(homes) != 1 {
			return fmt.Errorf("got the directories %q and error %v, want one of Keycloak", homes, err)
		}
		// The directory has a name without the version, and Maven loses the permissions.
		home := filepath.Join(dir, "home")
		if err := os.Rename(homes[0], home); err != nil {
			return err
		}
		return build.Run(ctx, home, []string{heap}, "sh", "bin/kc.sh", "build", "--db=dev-mem", "--health-enabled=true")
	})
}

// A KeycloakServer is a running Keycloak.
type KeycloakServer struct {
	Server
	origin string
}

const keycloakRealm = "e2e"

// Keycloak starts Keycloak with a realm of the users alice and bob, and the app at the origin site as its client. The app
// at the origin keyed is the client KeyedClient, which has no secret: Keycloak fetches its keys. The realm has Revoke Refresh
// Token on: a second use of a refresh token ends the user's login.
func Keycloak(t testing.TB, site, keyed string, accessTokenLifetime time.Duration) *KeycloakServer {
	t.Helper()
	dir, err := installKeycloak(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Keycloak writes into its directory.
	home := filepath.Join(t.TempDir(), "keycloak")
	if err := os.CopyFS(home, os.DirFS(filepath.Join(dir, "home"))); err != nil {
		t.Fatal(err)
	}
	k := &KeycloakServer{origin: fmt.Sprintf("http://127.0.0.1:%d", proc.FreePort(t))}
	k.Server = Server{
		Issuer: k.origin + "/realms/" + keycloakRealm, ClientID: "odd:id+1", ClientSecret: "p+s %41:&=/?~x",
		User: "alice", Password: "secret",
	}
	k.SignOutURL = k.Issuer + "/protocol/openid-connect/logout"
	realm, err := json.Marshal(k.realm(site, keyed, accessTokenLifetime))
	if err != nil {
		t.Fatal(err)
	}
	imports := filepath.Join(home, "data", "import")
	if err := os.MkdirAll(imports, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(imports, "realm.json"), realm, 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(k.origin, "http://"), ":")
	management := proc.FreePort(t)
	cmd := exec.Command("sh", "bin/kc.sh", "start", "--optimized", "--import-realm", "--cache=local", "--log-level=INFO,io.smallrye.health:WARN",
		"--hostname="+k.origin, "--http-enabled=true", "--http-host=127.0.0.1", "--http-port="+port,
		"--http-management-host=127.0.0.1", fmt.Sprintf("--http-management-port=%d", management))
	cmd.Dir = home
	cmd.Env = append(os.Environ(), heap, "KC_BOOTSTRAP_ADMIN_USERNAME=admin", "KC_BOOTSTRAP_ADMIN_PASSWORD="+k.Password)
	k.Process = proc.Start(t, "keycloak", cmd)
	k.Process.Await(t, "health", func(ctx context.Context) bool {
		return healthy(ctx, fmt.Sprintf("http://127.0.0.1:%d/health/ready", management))
	})
	return k
}

// realm returns the representation of the realm, as Keycloak exports and imports it.
func (k *KeycloakServer) realm(site, keyed string, accessTokenLifetime time.Duration) map[string]any {
	user := func(name string) map[string]any {
		return map[string]any{
			"username": name, "enabled": true, "email": name + "@example.test", "emailVerified": true,
			"firstName": name, "lastName": name,
			"credentials": []any{map[string]any{"type": "password", "value": k.Password}},
		}
	}
	return map[string]any{
		"realm": keycloakRealm, "enabled": true,
		"accessTokenLifespan": int(accessTokenLifetime.Seconds()),
		"revokeRefreshToken":  true, "refreshTokenMaxReuse": 0,
		"users": []any{user("alice"), user("bob")},
		"clients": []any{map[string]any{
			"clientId": k.ClientID, "secret": k.ClientSecret, "standardFlowEnabled": true,
			"redirectUris": []string{site + "/oauth2/callback"},
			"attributes": map[string]string{
				"post.logout.redirect.uris":           site + "/oauth2/logout/callback",
				"backchannel.logout.url":              site + "/oauth2/backchannel_logout",
				"backchannel.logout.session.required": "true",
			},
		}, map[string]any{
			"clientId": KeyedClient, "clientAuthenticatorType": "client-jwt", "standardFlowEnabled": true,
			"redirectUris": []string{keyed + "/oauth2/callback"},
			"attributes": map[string]string{
				"use.jwks.url": "true", "jwks.url": keyed + "/oauth2/jwks.json", "token.endpoint.auth.signing.alg": "ES256",
				"post.logout.redirect.uris": keyed + "/oauth2/logout/callback",
			},
		}},
	}
}

// restartButton is the button beside the name of the user on the login page. The page's script opens the address.
var restartButton = regexp.MustCompile(`id="reset-login"[^>]*onclick="location\.href='([^']*)'`)

// RestartLogin presses the button "Restart login" on the login page of the user whom Keycloak knows. It returns the login
// page for any user.
func (k *KeycloakServer) RestartLogin(ctx context.Context, browser *client.Client, page *client.Response) (*client.Response, error) {
	button := restartButton.FindSubmatch(page.Body)
	if button == nil {
		return nil, fmt.Errorf("got %v, want a page with a button to restart the login", page)
	}
	return browser.Visit(ctx, k.origin+html.UnescapeString(string(button[1])))
}

// LogOutUser ends all sessions of the user, as an administrator does in the console.
func (k *KeycloakServer) LogOutUser(ctx context.Context, name string) error {
	form := url.Values{"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {"admin"}, "password": {k.Password}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, k.origin+"/realms/master/protocol/openid-connect/token", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var admin struct {
		AccessToken string `json:"access_token"`
	}
	if err := do(http.DefaultClient, req, &admin); err != nil {
		return fmt.Errorf("logging the administrator in: %w", err)
	}
	call := func(method, path string, answer any) error {
		req, err := jsonRequest(ctx, method, k.origin+"/admin/realms/"+keycloakRealm+"/users"+path, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+admin.AccessToken)
		return do(http.DefaultClient, req, answer)
	}
	var users []struct {
		ID string `json:"id"`
	}
	if err := call(http.MethodGet, "?exact=true&username="+url.QueryEscape(name), &users); err != nil {
		return fmt.Errorf("looking for the user: %w", err)
	}
	if len(users) != 1 {
		return fmt.Errorf("got %d users %s, want one", len(users), name)
	}
	return call(http.MethodPost, "/"+users[0].ID+"/logout", nil)
}

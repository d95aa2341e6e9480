package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// A feature is something that oidc-provider demands of a client, or does for it.
type feature struct {
	name string
	// options are lines of the directive. $issuer, $key and $site stand for values.
	options string
	// client is metadata of the client, with $site.
	client map[string]any
	// posts is how many forms a login sends on.
	posts int
	// check looks for the traces that the feature alone leaves.
	check func(t *testing.T, v featureVisit)
}

// featureVisit is a session at a site that uses features.
type featureVisit struct {
	site  string
	page  *client.Response // of the login
	token string
	stats op.Stats // after the logout
}

const apiResource = "https://api.example.test"

var features = []feature{
	{
		name: "private_key_jwt", options: "client_key $key",
		client: map[string]any{"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "$site/oauth2/jwks.json", "token_endpoint_auth_signing_alg": "ES256"},
		check:  func(*testing.T, featureVisit) {}, // the server takes nothing else
	},
	{
		name: "form_post", options: "response_mode form_post", posts: 2,
		check: func(t *testing.T, v featureVisit) {
			for _, hop := range v.page.Via {
				if hop.URL.Query().Has("code") || hop.URL.Query().Has("state") && strings.HasPrefix(hop.URL.String(), v.site) {
					t.Errorf("got the server's answer in the URL %s, want it in a form", hop.URL.Redacted())
				}
			}
		},
	},
	{
		name: "PAR", client: map[string]any{"require_pushed_authorization_requests": true},
		options: "pushed_authorization_request_endpoint $issuer/request",
		check: func(t *testing.T, v featureVisit) {
			if n := v.stats.Requests["POST /request"]; n != 1 {
				t.Errorf("got %d pushed requests, want 1", n)
			}
		},
	},
	{
		name: "resource indicator", options: "resource " + apiResource,
		check: func(t *testing.T, v featureVisit) {
			_, rest, _ := strings.Cut(v.token, ".")
			encoded, _, _ := strings.Cut(rest, ".")
			text, err := base64.RawURLEncoding.DecodeString(encoded)
			if err != nil || !strings.Contains(string(text), fmt.Sprintf(`"aud":%q`, apiResource)) {
				t.Errorf("got the claims %s (error %v) in the access token, want the audience %s", text, err, apiResource)
			}
		},
	},
	{
		name: "back-channel logout",
		client: map[string]any{
			"backchannel_logout_uri": "$site/oauth2/backchannel_logout", "backchannel_logout_session_required": true,
		},
		check: func(t *testing.T, v featureVisit) {
			if v.stats.BackchannelLogouts != 1 || len(v.stats.BackchannelErrors) != 0 {
				t.Errorf("got %d logout tokens accepted and errors %v, want one and none", v.stats.BackchannelLogouts, v.stats.BackchannelErrors)
			}
		},
	},
	{
		name: "signed UserInfo", options: "userinfo", client: map[string]any{"userinfo_signed_response_alg": "RS256"},
		check: func(t *testing.T, v featureVisit) {
			if n := v.stats.Requests["GET /me"]; n != 1 {
				t.Errorf("got %d UserInfo requests, want 1", n)
			}
		},
	},
}

// TestFeatures runs a session with each feature of oidc-provider, and with all of them: login, refresh, logout. UserInfo
// there refuses the access token of another resource, so "all" is two sessions.
func TestFeatures(t *testing.T) {
	t.Parallel()
	for _, f := range features {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			useFeatures(t, f)
		})
	}
	for _, without := range []string{"resource indicator", "signed UserInfo"} {
		t.Run("all without "+without, func(t *testing.T) {
			t.Parallel()
			var all []feature
			for _, f := range features {
				if f.name != without {
					all = append(all, f)
				}
			}
			useFeatures(t, all...)
		})
	}
}

// useFeatures plays a session of a client with the features.
func useFeatures(t *testing.T, all ...feature) {
	t.Helper()
	site, app := newSite(t), echo.Start(t, echo.Options{})
	registered := map[string]any{"client_id": "featured", "client_secret": "featured-secret-of-more-than-32-characters"}
	var options []string
	posts := 0
	for _, f := range all {
		maps.Copy(registered, f.client)
		options = append(options, f.options)
		posts += f.posts
	}
	text := strings.Join(options, "\n")
	if strings.Contains(text, "client_key") {
		delete(registered, "client_secret")
	} else {
		text += "\nclient_secret {env.CLIENT_SECRET}"
	}
	for name, value := range registered {
		if v, ok := value.(string); ok {
			registered[name] = strings.ReplaceAll(v, "$site", site)
		}
	}
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{
		RedirectURIs: []string{site + "/oauth2/callback"}, PostLogoutRedirectURIs: []string{site + "/oauth2/logout/callback"},
		AccessTokenLifetime: shortLife, Clients: []map[string]any{registered},
	})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "client.pem")
	writeKeys(t, file, key)
	text = strings.NewReplacer("$issuer", p.Issuer, "$key", file).Replace(text)
	caddyserver.Start(t, caddyserver.Config{
		Env: []string{"CLIENT_SECRET=featured-secret-of-more-than-32-characters"},
		Sites: block(site, fmt.Sprintf("oauth_session {\nissuer %s\nclient_id featured\nscope openid email offline_access\nrefresh_timeout 50s\n%s\n}\nreverse_proxy %s",
			p.Issuer, text, app.Addr())),
	})

	v := featureVisit{site: site}
	c := client.New("", "")
	v.page, err = c.Visit(t.Context(), site+"/wanted?q=1")
	for range posts {
		if err != nil {
			t.Fatal(err)
		}
		v.page, err = c.Submit(t.Context(), v.page)
	}
	if err != nil {
		t.Fatal(err)
	}
	wantAppPage(t, v.page, site+"/wanted?q=1")
	wantEmail(t, c, site)
	v.token = awaitNewBearer(t, c, site+"/", bearer(v.page))
	page := navigate(t, c, site+"/oauth2/logout")
	for range 2 { // the button of the module, and that of the server
		if page, err = c.Submit(t.Context(), page); err != nil {
			t.Fatal(err)
		}
	}
	if page.URL.Path != "/oauth2/logout/callback" {
		t.Errorf("logout: got %v, want the page after it", page)
	}
	if resp := fetch(t, c, site+"/"); resp.Status != http.StatusUnauthorized {
		t.Errorf("after the logout: got %v, want 401", resp)
	}
	v.stats = p.Stats(t)
	if v.stats.RepeatedRefreshTokens != 0 || len(v.stats.GrantErrors)+len(v.stats.ServerErrors) != 0 {
		t.Errorf("got %+v at the server, want no repeated refresh token and no error", v.stats)
	}
	for _, f := range all {
		f.check(t, v)
	}
}

// wantEmail fails the test unless the session has the user's address.
func wantEmail(t *testing.T, c *client.Client, site string) {
	t.Helper()
	resp := fetch(t, c, site+"/oauth2/session")
	var info struct {
		Claims map[string]any `json:"claims"`
	}
	if err := json.Unmarshal(resp.Body, &info); err != nil || info.Claims["email"] != "alice@example.test" {
		t.Errorf("session endpoint: got %v, error %v, want the address of the user", resp, err)
	}
}

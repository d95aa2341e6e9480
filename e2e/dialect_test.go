package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/dialect"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

const dialectSecret = "dialect+secret: %/canary"

// dialects are the servers of internal/dialect, with the clients of the example configurations.
var dialects = []struct {
	name     string
	example  string // in examples/
	provider func(redirectURI string) dialect.Provider
	host     string // of the server, in the example
	once     bool   // refresh tokens are single use
}{
	{
		name: "OrderCloud", example: "ordercloud", host: "https://auth.ordercloud.io",
		provider: func(redirectURI string) dialect.Provider {
			return dialect.OrderCloud{ClientID: "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", RedirectURI: redirectURI}
		},
	},
	{
		name: "Auth0", example: "auth0", host: "https://your-tenant.eu.auth0.com",
		provider: func(redirectURI string) dialect.Provider {
			return dialect.Auth0{
				ClientID: "YOUR_CLIENT_ID", ClientSecret: dialectSecret, RedirectURI: redirectURI, Audience: "https://api.example.com",
			}
		},
	},
	{
		name: "Auth0 with rotation", example: "auth0", host: "https://your-tenant.eu.auth0.com", once: true,
		provider: func(redirectURI string) dialect.Provider {
			return dialect.Auth0{
				ClientID: "YOUR_CLIENT_ID", ClientSecret: dialectSecret, RedirectURI: redirectURI, Audience: "https://api.example.com",
				ExpiresIn: true, Rotation: true,
			}
		},
	},
	{
		name: "Pagero Online", example: "pagero-online", host: "https://sso.pageroonline.com", once: true,
		provider: func(redirectURI string) dialect.Provider {
			return dialect.Pagero{ClientID: "YOUR_CLIENT_ID", ClientSecret: dialectSecret, RedirectURI: redirectURI}
		},
	},
}

// TestDialects runs a session with each example configuration: login, refreshes, and the expiry of the refresh token. The
// servers refuse and record all undocumented requests.
func TestDialects(t *testing.T) {
	t.Parallel()
	for _, tc := range dialects {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			site := newSite(t)
			server := dialect.Start(t, tc.provider(site+"/oauth2/callback"))
			server.SetLifetimes(shortLife, longLife)
			app := echo.Start(t, echo.Options{})
			caddy := caddyserver.Start(t, exampleConfig(t, tc.example, tc.host, site, server, app))
			s := &op.Server{Issuer: server.URL}
			c := login(t, s, site+"/wanted?q=1")
			token := bearer(fetch(t, c, site+"/"))
			for range 3 {
				token = awaitNewBearer(t, c, site+"/", token)
				if !server.Issued(token) {
					t.Errorf("the app got the token %s, want one of the server", token)
				}
			}
			server.ExpireRefreshTokens()
			awaitSessionEnd(t, s, c, site)
			wantEndReason(t, caddy, "refresh_rejected")
			if n := server.Refreshes(); n < 3 {
				t.Errorf("got %d refreshes, want at least 3", n)
			}
			server.SetLifetimes(longLife, longLife)
			page, err := c.Login(t.Context(), site+"/back")
			if err != nil {
				t.Fatal(err)
			}
			wantAppPage(t, page, site+"/back")
			if twice := server.SentTwice(); tc.once && len(twice) != 0 {
				t.Errorf("got %d refresh tokens sent more than once, want none", len(twice))
			}
			if v := server.Violations(); len(v) != 0 {
				t.Errorf("got violations %v, want none", v)
			}
		})
	}
}

// TestNoRefreshToken uses OrderCloud with a refresh token lifetime of 0: it then issues no refresh tokens. A session ends with
// its access token, and the log has one warning.
func TestNoRefreshToken(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	orderCloud := dialects[0]
	server := dialect.Start(t, orderCloud.provider(site+"/oauth2/callback"))
	server.SetLifetimes(shortLife, 0)
	app := echo.Start(t, echo.Options{})
	caddy := caddyserver.Start(t, exampleConfig(t, orderCloud.example, orderCloud.host, site, server, app))
	s := &op.Server{Issuer: server.URL}
	for range 2 {
		awaitSessionEnd(t, s, login(t, s, site+"/"), site)
	}
	wantEndReason(t, caddy, "no_refresh_token")
	warnings := 0
	for _, entry := range caddy.Entries(t, "http.handlers.oauth_session") {
		if entry["level"] == "warn" || entry["level"] == "error" {
			warnings++
			msg, _ := entry["msg"].(string)
			if !strings.Contains(msg, "no refresh token") || entry["likely_cause"] == nil {
				t.Errorf("got warning %v, want one about the missing refresh token with a likely cause", entry)
			}
		}
	}
	if warnings != 1 {
		t.Errorf("got %d warnings, want 1", warnings)
	}
	if v := server.Violations(); len(v) != 0 || server.Refreshes() != 0 {
		t.Errorf("got violations %v and %d refreshes, want none", v, server.Refreshes())
	}
}

// exampleConfig returns the example configuration with the test's addresses.
func exampleConfig(t *testing.T, example, host, site string, server *dialect.Server, app *echo.Server) caddyserver.Config {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "examples", example+".Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	for _, r := range []struct {
		old, new string
		optional bool
	}{
		{old: "\napp.example.com {", new: "\n" + site + " {\nbind 127.0.0.1\nlog"},
		{old: "127.0.0.1:8081", new: app.Addr()},
		{old: host, new: server.URL},
		// An example has a placeholder if the documentation names no authorization endpoint.
		{old: "https://login.example.com/oauth/authorize", new: server.AuthorizationEndpoint(), optional: true},
	} {
		if !strings.Contains(text, r.old) && !r.optional {
			t.Fatalf("the example %s lacks %q", example, r.old)
		}
		text = strings.ReplaceAll(text, r.old, r.new)
	}
	return caddyserver.Config{Env: []string{"CLIENT_SECRET=" + dialectSecret}, Sites: text}
}

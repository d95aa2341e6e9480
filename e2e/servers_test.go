package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestServers goes through the life of a session at other servers than oidc-provider: login, refreshes, and the end of the
// refresh token, which each of them tells in its own way.
func TestServers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		start func(t testing.TB, redirectURI string, accessTokenLifetime time.Duration) *op.Server
		// kill makes the server refuse the refresh tokens of the user's other sessions.
		kill func(t *testing.T, s *op.Server, site string)
		// reason is why the proxy ends the session then.
		reason string
	}{
		// A logout at the server ends everything the client has for the user. The refusal is invalid_grant.
		{name: "zitadel", start: op.Zitadel, reason: "refresh_rejected", kill: func(t *testing.T, s *op.Server, site string) {
			c := login(t, s, site+"/")
			// The example server knows no address to come back to, and refuses the logout with ours.
			refused, err := c.Submit(t.Context(), navigate(t, c, site+"/oauth2/logout"))
			if err != nil {
				t.Fatal(err)
			}
			query := refused.URL.Query()
			query.Del("post_logout_redirect_uri")
			refused.URL.RawQuery = query.Encode()
			if resp := navigate(t, c, refused.URL.String()); resp.Location() == nil {
				t.Fatalf("logging out at the server: %v", resp)
			}
		}},
		// One refresh token for each user and client: a new login ends the former one's. The refusal is invalid_request.
		{name: "dex", start: op.Dex, reason: "refused_unclear", kill: func(t *testing.T, s *op.Server, site string) { login(t, s, site+"/") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			site := newSite(t)
			s := tc.start(t, site+"/oauth2/callback", shortLife)
			app := echo.Start(t, echo.Options{})
			caddy := caddyserver.Start(t, protected(site, s, "scope openid profile email offline_access", app))
			c := login(t, s, site+"/wanted?q=1")
			token := bearer(fetch(t, c, site+"/"))
			for range 2 {
				token = awaitNewBearer(t, c, site+"/", token)
			}
			tc.kill(t, s, site)
			awaitSessionEnd(t, s, c, site)
			wantEndReason(t, caddy, tc.reason, "logout")
		})
	}
}

// ends waits until a session is over, and demands that its requests are then answered as those of nobody. Until that they
// must reach the app.
func awaitSessionEnd(t *testing.T, s *op.Server, c *client.Client, site string) {
	t.Helper()
	eventually(t, "end of the session", func() bool {
		resp := fetch(t, c, site+"/")
		if resp.Status != http.StatusUnauthorized && bearer(resp) == "" {
			t.Fatalf("before the end of the session: %v", resp)
		}
		return resp.Status == http.StatusUnauthorized
	})
	resp := navigate(t, c, site+"/end")
	if to := resp.Location(); resp.Status != http.StatusFound || to == nil || !strings.HasPrefix(to.String(), s.Issuer) {
		t.Errorf("a navigation after the end of the session: %v to %v, want a login", resp, to)
	}
}

// endedBecause demands that a session ended for this reason, and none for any other but those that are also given.
func wantEndReason(t *testing.T, caddy *caddyserver.Server, reason string, also ...string) {
	t.Helper()
	n := 0
	for _, entry := range caddy.Entries(t, "http.handlers.oauth_session") {
		if entry["msg"] == "session ended" {
			got, _ := entry["reason"].(string)
			if got == reason {
				n++
			} else if !slices.Contains(also, got) {
				t.Errorf("a session ended because of %q, want %q", got, reason)
			}
		}
	}
	if n == 0 {
		t.Errorf("the log tells of no session that ended because of %s", reason)
	}
}

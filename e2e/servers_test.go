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

// TestServers runs a session at zitadel and Dex: login, refreshes, and the refusal of the refresh token, for which each server
// has its own answer.
func TestServers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		start func(t testing.TB, redirectURI string, accessTokenLifetime time.Duration) *op.Server
		// revoke makes the server refuse the refresh tokens of the user's other sessions.
		revoke func(t *testing.T, s *op.Server, site string)
		// reason is the proxy's reason for the end of the session.
		reason string
	}{
		// A logout at the server revokes all tokens of the client and the user. The error is invalid_grant.
		{name: "zitadel", start: op.Zitadel, reason: "refresh_rejected", revoke: func(t *testing.T, s *op.Server, site string) {
			c := login(t, s, site+"/")
			// The example server has no registered post-logout redirect URI and refuses the proxy's.
			refused, err := c.Submit(t.Context(), navigate(t, c, site+"/oauth2/logout"))
			if err != nil {
				t.Fatal(err)
			}
			query := refused.URL.Query()
			query.Del("post_logout_redirect_uri")
			refused.URL.RawQuery = query.Encode()
			if resp := navigate(t, c, refused.URL.String()); resp.Location() == nil {
				t.Fatalf("logout at the server: got %v, want a redirect", resp)
			}
		}},
		// Dex keeps one refresh token per user and client: a new login revokes the former one. The error is invalid_request.
		{name: "dex", start: op.Dex, reason: "refused_unclear", revoke: func(t *testing.T, s *op.Server, site string) { login(t, s, site+"/") }},
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
			tc.revoke(t, s, site)
			awaitSessionEnd(t, s, c, site)
			wantEndReason(t, caddy, tc.reason, "logout")
		})
	}
}

// awaitSessionEnd waits until a fetch gets 401, and checks that a navigation then starts a login. Until then, requests must
// reach the app.
func awaitSessionEnd(t *testing.T, s *op.Server, c *client.Client, site string) {
	t.Helper()
	eventually(t, "end of the session", func() bool {
		resp := fetch(t, c, site+"/")
		if resp.Status != http.StatusUnauthorized && bearer(resp) == "" {
			t.Fatalf("before the end of the session: got %v, want the app's answer", resp)
		}
		return resp.Status == http.StatusUnauthorized
	})
	resp := navigate(t, c, site+"/end")
	if to := resp.Location(); resp.Status != http.StatusFound || to == nil || !strings.HasPrefix(to.String(), s.Issuer) {
		t.Errorf("navigation after the end of the session: got %v to %v, want a login", resp, to)
	}
}

// wantEndReason fails the test unless a session ended for the reason, and none for a reason that is neither this one nor in
// also.
func wantEndReason(t *testing.T, caddy *caddyserver.Server, reason string, also ...string) {
	t.Helper()
	n := 0
	for _, entry := range caddy.Entries(t, "http.handlers.oauth_session") {
		if entry["msg"] == "session ended" {
			got, _ := entry["reason"].(string)
			if got == reason {
				n++
			} else if !slices.Contains(also, got) {
				t.Errorf("got a session end with reason %q, want %q", got, reason)
			}
		}
	}
	if n == 0 {
		t.Errorf("got no session end with reason %q in the log, want one", reason)
	}
}

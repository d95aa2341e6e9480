package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestServers runs a session at each server: login, storms of requests with an expired token, and the refusal of the refresh
// token, for which each server has its own answer.
func TestServers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		scope string // "" for the default
		start func(t testing.TB, site string) *op.Server
		// revoke makes the server refuse the refresh tokens of the browser's user.
		revoke func(t *testing.T, s *op.Server, c *client.Client, site string)
		// reason is the proxy's reason for the end of the session.
		reason string
	}{
		{
			name: "zitadel", scope: "openid profile email offline_access", reason: "refresh_rejected",
			start:  func(t testing.TB, site string) *op.Server { return op.Zitadel(t, site+"/oauth2/callback", shortLife) },
			revoke: logOutAtZitadel,
		},
		// Dex keeps one refresh token per user and client: a new login revokes the former one. The error is invalid_request.
		{
			name: "dex", scope: "openid profile email offline_access", reason: "refused_unclear",
			start:  func(t testing.TB, site string) *op.Server { return op.Dex(t, site+"/oauth2/callback", shortLife) },
			revoke: func(t *testing.T, s *op.Server, _ *client.Client, site string) { login(t, s, site+"/") },
		},
		// The error is invalid_grant.
		{
			name: "Django OAuth Toolkit", reason: "refresh_rejected",
			start: func(t testing.TB, site string) *op.Server { return op.Django(t, site, shortLife) },
			revoke: func(t *testing.T, s *op.Server, c *client.Client, _ string) {
				if resp := navigate(t, c, strings.TrimSuffix(s.Issuer, "/o")+"/revoke/"); resp.Status != http.StatusOK {
					t.Fatalf("revoking the refresh tokens: got %v, want 200", resp)
				}
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			site := newSite(t)
			s := tc.start(t, site)
			app := echo.Start(t, echo.Options{})
			refreshes := countRefreshes(t, s)
			options := refreshes.option
			if tc.scope != "" {
				options += "\nscope " + tc.scope
			}
			caddy := caddyserver.Start(t, protected(site, s, options, app))
			c := login(t, s, site+"/wanted?q=1")
			sendStorms(t, c, site)
			refreshes.want(t, storms)
			tc.revoke(t, s, c, site)
			awaitSessionEnd(t, s, c, site)
			wantEndReason(t, caddy, tc.reason, "logout")
		})
	}
}

// logOutAtZitadel logs the user in with a second browser and out at the server, which revokes all tokens of the client and
// the user. The error is invalid_grant.
func logOutAtZitadel(t *testing.T, s *op.Server, _ *client.Client, site string) {
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
}

// TestGlewlwyd runs sessions at Glewlwyd: one user revokes the refresh token there, and another logs out there.
func TestGlewlwyd(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	g := op.Glewlwyd(t, site, shortLife)
	app := echo.Start(t, echo.Options{})
	refreshes := countRefreshes(t, &g.Server)
	caddy := caddyserver.Start(t, protected(site, &g.Server, refreshes.option, app))
	bob := client.New("bob", "bob-password")
	page, err := g.Login(t.Context(), bob, site+"/wanted?q=1")
	if err != nil {
		t.Fatal(err)
	}
	wantAppPage(t, page, site+"/wanted?q=1")
	sendStorms(t, bob, site)
	refreshes.want(t, storms)

	// Alice logs out in one of two browsers, and confirms it on Glewlwyd's page. Glewlwyd's logout token has neither exp nor
	// sid, and ends her other session.
	leaving, alice := login(t, &g.Server, site+"/"), login(t, &g.Server, site+"/")
	there, err := leaving.Submit(t.Context(), navigate(t, leaving, site+"/oauth2/logout"))
	if err != nil {
		t.Fatal(err)
	}
	if n := logoutsByServer(t, caddy); n != 0 {
		t.Errorf("before the user confirms: got %d sessions ended by the server, want none", n)
	}
	if err := g.SignOut(t.Context(), leaving, there); err != nil {
		t.Fatal(err)
	}
	awaitSessionEnd(t, &g.Server, alice, site)
	awaitLogoutsByServer(t, caddy, 1)

	// The answer to a dead refresh token is 400 with an empty body.
	if resp := fetch(t, bob, site+"/"); bearer(resp) == "" {
		t.Fatalf("another user after the logout: got %v, want the app's answer", resp)
	}
	if err := g.RevokeTokens(t.Context(), bob); err != nil {
		t.Fatal(err)
	}
	awaitSessionEnd(t, &g.Server, bob, site)
	wantEndReason(t, caddy, "refused_unclear", "logout", "backchannel_logout")
}

// TestDjangoLogout logs a user out at the app. Django OAuth Toolkit names no endpoints for that in its metadata. The configured
// one revokes the tokens; the user stays logged in at the server.
func TestDjangoLogout(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	s := op.Django(t, site, longLife)
	caddyserver.Start(t, protected(site, s, "revocation_endpoint "+s.Issuer+"/revoke_token/", echo.Start(t, echo.Options{})))
	c := login(t, s, site+"/")
	token := bearer(fetch(t, c, site+"/"))
	app := client.New("", "")
	app.Header = http.Header{"Authorization": {"Bearer " + token}}
	if resp := fetch(t, app, s.Issuer+"/userinfo/"); resp.Status != http.StatusOK {
		t.Fatalf("before the logout: got %v, want the user", resp)
	}
	page, err := c.Submit(t.Context(), navigate(t, c, site+"/oauth2/logout"))
	if err != nil || page.URL.String() != site+"/oauth2/logout/callback" {
		t.Fatalf("logout: got %v and error %v, want the page after it", page, err)
	}
	eventually(t, "revocation of the access token", func() bool {
		return fetch(t, app, s.Issuer+"/userinfo/").Status == http.StatusUnauthorized
	})
	if resp := fetch(t, c, site+"/"); resp.Status != http.StatusUnauthorized {
		t.Errorf("after the logout: got %v, want 401", resp)
	}
	if page, err = c.Visit(t.Context(), site+"/"); err != nil {
		t.Fatal(err)
	}
	wantAppPage(t, page, site+"/") // without the login form
}

// awaitLogoutsByServer waits until logout tokens have ended the number of sessions since the start of Caddy, and fails the
// test if it is more. The log entry follows the end of the session.
func awaitLogoutsByServer(t *testing.T, caddy *caddyserver.Server, want int) {
	t.Helper()
	eventually(t, "logout by the server in the log", func() bool { return logoutsByServer(t, caddy) >= want })
	if n := logoutsByServer(t, caddy); n != want {
		t.Errorf("got %d sessions ended by the server, want %d", n, want)
	}
}

// logoutsByServer returns the number of sessions that logout tokens have ended.
func logoutsByServer(t *testing.T, caddy *caddyserver.Server) int {
	t.Helper()
	n := 0
	for _, entry := range caddy.Entries(t, "http.handlers.oauth_session") {
		if ended, ok := entry["sessions"].(float64); ok && entry["msg"] == "logged out by the authorization server" {
			n += int(ended)
		}
	}
	return n
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

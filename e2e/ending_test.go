package e2e

import (
	"net/http"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestSessionEndsDuringRequest ends a session, by a refused refresh, while the app still works on two of its requests. They
// get the same answers as later requests: a navigation gets a login, a fetch gets 401.
func TestSessionEndsDuringRequest(t *testing.T) {
	t.Parallel()
	site, app := newSite(t), echo.Start(t, echo.Options{})
	as, s := startFake(t, site+"/oauth2/callback")
	setAccessTokenLifetime(as, shortLife)
	caddyserver.Start(t, protected(site, s, "", app))
	c := login(t, s, site+"/")
	navigation, script := make(chan fetchResult, 1), make(chan fetchResult, 1)
	go func() {
		resp, err := c.Navigate(t.Context(), site+longPoll)
		navigation <- fetchResult{resp, err}
	}()
	go func() {
		resp, err := c.Fetch(t.Context(), http.MethodGet, site+longPoll, "")
		script <- fetchResult{resp, err}
	}()
	awaitLongPolls(t, app, 2)
	// Revoking the current tokens would not suffice: a refresh may be in progress and bring new ones.
	as.Fail(fakeas.OAuthError("invalid_grant").For(fakeas.GrantRefresh).Repeat(-1))
	eventually(t, "end of the session", func() bool { return fetch(t, c, site+"/").Status == http.StatusUnauthorized })
	if got := <-navigation; got.err != nil || got.resp.Status != http.StatusFound || got.resp.Header["Set-Cookie"] == nil {
		t.Errorf("navigation: got %v and error %v, want a login", got.resp, got.err)
	}
	if got := <-script; got.err != nil || got.resp.Status != http.StatusUnauthorized {
		t.Errorf("fetch: got %v and error %v, want 401", got.resp, got.err)
	}
}

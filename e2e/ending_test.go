package e2e

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestSessionEndsDuringRequest has the app still work on requests, passed on with a good token, when the authorization
// server refuses the refresh: they are answered like those that come after, and the window does not go blank.
func TestSessionEndsDuringRequest(t *testing.T) {
	t.Parallel()
	working := make(chan struct{}, 2)
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			working <- struct{}{}
			<-r.Context().Done()
		}
	}))
	t.Cleanup(app.Close)
	site := newSite(t)
	as, s := startFake(t, site+"/oauth2/callback")
	setAccessTokenLifetime(as, shortLife)
	caddyserver.Start(t, caddyserver.Config{
		Env: secret(s), Sites: block(site, protect(s, "")+"reverse_proxy "+app.Listener.Addr().String()),
	})
	c := client.New("", "")
	if page, err := c.Login(t.Context(), site+"/"); err != nil || page.Status != http.StatusOK {
		t.Fatalf("the login ended with %v, error %v", page, err)
	}
	type result struct {
		resp *client.Response
		err  error
	}
	navigation, script := make(chan result, 1), make(chan result, 1)
	go func() {
		resp, err := c.Navigate(t.Context(), site+"/slow")
		navigation <- result{resp, err}
	}()
	go func() {
		resp, err := c.Fetch(t.Context(), http.MethodGet, site+"/slow", "")
		script <- result{resp, err}
	}()
	<-working
	<-working
	// Not the tokens there are: a refresh may be under way, which brings another one.
	as.Fail(fakeas.OAuthError("invalid_grant").For(fakeas.GrantRefresh).Repeat(-1))
	eventually(t, "end of the session", func() bool { return fetch(t, c, site+"/").Status == http.StatusUnauthorized })
	if got := <-navigation; got.err != nil || got.resp.Status != http.StatusFound || got.resp.Header["Set-Cookie"] == nil {
		t.Errorf("the navigation got %v and error %v, want a login", got.resp, got.err)
	}
	if got := <-script; got.err != nil || got.resp.Status != http.StatusUnauthorized {
		t.Errorf("the script got %v and error %v, want 401", got.resp, got.err)
	}
}

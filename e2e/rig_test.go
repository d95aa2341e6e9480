package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const (
	sessionCookie = "__Host-oauth_session"

	// shortLife is the lifetime of access tokens that expire during a test. The proxy refreshes at 70 % of it at the earliest.
	shortLife = 2 * time.Second
	// heldLife is the lifetime of an access token that expires during a test, but is not due for a refresh before the end
	// of its login, even on a busy machine.
	heldLife = 8 * time.Second
	// heldRest is the most that is left of heldLife at the refresh, which begins after 70 % at the earliest.
	heldRest = heldLife * 3 / 10
	// longLife is the lifetime of access tokens that do not expire during a test.
	longLife = time.Hour

	// patience bounds every wait for an event, on a busy machine. Only a failing test waits that long.
	patience = 3 * time.Minute
)

// newSite returns the origin of a site on a free port.
func newSite(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("http://localhost:%d", proc.FreePort(t))
}

// block returns a site block of a Caddyfile, with an access log.
func block(site, directives string) string {
	return fmt.Sprintf("%s {\n\tbind 127.0.0.1\n\tlog\n%s\n}\n", site, directives)
}

// protect returns the directive for the server's client. The environment must contain secret. Unless the options set
// refresh_timeout, requests wait long enough for a refresh on a busy machine.
func protect(s *op.Server, options string) string {
	if !strings.Contains(options, "refresh_timeout") {
		options += "\nrefresh_timeout 50s"
	}
	if s.DiscoveryURL != "" {
		options += "\ndiscovery_url " + s.DiscoveryURL
	}
	return fmt.Sprintf("oauth_session {\nissuer %s\nclient_id %q\nclient_secret {env.CLIENT_SECRET}\n%s\n}\n",
		s.Issuer, s.ClientID, options)
}

// secret returns the environment variable with the client secret, for protect.
func secret(s *op.Server) []string { return []string{"CLIENT_SECRET=" + s.ClientSecret} }

// protected returns the configuration of one protected site in front of the app.
func protected(site string, s *op.Server, options string, app *echo.Server) caddyserver.Config {
	return caddyserver.Config{Env: secret(s), Sites: block(site, protect(s, options)+"reverse_proxy "+app.Addr())}
}

// startFake starts a fake authorization server in the test's process. It logs in without a form.
func startFake(t testing.TB, redirectURI string) (*fakeas.Server, *op.Server) {
	t.Helper()
	s := op.Server{ClientID: "app", ClientSecret: "fake-client-secret-canary"}
	as := fakeas.Start(t, fakeas.Options{Clients: []fakeas.Client{{
		ID: s.ClientID, Secret: s.ClientSecret, RedirectURIs: []string{redirectURI},
	}}})
	s.Issuer = as.URL
	return as, &s
}

// setAccessTokenLifetime sets the lifetime of access tokens issued from now on.
func setAccessTokenLifetime(as *fakeas.Server, d time.Duration) {
	as.Set(func(k *fakeas.Knobs) { k.AccessTokenLifetime = d })
}

// login logs a new browser in at the URL. The login must end at the app's page there.
func login(t testing.TB, s *op.Server, rawURL string) *client.Client {
	t.Helper()
	c := client.New(s.User, s.Password)
	page, err := s.Login(t.Context(), c, rawURL)
	if err != nil {
		t.Fatal(err)
	}
	wantAppPage(t, page, rawURL)
	return c
}

// wantAppPage fails the test unless the page is the app's answer at the URL, with a bearer token.
func wantAppPage(t testing.TB, page *client.Response, rawURL string) {
	t.Helper()
	if err := checkAppPage(page, rawURL); err != nil {
		t.Fatal(err)
	}
}

// checkAppPage returns an error unless the page is the app's answer at the URL, with a bearer token.
func checkAppPage(page *client.Response, rawURL string) error {
	if page.Status != http.StatusOK || page.URL.String() != rawURL || bearer(page) == "" {
		return fmt.Errorf("got %v, want the app's page at %s", page, rawURL)
	}
	return nil
}

// fetch sends a request like fetch() in a page of the site.
func fetch(t testing.TB, c *client.Client, rawURL string) *client.Response {
	t.Helper()
	resp, err := c.Fetch(t.Context(), http.MethodGet, rawURL, "")
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// navigate opens the URL and follows no redirects.
func navigate(t testing.TB, c *client.Client, rawURL string) *client.Response {
	t.Helper()
	resp, err := c.Navigate(t.Context(), rawURL)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// bearer returns the token in the app's request, or "" if the answer is not the app's.
func bearer(r *client.Response) string { return bearerIn(r.Status, r.Body) }

func bearerIn(status int, body []byte) string {
	var seen echo.Request
	if status != http.StatusOK || json.Unmarshal(body, &seen) != nil {
		return ""
	}
	return seen.Bearer()
}

// awaitNewBearer sends requests until the app gets another token than the former, and returns it. Each request must reach
// the app.
func awaitNewBearer(t testing.TB, c *client.Client, rawURL, former string) string {
	t.Helper()
	var token string
	eventually(t, "new token", func() bool {
		resp := fetch(t, c, rawURL)
		if token = bearer(resp); token == "" {
			t.Fatalf("before the new token: got %v, want the app's answer", resp)
		}
		return token != former
	})
	return token
}

// cookieOf returns the client's session cookie as a Cookie header.
func cookieOf(t testing.TB, c *client.Client, site string) string {
	t.Helper()
	u, err := url.Parse(site)
	if err != nil {
		t.Fatal(err)
	}
	cookie := c.Jar.Cookie(u, sessionCookie)
	if cookie == nil {
		t.Fatalf("got no session cookie for %s, want one", site)
	}
	return cookie.Name + "=" + cookie.Value
}

// eventually waits until ok returns true. event names the expected event in the failure message.
func eventually(t testing.TB, event string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("got no %s within %v", event, patience)
		}
	}
}

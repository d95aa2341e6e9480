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

	// shortLife is the life of an access token that a test waits out. The proxy refreshes at 70 % of it at the earliest.
	shortLife = 2 * time.Second
	// heldLife is that of a token which a test waits out, and which must not be due for a refresh before the login that
	// brought it is over.
	heldLife = 8 * time.Second
	// heldRest is what is left of heldLife, at most, when the proxy refreshes: it does so after 70 % at the earliest.
	heldRest = heldLife * 3 / 10
	// longLife is that of one which lives longer than any test.
	longLife = time.Hour

	// patience bounds every wait for something that comes by itself. It ends a test that has gone wrong, on a busy machine
	// too.
	patience = 3 * time.Minute
)

// newSite returns the address of a site that nothing serves yet.
func newSite(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("http://localhost:%d", proc.FreePort(t))
}

// block is a site of a Caddyfile, with an access log.
func block(site, directives string) string {
	return fmt.Sprintf("%s {\n\tbind 127.0.0.1\n\tlog\n%s\n}\n", site, directives)
}

// protect is the directive for a client of the server. The environment must hold secret. Unless the options say something
// else, requests wait for a refresh as long as a busy machine may need for it.
func protect(s *op.Server, options string) string {
	if !strings.Contains(options, "refresh_timeout") {
		options += "\nrefresh_timeout 50s"
	}
	return fmt.Sprintf("oauth_session {\nissuer %s\nclient_id %q\nclient_secret {env.CLIENT_SECRET}\n%s\n}\n",
		s.Issuer, s.ClientID, options)
}

// secret is the environment variable that protect refers to.
func secret(s *op.Server) []string { return []string{"CLIENT_SECRET=" + s.ClientSecret} }

// protected is the configuration of one protected site in front of the app.
func protected(site string, s *op.Server, options string, app *echo.Server) caddyserver.Config {
	return caddyserver.Config{Env: secret(s), Sites: block(site, protect(s, options)+"reverse_proxy "+app.Addr())}
}

// startFake starts an authorization server in the test's own process, for the tests in which it does not matter whose it
// is. It logs in without a form.
func startFake(t testing.TB, redirectURI string) (*fakeas.Server, *op.Server) {
	t.Helper()
	s := op.Server{ClientID: "app", ClientSecret: "fake-client-secret-canary"}
	as := fakeas.Start(t, fakeas.Options{Clients: []fakeas.Client{{
		ID: s.ClientID, Secret: s.ClientSecret, RedirectURIs: []string{redirectURI},
	}}})
	s.Issuer = as.URL
	return as, &s
}

// setLife changes the life of the access tokens issued from now on.
func setLife(as *fakeas.Server, d time.Duration) {
	as.Set(func(k *fakeas.Knobs) { k.AccessTokenLifetime = d })
}

// login logs a new browser in at the URL and demands to end there.
func login(t testing.TB, s *op.Server, rawURL string) *client.Client {
	t.Helper()
	c := client.New(s.User, s.Password)
	page, err := c.Login(t.Context(), rawURL)
	if err != nil {
		t.Fatal(err)
	}
	landed(t, page, rawURL)
	return c
}

// landed demands that a login ended on the wanted page, as the app answered it.
func landed(t testing.TB, page *client.Response, rawURL string) {
	t.Helper()
	if page.Status != http.StatusOK || page.URL.String() != rawURL || bearer(page) == "" {
		t.Fatalf("the login for %s ended with %v", rawURL, page)
	}
}

// fetch sends what a script of the page sends.
func fetch(t testing.TB, c *client.Client, rawURL string) *client.Response {
	t.Helper()
	resp, err := c.Fetch(t.Context(), http.MethodGet, rawURL, "")
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// navigate opens the URL and follows no redirect.
func navigate(t testing.TB, c *client.Client, rawURL string) *client.Response {
	t.Helper()
	resp, err := c.Navigate(t.Context(), rawURL)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// bearer returns the token that the app got, or "" if the answer is not the app's.
func bearer(r *client.Response) string { return bearerIn(r.Status, r.Body) }

func bearerIn(status int, body []byte) string {
	var seen echo.Request
	if status != http.StatusOK || json.Unmarshal(body, &seen) != nil {
		return ""
	}
	return seen.Bearer()
}

// renewed asks the app until it gets another token than the former, and returns that. Every answer must be good.
func renewed(t testing.TB, c *client.Client, rawURL, former string) string {
	t.Helper()
	var token string
	eventually(t, "a refreshed token", func() bool {
		resp := fetch(t, c, rawURL)
		if token = bearer(resp); token == "" {
			t.Fatalf("while waiting for a refresh: %v", resp)
		}
		return token != former
	})
	return token
}

// cookieOf returns the session's cookie, as a Cookie header.
func cookieOf(t testing.TB, c *client.Client, site string) string {
	t.Helper()
	u, err := url.Parse(site)
	if err != nil {
		t.Fatal(err)
	}
	cookie := c.Jar.Cookie(u, sessionCookie)
	if cookie == nil {
		t.Fatalf("no session cookie for %s", site)
	}
	return cookie.Name + "=" + cookie.Value
}

// eventually asks ok again and again until it says yes.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no %s within %v", what, patience)
		}
	}
}

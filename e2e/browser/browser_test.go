package browser_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/e2e/rp"
)

// startApp starts an authorization server and an app with a login at it, and returns the app's address. The app is on
// localhost and the server on 127.0.0.1, which are two sites for a browser.
func startApp(t *testing.T, forms bool) (string, *op.OIDCProvider) {
	t.Helper()
	var app http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { app.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	address := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	redirectURI := address + "/oauth2/callback"
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{redirectURI}, Forms: forms})
	client, err := rp.Discover(t.Context(), p.Issuer, p.ClientID, p.ClientSecret, redirectURI, "openid")
	if err != nil {
		t.Fatal(err)
	}
	app = rp.NewApp(client)
	return address, p
}

func TestLoginThroughForms(t *testing.T) {
	t.Parallel()
	app, p := startApp(t, true)
	b, page := browser.Start(t)
	doc := page.Login(t, app+"/", "bob", "any")
	if doc.Status != http.StatusOK || doc.URL != app+"/" {
		t.Errorf("login: got %+v, want the app's page", doc)
	}
	if text := page.Text(t); text != "bob" {
		t.Errorf("got page text %q, want bob", text)
	}
	cookie := b.Cookie(t, "__Host-app")
	if cookie == nil || !cookie.Secure || !cookie.HTTPOnly {
		t.Errorf("got cookie %+v, want a Secure and HttpOnly one", cookie)
	}
	second := b.NewPage(t)
	if doc := second.Open(t, app+"/"); doc.Status != http.StatusOK || second.Text(t) != "bob" {
		t.Errorf("another tab: got %+v, want the same user", doc)
	}
	if n := p.Stats(t).Grants["authorization_code"].OK; n != 1 {
		t.Errorf("got %d logins, want 1", n)
	}
}

func TestFetchUsesThePagesCookies(t *testing.T) {
	t.Parallel()
	app, _ := startApp(t, false)
	_, page := browser.Start(t)
	if doc := page.Open(t, app+"/"); doc.URL != app+"/" {
		t.Fatalf("login: got %+v, want the app's page", doc)
	}
	got := page.Fetch(t, "/api", browser.Request{Method: "POST", Body: "{}", Headers: map[string]string{"Content-Type": "application/json"}})
	if got.Status != http.StatusOK || got.Body != "POST alice" || got.Headers["x-fetch-mode"] != "cors" {
		t.Errorf("got %+v, want a POST of alice in mode cors", got)
	}
	all := page.FetchAll(t, "/api", browser.Request{}, 50)
	if len(all) != 50 {
		t.Fatalf("got %d answers, want 50", len(all))
	}
	for _, got := range all {
		if got.Status != http.StatusOK || got.Body != "GET alice" {
			t.Fatalf("got %+v, want a GET of alice", got)
		}
	}
	if got := page.Fetch(t, "http://nowhere.test/", browser.Request{}); got.Status != 0 || got.Error == "" {
		t.Errorf("fetch from another machine: got %+v, want an error", got)
	}
}

func TestBrowsersShareNoCookies(t *testing.T) {
	t.Parallel()
	app, _ := startApp(t, false)
	_, alice := browser.Start(t)
	alice.Open(t, app+"/")
	_, other := browser.Start(t)
	other.Open(t, app+"/api")
	if text := other.Text(t); text != "not logged in" {
		t.Errorf("another browser: got page text %q, want not logged in", text)
	}
}

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

// startApp starts an authorization server and an app that uses it, and returns the address of the app. The app is on
// localhost and the server on 127.0.0.1: two sites, as in real life.
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
		t.Errorf("the login ended with %+v", doc)
	}
	if text := page.Text(t); text != "bob" {
		t.Errorf("the page shows %q, want the user", text)
	}
	cookie := b.Cookie(t, "__Host-app")
	if cookie == nil || !cookie.Secure || !cookie.HTTPOnly {
		t.Errorf("got cookie %+v", cookie)
	}
	second := b.NewPage(t)
	if doc := second.Open(t, app+"/"); doc.Status != http.StatusOK || second.Text(t) != "bob" {
		t.Errorf("another tab ended with %+v", doc)
	}
	if n := p.Stats(t).Grants["authorization_code"].OK; n != 1 {
		t.Errorf("got %d logins, want 1", n)
	}
}

func TestFetch(t *testing.T) {
	t.Parallel()
	app, _ := startApp(t, false)
	_, page := browser.Start(t)
	if doc := page.Open(t, app+"/"); doc.URL != app+"/" {
		t.Fatalf("the login ended with %+v", doc)
	}
	got := page.Fetch(t, "/api", browser.Request{Method: "POST", Body: "{}", Headers: map[string]string{"Content-Type": "application/json"}})
	if got.Status != http.StatusOK || got.Body != "POST alice" || got.Headers["x-fetch-mode"] != "cors" {
		t.Errorf("got %+v", got)
	}
	all := page.FetchAll(t, "/api", browser.Request{}, 50)
	if len(all) != 50 {
		t.Fatalf("got %d answers, want 50", len(all))
	}
	for _, got := range all {
		if got.Status != http.StatusOK || got.Body != "GET alice" {
			t.Fatalf("got %+v", got)
		}
	}
	if got := page.Fetch(t, "http://nowhere.test/", browser.Request{}); got.Status != 0 || got.Error == "" {
		t.Errorf("a fetch out of the machine: got %+v", got)
	}
}

func TestProfilesAreApart(t *testing.T) {
	t.Parallel()
	app, _ := startApp(t, false)
	_, alice := browser.Start(t)
	alice.Open(t, app+"/")
	_, stranger := browser.Start(t)
	stranger.Open(t, app+"/api")
	if text := stranger.Text(t); text != "not logged in" {
		t.Errorf("a new profile shows %q", text)
	}
}

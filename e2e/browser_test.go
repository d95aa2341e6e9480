package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestBrowser is a user's whole visit: a login with two forms, a refresh in the background, and a logout with two buttons.
func TestBrowser(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{
		RedirectURIs:           []string{site + "/oauth2/callback"},
		PostLogoutRedirectURIs: []string{site + "/oauth2/logout/callback"},
		AccessTokenLifetime:    shortLife,
		Forms:                  true,
	})
	app := echo.Start(t, echo.Options{})
	caddyserver.Start(t, protected(site, &p.Server, "scope openid email", app))
	b, page := browser.Start(t)

	doc := page.Login(t, site+"/wanted?q=1", "alice", "any")
	if doc.Status != http.StatusOK || doc.URL != site+"/wanted?q=1" {
		t.Fatalf("login: got %+v, want the app's page", doc)
	}
	first := bearerIn(doc.Status, []byte(page.Text(t)))
	if first == "" {
		t.Fatalf("got page text %s, want the app's answer", page.Text(t))
	}
	cookie := b.Cookie(t, sessionCookie)
	if cookie == nil || !cookie.Secure || !cookie.HTTPOnly || cookie.SameSite != "Lax" || cookie.Path != "/" {
		t.Fatalf("got session cookie %+v, want Secure, HttpOnly, SameSite=Lax and Path=/", cookie)
	}
	if cookies := browser.Eval[string](t, page, `document.cookie`); strings.Contains(cookies, "oauth") {
		t.Errorf("document.cookie: got %s, want no cookie of the proxy", cookies)
	}
	wantSessionEndpoint(t, page, "alice")

	// A navigation would delete the page's variables.
	browser.Eval[bool](t, page, `window.kept = true`)
	eventually(t, "refreshed token", func() bool {
		r := page.Fetch(t, "/api", browser.Request{})
		token := bearerIn(r.Status, []byte(r.Body))
		if token == "" {
			t.Fatalf("before the refresh: got %+v, want the app's answer", r)
		}
		return token != first
	})
	if !browser.Eval[bool](t, page, `window.kept === true`) || page.URL(t) != site+"/wanted?q=1" {
		t.Errorf("after the refresh: got page %s, want the same page without a navigation", page.URL(t))
	}
	if n := p.Stats(t).Requests["GET /auth"]; n != 1 {
		t.Errorf("got %d logins, want 1", n)
	}

	logOutInBrowser(t, page, site, p)
	if c := b.Cookie(t, sessionCookie); c != nil {
		t.Errorf("after the logout: got session cookie %+v, want none", c)
	}
	wantDeadCookie(t, site, cookie.Name+"="+cookie.Value, app)
	// The logout has also ended the session at the authorization server.
	if doc := page.Open(t, site+"/again"); !strings.HasPrefix(doc.URL, p.Issuer+"/interaction/") {
		t.Errorf("after the logout: got %+v, want the login form of the server", doc)
	}
}

// wantSessionEndpoint fails the test unless the session endpoint gives the page the user and no tokens.
func wantSessionEndpoint(t *testing.T, page *browser.Page, user string) {
	t.Helper()
	r := page.Fetch(t, "/oauth2/session", browser.Request{})
	var info struct {
		Authenticated  bool           `json:"authenticated"`
		User           string         `json:"user"`
		Claims         map[string]any `json:"claims"`
		TokenExpiresIn *int           `json:"token_expires_in"`
		LogoutURL      string         `json:"logout_url"`
	}
	if err := json.Unmarshal([]byte(r.Body), &info); err != nil {
		t.Fatalf("session endpoint: got %+v, want JSON", r)
	}
	if !info.Authenticated || info.User != user || info.Claims["email"] != user+"@example.test" {
		t.Errorf("session endpoint: got %s, want the user %s", r.Body, user)
	}
	if info.TokenExpiresIn == nil || info.LogoutURL != "/oauth2/logout" {
		t.Errorf("session endpoint: got %s, want token_expires_in and the logout URL", r.Body)
	}
	if strings.Contains(r.Body, "_token\"") || strings.Contains(r.Body, "eyJ") {
		t.Errorf("session endpoint: got %s, want no tokens", r.Body)
	}
}

// logOutInBrowser logs out with the buttons of the proxy and of the server.
func logOutInBrowser(t *testing.T, page *browser.Page, site string, p *op.OIDCProvider) {
	t.Helper()
	doc := page.Open(t, site+"/oauth2/logout")
	if doc.Status != http.StatusOK || doc.URL != site+"/oauth2/logout" {
		t.Fatalf("got %+v, want the logout page", doc)
	}
	// The user is still logged in at the server: if opening the page ended the session, this would start a login.
	page.Open(t, site+"/still")
	if n := p.Stats(t).Requests["GET /auth"]; n != 1 {
		t.Errorf("after opening the logout page: got %d logins, want 1", n)
	}
	page.Open(t, site+"/oauth2/logout")
	if doc = page.SubmitForm(t, "", ""); strings.HasPrefix(doc.URL, site) {
		t.Fatalf("after the logout button: got %+v, want the server's logout page", doc)
	}
	doc = page.SubmitForm(t, "", "")
	back := strings.HasPrefix(doc.URL, site+"/oauth2/logout/callback")
	if doc.Status != http.StatusOK || !back || !strings.Contains(page.Text(t), "Signed out") {
		t.Fatalf("after the server's logout button: got %+v, want the logout callback: %s", doc, page.Text(t))
	}
}

// wantDeadCookie fails the test if a request with the session cookie of an ended session reaches the app.
func wantDeadCookie(t *testing.T, site, cookie string, app *echo.Server) {
	t.Helper()
	before := len(app.Requests())
	thief := client.New("", "")
	thief.Header = http.Header{"Cookie": {cookie}}
	if resp := fetch(t, thief, site+"/replay"); resp.Status != http.StatusUnauthorized {
		t.Errorf("fetch with the old cookie: got %v, want 401", resp)
	}
	if resp := navigate(t, thief, site+"/replay"); resp.Status != http.StatusFound {
		t.Errorf("navigation with the old cookie: got %v, want a login", resp)
	}
	if n := len(app.Requests()) - before; n != 0 {
		t.Errorf("the app got %d requests with the old cookie, want none", n)
	}
}

// openTabs starts a browser with empty tabs.
func openTabs(t testing.TB, n int) (*browser.Browser, []*browser.Page) {
	t.Helper()
	b, first := browser.Start(t)
	pages := []*browser.Page{first}
	for len(pages) < n {
		pages = append(pages, b.NewPage(t))
	}
	return b, pages
}

// TestTabs opens more tabs than there are login cookies, and logs in from the last tab to the first.
func TestTabs(t *testing.T) {
	t.Parallel()
	const tabs = 10
	site := newSite(t)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{site + "/oauth2/callback"}, Forms: true})
	app := echo.Start(t, echo.Options{})
	caddyserver.Start(t, protected(site, &p.Server, "", app))
	b, pages := openTabs(t, tabs)
	wanted := func(i int) string { return fmt.Sprintf("%s/tab/%d?n=%d", site, i, i) }
	for i, page := range pages {
		if doc := page.Open(t, wanted(i)); !strings.HasPrefix(doc.URL, p.Issuer+"/interaction/") {
			t.Fatalf("tab %d: got %+v, want the login form of the server", i, doc)
		}
	}
	if n := loginCookies(t, b); n != 5 {
		t.Errorf("got %d login cookies, want 5", n)
	}
	for i := tabs - 1; i >= 0; i-- {
		var doc browser.Document
		for range 5 { // two forms, and those of a repeated login
			if doc = pages[i].SubmitForm(t, "alice", "any"); strings.HasPrefix(doc.URL, site) {
				break
			}
		}
		if doc.Status != http.StatusOK || doc.URL != wanted(i) || bearerIn(doc.Status, []byte(pages[i].Text(t))) == "" {
			t.Errorf("tab %d: got %+v, want the app's page: %s", i, doc, pages[i].Text(t))
		}
	}
	if r := pages[0].Fetch(t, "/oauth2/session", browser.Request{}); !strings.Contains(r.Body, `"authenticated":true`) {
		t.Errorf("after all logins: got %+v, want an authenticated session", r)
	}
}

// loginCookies returns the number of login cookies in the browser.
func loginCookies(t *testing.T, b *browser.Browser) int {
	t.Helper()
	n := 0
	for _, c := range b.Cookies(t) {
		if strings.HasPrefix(c.Name, "__Host-oauth_login_") {
			n++
		}
	}
	return n
}

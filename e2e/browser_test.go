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

// TestBrowser is a user's whole visit: in through two forms, a refresh behind the scenes, and out by two buttons.
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
		t.Fatalf("the login ended with %+v", doc)
	}
	first := bearerIn(doc.Status, []byte(page.Text(t)))
	if first == "" {
		t.Fatalf("the page is not the app's: %s", page.Text(t))
	}
	cookie := b.Cookie(t, sessionCookie)
	if cookie == nil || !cookie.Secure || !cookie.HTTPOnly || cookie.SameSite != "Lax" || cookie.Path != "/" {
		t.Fatalf("got session cookie %+v", cookie)
	}
	if strings.Contains(browser.Eval[string](t, page, `document.cookie`), "oauth") {
		t.Error("scripts can read a cookie of the proxy")
	}
	wantSessionEndpoint(t, page, "alice")

	// What a page keeps in memory is lost by any navigation.
	browser.Eval[bool](t, page, `window.kept = true`)
	eventually(t, "refreshed token", func() bool {
		r := page.Fetch(t, "/api", browser.Request{})
		token := bearerIn(r.Status, []byte(r.Body))
		if token == "" {
			t.Fatalf("while waiting for a refresh: %+v", r)
		}
		return token != first
	})
	if !browser.Eval[bool](t, page, `window.kept === true`) || page.URL(t) != site+"/wanted?q=1" {
		t.Errorf("the refresh took the page to %s", page.URL(t))
	}
	if n := p.Stats(t).Requests["GET /auth"]; n != 1 {
		t.Errorf("got %d logins, want the first alone", n)
	}

	logOutInBrowser(t, page, site, p)
	if c := b.Cookie(t, sessionCookie); c != nil {
		t.Errorf("after the logout the browser still has the cookie %+v", c)
	}
	wantDeadCookie(t, site, cookie.Name+"="+cookie.Value, app)
	// The authorization server has forgotten the user too.
	if doc := page.Open(t, site+"/again"); !strings.HasPrefix(doc.URL, p.Issuer+"/interaction/") {
		t.Errorf("after the logout a visit ends with %+v, want the form of the server", doc)
	}
}

// sessionEndpoint demands that the page can learn about its session, and learns no token.
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
		t.Fatalf("the session endpoint answered %+v", r)
	}
	if !info.Authenticated || info.User != user || info.Claims["email"] != user+"@example.test" {
		t.Errorf("the session endpoint does not know the user: %s", r.Body)
	}
	if info.TokenExpiresIn == nil || info.LogoutURL != "/oauth2/logout" {
		t.Errorf("the session endpoint answered %s", r.Body)
	}
	if strings.Contains(r.Body, "_token\"") || strings.Contains(r.Body, "eyJ") {
		t.Errorf("the session endpoint gives tokens away: %s", r.Body)
	}
}

// logOut goes out by the buttons of the proxy and of the server.
func logOutInBrowser(t *testing.T, page *browser.Page, site string, p *op.OIDCProvider) {
	t.Helper()
	doc := page.Open(t, site+"/oauth2/logout")
	if doc.Status != http.StatusOK || doc.URL != site+"/oauth2/logout" {
		t.Fatalf("the logout begins with %+v", doc)
	}
	// The server knows the user still: a session that had ended would begin anew unseen.
	if page.Open(t, site+"/still"); p.Stats(t).Requests["GET /auth"] != 1 {
		t.Error("looking at the logout page has ended the session")
	}
	page.Open(t, site+"/oauth2/logout")
	if doc = page.SubmitForm(t, "", ""); strings.HasPrefix(doc.URL, site) {
		t.Fatalf("the logout button leads to %+v, want the server's own logout", doc)
	}
	doc = page.SubmitForm(t, "", "")
	back := strings.HasPrefix(doc.URL, site+"/oauth2/logout/callback")
	if doc.Status != http.StatusOK || !back || !strings.Contains(page.Text(t), "Signed out") {
		t.Fatalf("the logout ended with %+v: %s", doc, page.Text(t))
	}
}

// replay demands that a cookie is worth nothing, and that the app sees nothing of who sends it.
func wantDeadCookie(t *testing.T, site, cookie string, app *echo.Server) {
	t.Helper()
	before := len(app.Requests())
	thief := client.New("", "")
	thief.Header = http.Header{"Cookie": {cookie}}
	if resp := fetch(t, thief, site+"/replay"); resp.Status != http.StatusUnauthorized {
		t.Errorf("a fetch with the old cookie: %v", resp)
	}
	if resp := navigate(t, thief, site+"/replay"); resp.Status != http.StatusFound {
		t.Errorf("a navigation with the old cookie: %v", resp)
	}
	if n := len(app.Requests()) - before; n != 0 {
		t.Errorf("the app saw %d requests with the old cookie", n)
	}
}

// TestTabs opens more tabs than logins can be open at a time, and signs in from the last to the first.
func TestTabs(t *testing.T) {
	t.Parallel()
	const tabs = 10
	site := newSite(t)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{site + "/oauth2/callback"}, Forms: true})
	app := echo.Start(t, echo.Options{})
	caddyserver.Start(t, protected(site, &p.Server, "", app))
	b, first := browser.Start(t)
	pages := []*browser.Page{first}
	for len(pages) < tabs {
		pages = append(pages, b.NewPage(t))
	}
	wanted := func(i int) string { return fmt.Sprintf("%s/tab/%d?n=%d", site, i, i) }
	for i, page := range pages {
		if doc := page.Open(t, wanted(i)); !strings.HasPrefix(doc.URL, p.Issuer+"/interaction/") {
			t.Fatalf("tab %d shows %+v, want the form of the server", i, doc)
		}
	}
	if n := loginCookies(t, b); n != 5 {
		t.Errorf("the browser keeps %d login cookies, want 5 at most", n)
	}
	for i := tabs - 1; i >= 0; i-- {
		var doc browser.Document
		for range 5 { // two forms, and those of one more login
			if doc = pages[i].SubmitForm(t, "alice", "any"); strings.HasPrefix(doc.URL, site) {
				break
			}
		}
		if doc.Status != http.StatusOK || doc.URL != wanted(i) || bearerIn(doc.Status, []byte(pages[i].Text(t))) == "" {
			t.Errorf("tab %d ended with %+v: %s", i, doc, pages[i].Text(t))
		}
	}
	if r := first.Fetch(t, "/oauth2/session", browser.Request{}); !strings.Contains(r.Body, `"authenticated":true`) {
		t.Errorf("after all logins: %+v", r)
	}
}

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

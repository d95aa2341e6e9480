package e2e

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// framed are the options of a site that is used in frames of the portal.
func framed(portal string) string {
	return "cookie {\nsame_site none\npartitioned\n}\ntrusted_origins " + portal
}

// TestAppInAFrame uses an app in a frame of another site, in a browser that blocks third-party cookies. The authorization
// server allows to be framed. The user signs in, signs out and signs in again without leaving the frame.
func TestAppInAFrame(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	portal, stranger := startPortal(t, "portal"), startPortal(t, "stranger")
	as, s := startFormServer(t, site)
	app := echo.Start(t, echo.Options{})
	caddyserver.Start(t, protected(site, s, framed(portal), app))
	b, tab := browser.Start(t, browser.BlockThirdPartyCookies)

	tab.Open(t, portal+"/?"+site+"/wanted?x=1")
	b.Frame(t, s.Issuer+"/authorize").Press(t, "button")
	frame := b.Frame(t, site+"/wanted?x=1")
	if bearerIn(http.StatusOK, []byte(frame.Text(t))) == "" {
		t.Fatalf("after the login: got %s in the frame, want the app's page", frame.Text(t))
	}
	cookie := b.Cookie(t, sessionCookie)
	if cookie == nil || cookie.PartitionKey == nil || cookie.PartitionKey.TopLevelSite != "http://portal.localhost" || cookie.SameSite != "None" {
		t.Errorf("got session cookie %+v, want one in the partition of the portal", cookie)
	}
	if c := b.Cookie(t, "as_probe"); c != nil {
		t.Errorf("got third-party cookie %+v, want the browser to block it", c)
	}
	if r := frame.Fetch(t, "/api", browser.Request{}); bearerIn(r.Status, []byte(r.Body)) == "" {
		t.Errorf("fetch in the frame: got %+v, want the app's answer", r)
	}
	if r := frame.Fetch(t, "/oauth2/session", browser.Request{}); !strings.Contains(r.Body, `"authenticated":true`) {
		t.Errorf("session endpoint: got %+v, want a session", r)
	}

	browser.Eval[bool](t, frame, `(() => {
		const form = document.body.appendChild(document.createElement("form"))
		form.method = "post"
		form.action = "/oauth2/logout"
		form.append(document.createElement("button"))
		return true
	})()`)
	frame.Press(t, "button")
	signedOut := b.Frame(t, site+"/oauth2/logout/callback")
	if !strings.Contains(signedOut.Text(t), "Signed out") || b.Cookie(t, sessionCookie) != nil {
		t.Errorf("after the logout: got %s and cookie %+v, want the page in the frame", signedOut.Text(t), b.Cookie(t, sessionCookie))
	}
	signedOut.Press(t, "a") // sign in again
	b.Frame(t, s.Issuer+"/authorize").Press(t, "button")
	if again := b.Frame(t, site+"/"); bearerIn(http.StatusOK, []byte(again.Text(t))) == "" {
		t.Errorf("after the second login: got %s in the frame, want the app's page", again.Text(t))
	}

	// A login that the server refuses ends on a page with a way out, in the frame.
	as.Fail(fakeas.OAuthError("access_denied").At(fakeas.EndpointAuthorize))
	tab.Open(t, portal+"/?"+site+"/oauth2/login")
	b.Frame(t, s.Issuer+"/authorize").Press(t, "button")
	b.Frame(t, site+"/oauth2/callback").Press(t, "a")
	b.Frame(t, s.Issuer+"/authorize").Press(t, "button")
	b.Frame(t, site+"/")

	// A window and a frame of another site have partitions of their own.
	if doc := tab.Open(t, site+"/window"); !strings.HasPrefix(doc.URL, s.Issuer+"/authorize") {
		t.Errorf("in a window: got %+v, want a login", doc)
	}
	if b.Cookie(t, "as_probe") == nil {
		t.Error("in a window: got no as_probe, want it: in the frame, something else than the block has kept it away")
	}
	tab.Open(t, stranger+"/?"+site+"/wanted")
	b.Frame(t, s.Issuer+"/authorize")
	// Only the portal may frame a page with a button.
	tab.Open(t, stranger+"/?"+site+"/oauth2/logout")
	wantBlocked(t, b, site+"/oauth2/logout")
	tab.Open(t, portal+"/?"+site+"/oauth2/logout")
	if page := b.Frame(t, site+"/oauth2/logout"); !strings.Contains(page.Text(t), "Sign out") {
		t.Errorf("got %s in the frame of the portal, want the logout page", page.Text(t))
	}
}

// TestFrameWithoutALoginPage uses an authorization server that answers with redirects, as for a user who is signed in there. A
// redirect needs no permission to be framed. Without partitioned cookies, a frame begins no login.
func TestFrameWithoutALoginPage(t *testing.T) {
	t.Parallel()
	portal := startPortal(t, "portal")
	app := echo.Start(t, echo.Options{})
	as, s := startFake(t, "")
	client := fakeas.Client{ID: s.ClientID, Secret: s.ClientSecret}
	var sites []string
	config := caddyserver.Config{Env: secret(s)}
	for _, options := range []string{"", "cookie {\nsame_site none\n}\ntrusted_origins " + portal, framed(portal)} {
		site := newSite(t)
		sites = append(sites, site)
		client.RedirectURIs = append(client.RedirectURIs, site+"/oauth2/callback")
		config.Sites += block(site, protect(s, options)+"reverse_proxy "+app.Addr())
	}
	as.AddClient(client)
	caddyserver.Start(t, config)
	b, tab := browser.Start(t)
	for i, site := range sites {
		tab.Open(t, portal+"/?"+site+"/wanted")
		if i < len(sites)-1 {
			wantBlocked(t, b, site+"/wanted") // the page for status 401
			if n := as.Stats().Requests[fakeas.EndpointAuthorize]; n != 0 || len(b.Cookies(t)) != 0 {
				t.Errorf("site %d: got %d logins and cookies %v, want none", i, n, b.Cookies(t))
			}
			continue
		}
		if frame := b.Frame(t, site+"/wanted"); bearerIn(http.StatusOK, []byte(frame.Text(t))) == "" {
			t.Errorf("with partitioned cookies: got %s in the frame, want the app's page", frame.Text(t))
		}
	}
}

// wantBlocked fails the test unless the browser shows an error of its own in place of a page that refuses to be framed.
func wantBlocked(t *testing.T, b *browser.Browser, url string) {
	t.Helper()
	eventually(t, "error of the browser in the frame", func() bool {
		return strings.HasPrefix(b.Frame(t, url).URL(t), "chrome-error:")
	})
}

// startPortal starts a site that shows the URL in its query in a frame, and returns its origin. Each name is another site for a
// browser, and none is the site of localhost.
func startPortal(t *testing.T, name string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!doctype html><title>portal</title><iframe src="%s" width="700" height="500"></iframe>`, html.EscapeString(r.URL.RawQuery))
	}))
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "127.0.0.1", name+".localhost", 1)
}

// startFormServer starts a fake authorization server with a login form that may be framed. It tries to set a third-party cookie.
func startFormServer(t *testing.T, site string) (*fakeas.Server, *op.Server) {
	t.Helper()
	var as *fakeas.Server
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if r.URL.Path != "/authorize" || query.Has("approved") {
			query.Del("approved")
			if r.URL.Path == "/authorize" {
				r.URL.RawQuery = query.Encode()
			}
			as.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		http.SetCookie(w, &http.Cookie{Name: "as_probe", Value: "1", Path: "/", Secure: true, SameSite: http.SameSiteNoneMode})
		query.Set("approved", "1")
		writeForm(w, query)
	}))
	t.Cleanup(server.Close)
	s := op.Server{Issuer: server.URL, ClientID: "app", ClientSecret: "fake-client-secret-canary"}
	as = fakeas.New(fakeas.Options{URL: server.URL, Clients: []fakeas.Client{{
		ID: s.ClientID, Secret: s.ClientSecret, RedirectURIs: []string{site + "/oauth2/callback"}, PostLogoutRedirectURIs: []string{site + "/oauth2/logout/callback"},
	}}})
	t.Cleanup(as.Close) // before the server, whose requests it may hold
	return as, &s
}

func writeForm(w http.ResponseWriter, values url.Values) {
	fmt.Fprint(w, "<!doctype html><title>login</title><form>")
	for name := range values {
		fmt.Fprintf(w, `<input type="hidden" name="%s" value="%s">`, html.EscapeString(name), html.EscapeString(values.Get(name)))
	}
	fmt.Fprint(w, "<button>Sign in</button></form>")
}

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const (
	// appLife is the lifetime of access tokens in front of the apps.
	appLife = 10 * time.Second
	// shortIdle ends a session during a test.
	shortIdle = "idle_timeout 20s"
)

// needApps skips the test unless APPS is set: it installs some hundred megabytes.
func needApps(t *testing.T) {
	t.Helper()
	if os.Getenv("APPS") == "" {
		t.Skip("APPS is not set")
	}
}

// A desk is a browser at an app behind Caddy, with the example configuration of that app.
type desk struct {
	t       *testing.T
	site    string
	as      *fakeas.Server
	server  *op.Server
	app     string // address
	example string // text of the Caddyfile with the test's addresses
	caddy   *caddyserver.Server
	browser *browser.Browser
	page    *browser.Page
	traffic *browser.Traffic
}

// newDesk starts Caddy and a browser. The app at the address does not know the host name of the site. example is the
// configuration in examples/, in which upstream is the app's address.
func newDesk(t *testing.T, example, upstream, app string) *desk {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "examples", example+".Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, site: fmt.Sprintf("http://%s.localhost:%d", example, proc.FreePort(t)), app: app}
	d.server = &op.Server{ClientID: "YOUR_CLIENT_ID", ClientSecret: "apps-client-secret"}
	d.as = fakeas.Start(t, fakeas.Options{Clients: []fakeas.Client{{
		ID: d.server.ClientID, Secret: d.server.ClientSecret,
		RedirectURIs: []string{d.site + "/oauth2/callback"}, PostLogoutRedirectURIs: []string{d.site + "/oauth2/logout/callback"},
	}}})
	setAccessTokenLifetime(d.as, appLife)
	d.server.Issuer = d.as.URL
	d.example = string(content)
	for old, new := range map[string]string{
		"\napp.example.com {": "\n" + d.site + " {\nbind 127.0.0.1\nlog", "https://login.example.com": d.as.URL, upstream: app,
		"you@example.com": "alice@example.test", "offline_access\n": "offline_access\nrefresh_timeout 50s\n",
	} {
		d.example = strings.ReplaceAll(d.example, old, new)
	}
	d.caddy = caddyserver.Start(t, d.config(d.example))
	d.browser, d.page = browser.Start(t)
	d.traffic = d.page.Watch(t)
	d.page.AcceptDialogs()
	return d
}

// plain returns a configuration of the site without the lines for the app.
func (d *desk) plain() string {
	return block(d.site, protect(d.server, "")+"reverse_proxy "+d.app)
}

// with returns the example with another option of oauth_session.
func (d *desk) with(option string) string {
	name, _, _ := strings.Cut(option, " ")
	return strings.Replace(d.without(name), "oauth_session {\n", "oauth_session {\n"+option+"\n", 1)
}

// without returns the example without the lines of an option.
func (d *desk) without(name string) string {
	var kept strings.Builder
	for line := range strings.Lines(d.example) {
		if !strings.HasPrefix(strings.TrimSpace(line), name+" ") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func (d *desk) config(sites string) caddyserver.Config {
	return caddyserver.Config{Env: append(secret(d.server), "JUPYTER_TOKEN="+jupyterToken), Sites: sites}
}

// scene runs a part of the test.
func (d *desk) scene(name string, f func(t *testing.T)) {
	whole := d.t
	defer func() { d.t = whole }()
	if !d.t.Run(name, func(t *testing.T) {
		d.t = t
		f(t)
	}) {
		whole.FailNow()
	}
}

// open opens a page of the app, with a login if there is no session.
func (d *desk) open(path string) {
	d.t.Helper()
	if doc := d.page.Open(d.t, d.site+path); doc.Status != http.StatusOK || !strings.HasPrefix(doc.URL, d.site+path) {
		d.t.Fatalf("got %+v, want the app's page", doc)
	}
}

// reload loads the page again.
func (d *desk) reload() {
	d.t.Helper()
	if doc := d.page.Reload(d.t); doc.Status != http.StatusOK || !strings.HasPrefix(doc.URL, d.site) {
		d.t.Fatalf("got %+v, want the app's page", doc)
	}
}

// reloadCaddy runs `caddy reload`.
func (d *desk) reloadCaddy(sites string) {
	d.t.Helper()
	if err := d.caddy.Reload(d.t, d.config(sites)); err != nil {
		d.t.Fatal(err)
	}
}

// holds waits until the expression is true in the page.
func (d *desk) holds(expression string) {
	d.t.Helper()
	eventually(d.t, expression, func() bool { return browser.Eval[bool](d.t, d.page, "!!("+expression+")") })
}

// shows waits until the page shows the text.
func (d *desk) shows(text string) {
	d.t.Helper()
	eventually(d.t, "text "+text, func() bool { return strings.Contains(d.page.Text(d.t), text) })
	d.t.Logf("the user sees: %s", text)
}

// hides waits until the page no longer shows the text.
func (d *desk) hides(text string) {
	d.t.Helper()
	eventually(d.t, "end of the text "+text, func() bool { return !strings.Contains(d.page.Text(d.t), text) })
}

// refreshes returns the number of refreshes at the authorization server.
func (d *desk) refreshes() int { return d.as.Stats().Granted["refresh_token"] }

// awaitRefreshes waits until n more access tokens have been replaced. act runs again and again.
func (d *desk) awaitRefreshes(n int, act func()) {
	d.t.Helper()
	before := d.refreshes()
	eventually(d.t, fmt.Sprintf("%d refreshes", n), func() bool {
		act()
		return d.refreshes() >= before+n
	})
}

// awaitClosed waits until no WebSocket with the path is open.
func (d *desk) awaitClosed(path string) {
	d.t.Helper()
	eventually(d.t, "end of the WebSocket "+path, func() bool { return d.traffic.Open(path) == 0 })
}

// awaitOpen waits until a WebSocket with the path is open.
func (d *desk) awaitOpen(path string) {
	d.t.Helper()
	eventually(d.t, "WebSocket "+path, func() bool { return d.traffic.Open(path) > 0 })
}

// wantNo401 fails the test if a request or handshake got status 401 since the last call.
func (d *desk) wantUnauthorized(want bool) {
	d.t.Helper()
	if n := d.traffic.Answers("", http.StatusUnauthorized); (n > 0) != want {
		d.t.Errorf("got %d answers with status 401, want some: %t", n, want)
	}
}

// logOut presses the module's button in another tab, and returns to the app's.
func (d *desk) logOut() {
	d.t.Helper()
	tab := d.browser.NewPage(d.t)
	tab.Open(d.t, d.site+"/oauth2/logout")
	tab.SubmitForm(d.t, "", "")
	if text := tab.Text(d.t); !strings.Contains(text, "Signed out") {
		d.t.Errorf("the other tab: got %q, want the end of the logout", text)
	}
	d.page.Front(d.t)
}

// logIn opens the site in another tab, which logs in, and returns to the app's.
func (d *desk) logIn() {
	d.t.Helper()
	tab := d.browser.NewPage(d.t)
	if doc := tab.Open(d.t, d.site+"/"); doc.Status != http.StatusOK || !strings.HasPrefix(doc.URL, d.site) {
		d.t.Fatalf("the other tab: got %+v, want the app's page", doc)
	}
	d.page.Front(d.t)
}

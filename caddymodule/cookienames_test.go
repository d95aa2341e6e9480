package caddymodule

import (
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// twoSites are two of one host, told apart by path and cookie. The app of the
// second is the echo server at {$OTHER}.
func (w *world) twoSites() (other *echo.Server) {
	w.t.Helper()
	other = echo.Start(w.t, echo.Options{})
	w.t.Setenv("OTHER", other.Addr())
	w.as.AddClient(fakeas.Client{ID: "app", Secret: testSecret, RedirectURIs: []string{w.origin + "/a/oauth2/callback", w.origin + "/b/oauth2/callback"}})
	block := func(name, app string) string {
		return "handle /" + name + "/* {\noauth_session {\n" + loginOptions + "\npath_prefix /" + name + "/oauth2\ncookie {\nname __Host-" + name + "\n}\n}\nuri strip_prefix /" + name + "\nreverse_proxy " + app + "\n}\n"
	}
	w.load("http://localhost:{$PORT} {\n" + block("a", "{$APP}") + block("b", "{$OTHER}") + "}\n")
	return other
}

// Sites on one host that differ in the name of their cookie keep it from each
// other's apps.
func TestNeighboursCookie(t *testing.T) {
	w := newWorld(t)
	other := w.twoSites()
	b := newBrowser(t, w.origin)
	b.login("/a/")
	b.login("/b/")
	b.login("/a/")
	if b.cookies["__Host-a"] == "" || b.cookies["__Host-b"] == "" {
		t.Fatalf("the browser has %d cookies, want a session of each site", len(b.cookies))
	}
	for _, r := range append(w.app.Requests(), other.Requests()...) {
		if got := r.Values("Cookie"); got != nil {
			t.Errorf("%s: the app got the cookies %.30q", r.Line, got)
		}
	}
}

// Nor can an app set the cookie of its neighbour.
func TestNeighbourSetsCookie(t *testing.T) {
	w := newWorld(t)
	w.twoSites()
	b := newBrowser(t, w.origin)
	b.login("/b/")
	lines := b.fetch("/b/u/setcookie?name=__Host-a&name=plain").header.Values("Set-Cookie")
	if slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, "__Host-a=") }) {
		t.Errorf("the app of b sets %q", lines)
	}
	if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, "plain=") }) {
		t.Errorf("the app's own cookie is not among %q", lines)
	}
}

// A name counts from when a configuration has it to when none has, reloads
// that overlap or fail included.
func TestCookieNamesInUse(t *testing.T) {
	w := newWorld(t)
	want := func(when string, names ...string) {
		t.Helper()
		if got := cookieNames.all(); !slices.Equal(got, names) {
			t.Errorf("%s: %q are in use, want %q", when, got, names)
		}
	}
	named := func(name string) string { return site("cookie {\nname "+name+"\n}", "") }
	want("at first")
	w.load(site("", ""))
	want("by default", "__Host-oauth_session")
	w.load(named("__Host-a"))
	for range 3 {
		w.load(strings.Replace(named("__Host-a"), "scope openid", "scope openid email", 1))
		w.load(named("__Host-a"))
	}
	want("after reloads", "__Host-a")
	for _, bad := range []string{
		named("wrong"),
		named("__Host-b") + "http://b.localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id b\ntrusted_ca /nonexistent/ca.pem\n}\n}\n",
	} {
		if err := w.tryLoad(bad); err == nil {
			t.Fatal("a wrong configuration was loaded")
		}
		want("after one that failed", "__Host-a")
	}
	if err := w.validate(named("__Host-c")); err != nil {
		t.Fatal(err)
	}
	want("after caddy validate", "__Host-a")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	want("at the end")
}

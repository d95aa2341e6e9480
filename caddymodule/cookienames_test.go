package caddymodule

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// loadTwoSites are two of one host, told apart by path and cookie. The app of the
// second is the echo server at {$OTHER}.
func (w *world) loadTwoSites() (other *echo.Server) {
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
func TestAppReceivesNoCookieOfOtherSite(t *testing.T) {
	w := newWorld(t)
	other := w.loadTwoSites()
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
func TestAppCannotSetCookieOfOtherSite(t *testing.T) {
	w := newWorld(t)
	w.loadTwoSites()
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
func TestCookieNameIsReservedWhileConfigured(t *testing.T) {
	w := newWorld(t)
	want := func(when string, names ...string) {
		t.Helper()
		if got := slices.Sorted(slices.Values(cookieNames.current().all)); !slices.Equal(got, names) {
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

// A name is ours where a browser sends the cookie. On every other host an app may
// use it for a cookie of its own.
func TestCookieNameIsReservedOnlyOnHostsThatReceiveIt(t *testing.T) {
	const named = "cookie {\nname __Host-session\n}"
	const ofDomain = "cookie {\nname __Secure-session\ndomain one.localhost\n}"
	for _, tc := range []struct {
		name    string
		a, b    string // addresses without port
		options string // of a
		bLines  string // of b
		cookie  string
		forward string // X-Forwarded-Host
		own     bool   // the name is b's own
	}{
		{name: "another host", a: "a.localhost", b: "b.localhost", options: named, cookie: "__Host-session", own: true},
		{name: "a host below", a: "a.localhost", b: "x.a.localhost", options: named, cookie: "__Host-session", own: true},
		{name: "the same host by a wildcard", a: "*.localhost", b: "b.localhost", options: named, cookie: "__Host-session"},
		{name: "beside a wildcard", a: "*.a.localhost", b: "b.localhost", options: named, cookie: "__Host-session", own: true},
		{name: "a catch-all", a: "", b: "b.localhost", options: named, cookie: "__Host-session"},
		{name: "one of several names", a: "a.localhost, http://b.localhost", b: "b.localhost", options: named, cookie: "__Host-session"},
		{name: "another case", a: "B.LOCALHOST", b: "b.localhost", options: named, cookie: "__Host-session"},
		{name: "another host by base_url", a: "a.localhost", b: "b.localhost", options: named + "\nbase_url http://b.localhost:{$PORT}", cookie: "__Host-session"},
		{name: "its base_url", a: "a.localhost", b: "b.localhost", options: named, bLines: "base_url http://a.localhost:{$PORT}", cookie: "__Host-session"},
		{name: "a name only the proxy before us knows", a: "a.localhost", b: "b.localhost", options: named, cookie: "__Host-session", forward: "public.localhost"},
		{name: "the same name as the proxy says it", a: "a.localhost", b: "b.localhost", options: named, cookie: "__Host-session", forward: "b.localhost", own: true},
		{name: "within the cookie's domain", a: "a.one.localhost", b: "b.one.localhost", options: ofDomain, cookie: "__Secure-session"},
		{name: "the cookie's domain itself", a: "a.one.localhost", b: "one.localhost", options: ofDomain, cookie: "__Secure-session"},
		{name: "outside of the cookie's domain", a: "a.one.localhost", b: "b.two.localhost", options: ofDomain, cookie: "__Secure-session", own: true},
		{name: "a name that ends in the domain's", a: "a.one.localhost", b: "b.none.localhost", options: ofDomain, cookie: "__Secure-session", own: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			block := func(host, port, options string) string {
				return strings.ReplaceAll("http://"+host, ",", ":"+port+",") + ":" + port + " {\noauth_session {\n" + loginOptions + "\noptional\n" + options + "\n}\nreverse_proxy {$APP}\n}\n"
			}
			// A second port, so that the same host may stand here twice: cookies
			// do not know ports.
			w.load("{\nservers {\ntrusted_proxies static 127.0.0.1/32\n}\n}\n" + block(tc.a, freePort(t), tc.options) + block(tc.b, "{$PORT}", tc.bLines))
			b := newBrowser(t, "http://"+tc.b+":"+w.port)
			header := http.Header{"Cookie": {tc.cookie + "=app; x=1"}}
			if tc.forward != "" {
				header.Set("X-Forwarded-Host", tc.forward)
			}
			got := b.send(http.MethodGet, "/u/setcookie?name="+tc.cookie, header)
			kept := slices.ContainsFunc(got.header.Values("Set-Cookie"), func(line string) bool { return strings.HasPrefix(line, tc.cookie+"=") })
			if kept != tc.own {
				t.Errorf("the app's cookie came through is %v, want %v (status %d)", kept, tc.own, got.status)
			}
			requests := w.app.Requests()
			if len(requests) != 1 {
				t.Fatalf("%d requests reached the app, status %d: %s", len(requests), got.status, got.body)
			}
			sent := strings.Join(requests[0].Values("Cookie"), "; ")
			if strings.Contains(sent, tc.cookie) != tc.own {
				t.Errorf("the app got the cookies %q, its own is %v", sent, tc.own)
			}
		})
	}
}

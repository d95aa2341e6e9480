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

// loadTwoSites runs two sites on one host, with different paths and cookies. The app of
// the second is the echo server at {$OTHER}.
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

func TestAppReceivesNoCookieOfOtherSite(t *testing.T) {
	w := newWorld(t)
	other := w.loadTwoSites()
	b := newBrowser(t, w.origin)
	b.login("/a/")
	b.login("/b/")
	b.login("/a/")
	if b.cookies["__Host-a"] == "" || b.cookies["__Host-b"] == "" {
		t.Fatalf("got %d cookies in the browser, want a session cookie of each site", len(b.cookies))
	}
	for _, r := range append(w.app.Requests(), other.Requests()...) {
		if got := r.Values("Cookie"); got != nil {
			t.Errorf("%s: got cookies %.30q at the app, want none", r.Line, got)
		}
	}
}

func TestAppCannotSetCookieOfOtherSite(t *testing.T) {
	w := newWorld(t)
	w.loadTwoSites()
	b := newBrowser(t, w.origin)
	b.login("/b/")
	lines := b.fetch("/b/u/setcookie?name=__Host-a&name=plain").header.Values("Set-Cookie")
	if slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, "__Host-a=") }) {
		t.Errorf("got Set-Cookie %q from the app of b, want no __Host-a", lines)
	}
	if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, "plain=") }) {
		t.Errorf("got Set-Cookie %q, want the app's own cookie", lines)
	}
}

// A cookie name is reserved from the start of the first configuration with it to the end
// of the last, also with overlapping and failing reloads.
func TestCookieNameIsReservedWhileConfigured(t *testing.T) {
	w := newWorld(t)
	want := func(when string, names ...string) {
		t.Helper()
		if got := slices.Sorted(slices.Values(cookieNames.current().all)); !slices.Equal(got, names) {
			t.Errorf("%s: got reserved names %q, want %q", when, got, names)
		}
	}
	named := func(name string) string { return site("cookie {\nname "+name+"\n}", "") }
	want("before the start")
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
			t.Fatal("got no error for an invalid configuration")
		}
		want("after a failed reload", "__Host-a")
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

// A cookie name is reserved on the hosts to which a browser sends the cookie. On other
// hosts an app may use the name for its own cookie.
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
		own     bool   // the app of b may use the name
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
		{name: "a host that only the proxy in front knows", a: "a.localhost", b: "b.localhost", options: named, cookie: "__Host-session", forward: "public.localhost"},
		{name: "the same host in X-Forwarded-Host", a: "a.localhost", b: "b.localhost", options: named, cookie: "__Host-session", forward: "b.localhost", own: true},
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
			// With a second port the same host may occur twice. Cookies ignore ports.
			w.load("{\nservers {\ntrusted_proxies static 127.0.0.1/32\n}\n}\n" + block(tc.a, freePort(t), tc.options) + block(tc.b, "{$PORT}", tc.bLines))
			b := newBrowser(t, "http://"+tc.b+":"+w.port)
			header := http.Header{"Cookie": {tc.cookie + "=app; x=1"}}
			if tc.forward != "" {
				header.Set("X-Forwarded-Host", tc.forward)
			}
			got := b.send(http.MethodGet, "/u/setcookie?name="+tc.cookie, header)
			kept := slices.ContainsFunc(got.header.Values("Set-Cookie"), func(line string) bool { return strings.HasPrefix(line, tc.cookie+"=") })
			if kept != tc.own {
				t.Errorf("got Set-Cookie of the app relayed %v, want %v (status %d)", kept, tc.own, got.status)
			}
			requests := w.app.Requests()
			if len(requests) != 1 {
				t.Fatalf("got %d requests at the app, want 1 (status %d): %s", len(requests), got.status, got.body)
			}
			sent := strings.Join(requests[0].Values("Cookie"), "; ")
			if strings.Contains(sent, tc.cookie) != tc.own {
				t.Errorf("got cookies %q at the app, want %s among them: %v", sent, tc.cookie, tc.own)
			}
		})
	}
}

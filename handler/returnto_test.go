package handler

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// hostileTargets has values of return_to that must not lead to another site.
var hostileTargets = []string{
	"/#?%", "//evil.test", "///evil.test", `/\evil.test`, `\\evil.test`, `\/evil.test`, "https://evil.test/", "HTTPS://evil.test", "https:evil.test",
	"https:/evil.test", "javascript:alert(1)", "data:text/html,x", "//app.test@evil.test", "https://app.test.evil.test/",
	"https://app.test@evil.test/", "https://app.test:8443/", "https://evil-app.test/", "https://app.test\\@evil.test", "http://app.test/",
	"/\t/evil.test", "/\r\n/evil.test", "\t//evil.test", " //evil.test", "/%09/evil.test", "/\x00/evil.test", "./", "x", "@evil.test", ".evil.test",
	"https://app.test.", "https://app.test//evil.test", `https://app.test/\evil.test`, "https://app.test\t//evil.test", "?x", "#x",
	"/x\r\nSet-Cookie: a=1", "/x\nLocation: https://evil.test", "/{env.HOME}", "/{http.request.host}", "/\xff\xfe", "/é", "/;//evil.test", "/..//evil.test", "/.//evil.test",
	"/" + strings.Repeat("a", 100<<10), "", "/oauth2/login", "/oauth2/logout", "/oauth2", "/%6Fauth2/login", "https://app.test/oauth2/callback?code=x",
}

// TestHostileReturnToStaysOnTheSite through a whole login. The browser fails the
// test if it is sent to another site.
func TestHostileReturnToStaysOnTheSite(t *testing.T) {
	g := newRig(t, plainOAuth)
	for _, target := range hostileTargets {
		b := g.browser()
		a := b.open("/oauth2/login?return_to=" + url.QueryEscape(target))
		if a.status != http.StatusOK || a.relayed != 1 || !onlyEndsTheCount(a) || a.header.Get("X") != "" {
			t.Errorf("%.60q: ended at %.80s with status %d, want 200", target, a.uri, a.status)
		}
	}
}

func TestHostileReturnToStaysOnTheSiteAfterAFailedLogin(t *testing.T) {
	g := newRig(t, plainOAuth)
	g.as.Fail(fakeas.OAuthError("access_denied").At(fakeas.EndpointAuthorize).Repeat(-1))
	for _, target := range []string{"//evil.test", `/\evil.test`, "https://evil.test/", `/"><script>alert(1)</script>`} {
		a := g.browser().open("/oauth2/login?return_to=" + url.QueryEscape(target))
		if a.status != 403 || strings.Contains(a.body, "evil.test") || strings.Contains(a.body, "<script") {
			t.Errorf("%q: got status %d, want 403: %s", target, a.status, a.body)
		}
	}
}

// TestHostilePathsStayOnTheSite: they belong to the app, and the login leads back
// to them.
func TestHostilePathsStayOnTheSite(t *testing.T) {
	g := newRig(t, plainOAuth)
	for _, target := range []string{"//evil.test/x", "///evil.test", `/\evil.test`, "//evil.test@x", "/%5cevil.test", "/%2f/evil.test", "/.//evil.test", "//"} {
		b := g.browser()
		at := b.start(target)
		a := b.send(g.request(http.MethodGet, b.approve(at), navigation...), true)
		if got := resolve(t.Fatalf, appOrigin+"/oauth2/callback", a.location()); !strings.HasPrefix(got, appOrigin+"/") {
			t.Errorf("%q: got Location %q, want the site", target, a.location())
		}
	}
}

func TestReturnToAcceptsPathsOfTheSite(t *testing.T) {
	g := newRig(t)
	for target, want := range map[string]string{
		"/":                      "/",
		"/a/b?c=d&e=f":           "/a/b?c=d&e=f",
		"/a?u=https://evil.test": "/a?u=https://evil.test",
		"/a%2Fb/%E2%82%AC":       "/a%2Fb/%E2%82%AC",
		"/a#fragment":            "/a",
		"/a b":                   "/a%20b",
		`/a"b`:                   "/a%22b",
		"/a?b=\"<>\\\n":          "/", // control characters are no URL to Go
		"/a?b=\"<>\\":            "/a?b=%22%3C%3E%5C",
		"/oauth2":                "/",
		"/oauth2x":               "/oauth2x",
		appOrigin:                "/",
		appOrigin + "/x?y":       "/x?y",
		appOrigin + "?y":         "/?y",
		appOrigin + ":443/x":     "/x",
		"HTTPS://APP.test/X":     "/X",
		"https://App.Test:443":   "/",
		appOrigin + ":444/x":     "/",
		appOrigin + ":443//x":    "/",
		"HTTPS://u@APP.test/x":   "/",
		"x" + appOrigin + "/x":   "/",
		"/oauth2/login":          "/",
		"/x/../oauth2/login":     "/",
		"/%2e/oauth2/logout":     "/",
		"/x/%2e%2e/oauth2":       "/",
	} {
		if got := g.handler.returnToPath(target, appOrigin); got != want {
			t.Errorf("%q becomes %q, want %q", target, got, want)
		}
	}
}

// TestValidURIsAreKept byte for byte if RFC 3986 allows their characters.
func TestValidURIsAreKept(t *testing.T) {
	const pchar = "abcXYZ019-._~!$&'()*+,;=:@"
	rapid.Check(t, func(t *rapid.T) {
		escaped := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("%%%02X", rapid.Byte().Draw(t, "byte")) })
		piece := func(chars string) *rapid.Generator[string] {
			return rapid.OneOf(rapid.StringOfN(rapid.RuneFrom([]rune(chars)), 0, 12, -1), escaped)
		}
		uri := "/" + strings.Join(rapid.SliceOfN(piece(pchar+"/"), 0, 20).Draw(t, "path"), "")
		if query := strings.Join(rapid.SliceOfN(piece(pchar+"/?"), 0, 20).Draw(t, "query"), ""); query != "" {
			uri += "?" + query
		}
		r, err := readRequest("GET", uri)
		if err != nil {
			t.Skip("not a request to Go")
		}
		if got := returnPath(r.URL); got != uri {
			t.Fatalf("%q: got %q, want the same", uri, got)
		}
	})
}

// TestURLsOfBrowsersAreKept: browsers also leave other characters unescaped (URL
// Standard, path and query percent-encode sets), and send an empty query.
func TestURLsOfBrowsersAreKept(t *testing.T) {
	for _, uri := range []string{"/a?", "/a|b", "/a[b]", "/a%2Fb|c", "/a%2Fb^c", "/a?b=|^`{}[]", "/wiki/A%2FB|C?x"} {
		r, err := readRequest("GET", uri)
		if err != nil {
			t.Fatal(err)
		}
		if got := returnPath(r.URL); got != uri {
			t.Errorf("%q: got %q, want the same", uri, got)
		}
	}
}

// FuzzReturnPath: the Location after a login leads to this site, for Go and for a
// browser.
func FuzzReturnPath(f *testing.F) {
	for _, target := range hostileTargets {
		f.Add(target)
	}
	g := newRig(f, plainOAuth)
	f.Fuzz(func(t *testing.T, target string) {
		paths := map[string]string{"return_to": g.handler.returnToPath(target, appOrigin)}
		if r, err := readRequest("GET", target); err == nil {
			paths["request"] = returnPath(r.URL)
		}
		for how, path := range paths {
			if len(path) > maxReturnPath {
				t.Errorf("%s: got %d bytes, want at most maxReturnPath", how, len(path))
			}
			for i := range len(path) {
				if path[i] <= ' ' || path[i] >= 0x7f || strings.IndexByte("\"<>\\", path[i]) >= 0 {
					t.Fatalf("%s: got in %q the byte %q, want plain ASCII", how, path, path[i])
				}
			}
			location := appOrigin + path
			if got := resolve(t.Fatalf, appOrigin, location); !strings.HasPrefix(got, appOrigin+"/") {
				t.Errorf("%s: got %q in a browser, want the site", how, got)
			}
			u, err := url.Parse(location)
			if err != nil || u.Scheme != "https" || u.Host != "app.test" || u.User != nil {
				t.Errorf("%s: got %q, %v in Go, want the site", how, u, err)
			}
		}
		// As return_to, the path must be safe even without the origin.
		if path := paths["return_to"]; len(path) > 1 && (path[1] == '/' || path[1] == '\\') {
			t.Errorf("return_to %q: got path %q, want no endpoint", target, path)
		}
	})
}

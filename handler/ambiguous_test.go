package handler

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// misread are paths that some server behind us takes for /admin.
var misread = []string{
	"/static/../admin", "/static/%2e%2e/admin", "/static/.%2E/admin", "/static/..%2fadmin", "/static/%2e%2e%2fadmin", "/static%2f..%2fadmin", "/static//../admin",
	"/static/%252e%252e/admin", "/static/%252e%252e%252fadmin", "/static/..%252fadmin", "/static/%25252e%25252e/admin", "/static/%2525252525252e",
	"/static/..;/admin", "/static/..;x=1/admin", "/static/..%3b/admin", "/static/%2e%2e%3bx/admin", `/static/..\admin`, "/static/..%5cadmin", "/static/x%5c..%5c..%5cadmin", "/static/..%255cadmin",
	"/static/..%00/admin", "/static/..%20/admin", "/static/..%09/admin", "/static/x/../../admin", "/static/..", "/static/..%23", "/static/..%3fx", "/static/%25/%252e%252e/admin",
	"/static/.%09./admin", "/static/.%0a./admin", "/static/.%250d./admin",
}

// plain are paths that everybody reads alike.
var plain = []string{
	"/static/x", "/static/x.y", "/static/..x", "/static/x..", "/static/x..y/z", "/static/...", "/static/.../x", "/static/.x", "/static/./x", "/static//x", "/static/",
	"/static/a%2fb", "/static/a%5cb", "/static/100%25", "/static/100%25.png", "/static/%25zz", "/static/x;y=..", "/static/caf%C3%A9", "/static/a%20b", "/static/a....b/x", "/static/%2525",
}

// TestOpenByItsPath: who leads a public path out of its place has to log in.
func TestOpenByItsPath(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) {
		s.handler.Optional = func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/static/") }
	})
	cookie := g.session("")
	for _, target := range misread {
		if a := g.get(target, script...); a.passed != 0 || a.status != 401 {
			t.Errorf("%s: status %d, the app was asked %d times", target, a.status, a.passed)
		}
		if a := g.get(target, navigation...); a.passed != 0 || a.status != 302 {
			t.Errorf("%s in a window: status %d, the app was asked %d times", target, a.status, a.passed)
		}
		if a := g.get(target, with(cookie, script)...); a.passed != 1 {
			t.Errorf("%s with a session: status %d", target, a.status)
		}
	}
	for _, target := range plain {
		if a := g.get(target, script...); a.passed != 1 {
			t.Errorf("%s: status %d", target, a.status)
		}
	}
}

// TestPathInAHeader: apps that take one for the path get none from nobody.
func TestPathInAHeader(t *testing.T) {
	for how, option := range map[string]func(*setup){
		"optional": optional,
		"beside":   func(s *setup) { s.handler.Protects = func(*http.Request) bool { return false } },
	} {
		g := newRig(t, plainOAuth, option)
		for _, name := range []string{"X-Original-Url", "X-Rewrite-Url"} {
			if a := g.get("/static/x", append([]string{name + ": /admin"}, script...)...); a.passed != 1 || g.app.last()[name] != nil {
				t.Errorf("%s, %s: the app was asked %d times, with %q", how, name, a.passed, g.app.last()[name])
			}
		}
	}
}

// FuzzHiddenDots: decoding twice and resolving never leads an open path out of
// its place.
func FuzzHiddenDots(f *testing.F) {
	for _, target := range append(misread, plain...) {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" || !strings.HasPrefix(u.Path, "/static/") || isAmbiguous("GET", u) {
			return
		}
		path := u.Path
		for range 3 {
			for _, reading := range []string{path, strings.ReplaceAll(path, `\`, "/")} {
				if resolved := (&url.URL{Path: "/"}).ResolveReference(&url.URL{Path: reading}).Path; !strings.HasPrefix(resolved, "/static/") {
					t.Fatalf("%q is read as %q", target, resolved)
				}
			}
			decoded, err := url.PathUnescape(path)
			if err != nil {
				return
			}
			path = decoded
		}
	})
}

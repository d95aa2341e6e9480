package handler

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// ambiguous has targets that some server reads differently than a matcher.
var ambiguous = []string{
	// Dots, plain and encoded, also before characters that a server drops.
	"/static/../admin", "/static/%2e%2e/admin", "/static/.%2E/admin", "/static/..%2fadmin", "/static/%2e%2e%2fadmin", "/static%2f..%2fadmin", "/static//../admin",
	"/static/..%00/admin", "/static/..%20/admin", "/static/..%09/admin", "/static/x/../../admin", "/static/..", "/static/..%23", "/static/..%3fx",
	"/static/.%09./admin", "/static/.%0a./admin", "/static/./x", "/static/%2e/x", "/static/...", "/static/.../x",
	// Characters that are encoded twice.
	"/static/%252e%252e/admin", "/static/%252e%252e%252fadmin", "/static/..%252fadmin", "/static/%25252e%25252e/admin", "/static/%2525252525252e", "/static/%25/%252e%252e/admin",
	"/static/.%250d./admin", "/%2561dmin", "/static/%2525", "/static/a%2520b", "/static/gr%25C3%25BC", "/static/%25u002e", "/static/%25U002Fx", "/static/%25%32%66",
	// Parameters of segments.
	"/static/..;/admin", "/static/..;x=1/admin", "/static/..%3b/admin", "/static/%2e%2e%3bx/admin", "/static;/x", "/static/x;y=..", "/;/static/x", "/static/x;v=1", "/static/x;", "/static/x%3B", "/static/x%253B",
	// Back slashes, encoded slashes, empty segments.
	`/static/..\admin`, `/static\x`, "/static/..%5cadmin", "/static/x%5c..%5c..%5cadmin", "/static/..%255cadmin", "/static/a%5cb", "/static/a%2fb", "/static/a%2Fb", "/static/a%252fb",
	"//static/admin", "//static//admin", "/static//admin", "/static/x//", "///static/x",
	// Characters that need no encoding: some apps compare them encoded.
	"/st%61tic/x", "/static/x%2ey", "/static/x%2Dy", "/static/x%5Fy", "/static/%31",
	// Control characters, and characters that end a path or a name.
	"/static/x%00.css", "/static/x%0a", "/static/x%0d%0ay", "/static/x%1f", "/static/x%7f", "/static/x%3f.css", "/static/x%23.css", "/static/x%C2%85", "/static/x%C2%9F",
	"/static/x.", "/static/x..", "/static/x%20", "/static/x%20/y", "/static/x./y", "/static/%20x", "/static/x%20.", "/static/x::$DATA", "/static:$i30:$INDEX_ALLOCATION/x", "/static/PRIVAT~1/x", "/static/WEB~1.CON",
	// Scripts that read the rest of the path as the path.
	"/index.php/admin", "/static/index.php/admin", "/INDEX.PHP/admin", "/index.php/", "/index.cgi/admin", "/index.cfm/admin", "/static/%69ndex.php/admin",
	// Bytes that are not UTF-8.
	"/static/%c0%ae%c0%ae/admin", "/static/..%c0%afadmin", "/static/%e0%80%af", "/static/%ff", "/static/gr%fc", "/static/%ed%a0%80",
	// Characters that some servers map to ASCII, drop or trim.
	"/static/%ef%bc%8e%ef%bc%8e/admin", "/static/..%ef%bc%8fadmin", "/static/..%ef%bc%bcadmin", "/static/..%e2%88%95admin", "/static/..%e2%81%84admin", "/static/%e2%80%a5/admin", "/static/%e2%80%a6",
	"/%ef%bd%93tatic/x", "/%f0%9d%90%acatic/x", "/static/x%cd%be", "/static/%e2%84%aa", "/static/%c5%bf", "/static/x%c2%a0", "/static/x%e3%80%80", "/static/x%e2%80%a8",
	"/sta%c2%adtic/x", "/sta%e2%80%8btic/x", "/sta%e2%80%8ctic/x", "/static/x%e2%80%8d", "/%ef%bb%bfstatic/x", "/static/%e2%80%aex",
	"/sta%ef%b8%8ftic/x", "/static%ef%b8%8f/x", "/sta%cd%8ftic/x", "/sta%e3%85%a4tic/x", "/sta%e1%85%9ftic/x", "/sta%f3%a0%84%80tic/x", "/sta%e1%a0%8btic/x",
	"/static/u%cc%88ber", "/static/%d0%b8%cc%86", "/static/%e2%84%ab", "/static/%ef%a4%80", // letters with a second spelling
	// Full-width forms of characters with a meaning to servers, and letters that
	// combine with them.
	"/static/x%ef%bc%9f", "/static/x%ef%bc%9bv=1", "/static/x%ef%bc%9a$DATA", "/static/x:%ef%bc%84DATA", "/static/x%ef%bc%9a%ef%bc%84DATA", "/static/x%ef%bc%88%ef%bc%91%ef%bc%89", "/static/x%ef%bd%9e1", "/static/%e2%91%b4",
	"/static/%e0%a7%9cu%cc%88", "/static/%e0%a7%9c%ef%bc%8fx", "/static/%d7%a9%ef%ac%aa",
}

// ordinary has targets that all servers read alike.
var ordinary = []string{
	"/static/", "/static/x", "/static/x/", "/static/x.y", "/static/file.tar.gz", "/static/v1.0/x", "/static/..x", "/static/x..y/z", "/static/a...b/x", "/static/.x", "/static/.well-known/x", "/static/a-b_c~d",
	"/static/100%25", "/static/100%25.png", "/static/100%25/x", "/static/50%25off", "/static/%25zz", "/static/x%25", "/static/%25u", "/static/%25u12",
	"/static/a%20b", "/static/a%20(1).pdf", "/static/a+b", "/static/a%2Bb", "/static/@x/y", "/static/%40x", "/static/index.php", "/static/index.php?/admin", "/static/index/x", "/static/index_php/x", "/static/myindex.php/x", "/static/x.php/y", "/static/index-1.2/x", "/static/a:b", "/static/x:batchGet", "/static/a%3Ab", "/static/a,b", "/static/a%2Cb", "/static/a=b&c",
	"/static/a%3Db%26c", "/static/a$b", "/static/$metadata", "/static/a!b'c(d)*e", "/static/%21%27%28%29%2A", "/static/~user", "/static/%7Euser", "/static/a~b", "/static/backup~2024-01", "/static/%22%3C%3E%5B%5D%5E%60%7B%7C%7D",
	"/static/caf%C3%A9", "/static/gr%C3%B6%C3%9Fe", "/static/%E6%97%A5%E6%9C%AC%E8%AA%9E", "/static/%D0%9F%D1%80", "/static/%D9%85%DB%8C%E2%80%8C%D8%B4%D9%88%D8%AF", "/static/%E0%B8%99%E0%B9%89%E0%B8%B3",
	"/static/%F0%9F%91%A9%E2%80%8D%F0%9F%92%BB", "/static/%E2%9D%A4%EF%B8%8F", "/static/I%E2%9D%A4%EF%B8%8FNY", "/static/%E8%91%9B%F3%A0%84%80", "/static/%E2%82%AC", "/static/%E2%80%93", "/static/k%C4%B1rm%C4%B1z%C4%B1", "/static/caf\u00e9",
	"/static/%F0%9F%91%A9%E2%80%8D%F0%9F%92%BB", "/static/%E2%82%AC", "/static/%E2%80%93", "/static/%E4%BD%A0%E5%A5%BD%EF%BC%8C%E4%B8%96%E7%95%8C%EF%BC%81", "/static/%E5%A4%A7%E5%AD%A6%EF%BC%88%E4%B8%AD%E5%9B%BD%EF%BC%89", "/static/Re%EF%BC%9A%E5%BE%9E%E9%9B%B6",
	"/static/%E0%A4%AC%E0%A5%9C%E0%A4%BE", "/static/%E0%A4%AC%E0%A4%A1%E0%A4%BC%E0%A4%BE", "/static/%E0%A6%AC%E0%A6%BE%E0%A7%9C%E0%A6%BF", "/static/%E0%A6%A8%E0%A7%9F/%E0%A6%B9%E0%A7%9F", "/static/%E0%A8%96%E0%A8%BC/%E0%A9%9E", "/static/%E0%AC%93%E0%AD%9C%E0%AC%BF%E0%AC%86", "/static/k%C4%B1rm%C4%B1z%C4%B1", "/static/caf\u00e9",
	"/static/x?a=%2f..%2f;%00//", "/static/x?", "/static/x?a=/../admin", "http://app.test/static/x",
}

// TestAmbiguousPathNeedsASession: also where the matcher names open paths, and
// where it names protected ones.
func TestAmbiguousPathNeedsASession(t *testing.T) {
	static := func(r *http.Request) bool { return strings.HasPrefix(path.Clean(r.URL.Path)+"/", "/static/") }
	for how, option := range map[string]func(*setup){
		"optional": func(s *setup) { s.handler.Optional = static },
		"not matched": func(s *setup) {
			s.handler.Protects = func(r *http.Request) bool { return !static(r) }
		},
		"nothing matched": func(s *setup) {
			s.handler.Protects = func(r *http.Request) bool { return false }
		},
	} {
		t.Run(how, func(t *testing.T) {
			g := newRig(t, plainOAuth, option)
			cookie := g.session("")
			for _, target := range ambiguous {
				if a := g.get(target, script...); a.relayed != 0 || a.status != 401 {
					t.Errorf("%s: got status %d, want 401, %d calls of the app", target, a.status, a.relayed)
				}
				if a := g.get(target, navigation...); a.relayed != 0 || a.status != 302 {
					t.Errorf("%s in a window: got status %d, want 302, %d calls of the app", target, a.status, a.relayed)
				}
				if a := g.get(target, with(cookie, script)...); a.relayed != 1 || g.app.last()["Authorization"] == nil {
					t.Errorf("%s with a session: got status %d and no token, want a token", target, a.status)
				}
			}
			for _, target := range ordinary {
				if a := g.get(target, script...); a.relayed != 1 {
					t.Errorf("%s: got status %d, want the app's answer", target, a.status)
				}
			}
		})
	}
}

// TestTargetWithoutAPathNeedsASession: an app gets another path than the matchers.
func TestTargetWithoutAPathNeedsASession(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) { s.handler.Protects = func(*http.Request) bool { return false } })
	for _, target := range []string{"http:admin", "x:admin/y", "http://app.test", "http://app.test?x", "*"} {
		if a := g.get(target, script...); a.relayed != 0 || a.status != 401 {
			t.Errorf("%s: got status %d, want 401, %d calls of the app", target, a.status, a.relayed)
		}
	}
	rewritten := g.request("GET", "http:admin", script...)
	rewritten.URL.Path = "/static/x" // which a rewrite sets, and which the app does not get
	if a := g.do(rewritten); a.relayed != 0 {
		t.Errorf("rewritten: got status %d, %d calls of the app, want 0", a.status, a.relayed)
	}
	if a := g.do(g.request("CONNECT", "other.test:443")); a.relayed != 1 {
		t.Errorf("CONNECT: got status %d, want the app's answer", a.status)
	}
}

// TestPathBeforeARewriteIsCheckedToo: some apps get the path before a rewrite.
func TestPathBeforeARewriteIsCheckedToo(t *testing.T) {
	for sent, want := range map[string]struct{ rewritten, status string }{
		"/a;b": {"/index.html", "401"}, "/a": {"/x/;/y", "401"}, "/b": {"/index.html", "200"},
		"/index.php/c": {"/c", "401"}, "/c": {"/index.php/c", "200"},
	} {
		g := newRig(t, plainOAuth, func(s *setup) {
			s.handler.Protects = func(*http.Request) bool { return false }
			original, _ := readRequest("GET", sent)
			s.handler.OriginalURL = func(*http.Request) *url.URL { return original.URL }
		})
		if a := g.get(want.rewritten, script...); (a.status == 200) != (want.status == "200") {
			t.Errorf("%s as %s: status %d", sent, want.rewritten, a.status)
		}
	}
}

// TestMatcherWithoutPathDecidesAmbiguousPaths: an ambiguous path needs no session
// if no path does, and is optional if all paths are.
func TestMatcherWithoutPathDecidesAmbiguousPaths(t *testing.T) {
	inside := func(r *http.Request) bool { return r.Header.Get("X-Inside") != "" }
	for how, option := range map[string]func(*setup){
		"protects": func(s *setup) {
			s.handler.Protects = func(*http.Request) bool { return false }
			s.handler.MayProtect = func(r *http.Request) bool { return !inside(r) }
		},
		"optional": func(s *setup) {
			s.handler.Optional, s.handler.AlwaysOptional = func(*http.Request) bool { return true }, inside
		},
	} {
		g := newRig(t, plainOAuth, option)
		if a := g.get("/a;b", script...); a.relayed != 0 || a.status != 401 {
			t.Errorf("%s: got status %d, want 401", how, a.status)
		}
		if a := g.get("/a;b", append([]string{"X-Inside: 1"}, script...)...); a.relayed != 1 {
			t.Errorf("%s, inside: got status %d, want the app's answer", how, a.status)
		}
	}
}

// TestAmbiguousPathHasTheStrictestAgeLimit: an app may read it as a path with that
// limit.
func TestAmbiguousPathHasTheStrictestAgeLimit(t *testing.T) {
	limitedSite(t, func(t *testing.T, g *rig, cookie string) {
		for _, target := range []string{"/young;/x", "/;/young/now", "/x/..%5cyoung/now", "/old;x"} {
			before := g.as.refreshes()
			time.Sleep(time.Millisecond)
			if a := g.get(target, with(cookie, script)...); a.relayed != 1 || g.as.refreshes() != before+1 {
				t.Errorf("%s: got status %d and %d refreshes, want 200 and 1", target, a.status, g.as.refreshes()-before)
			}
			synctest.Wait()
		}
		for _, target := range []string{"/;/young/now", "/x/..%5cyoung/now"} {
			if a := g.get(target, with(cookie, append(script, "Early-Data: 1"))...); a.status != http.StatusTooEarly {
				t.Errorf("%s in early data: got status %d, want 425", target, a.status)
			}
		}
		before := g.as.refreshes()
		if a := g.get("/old", with(cookie, script)...); a.relayed != 1 || g.as.refreshes() != before {
			t.Errorf("an ordinary path: got status %d and %d refreshes, want 200 and 0", a.status, g.as.refreshes()-before)
		}
	})
}

// TestAmbiguousPathNeedsBothHandlers: both must accept the user. Neither begins a
// login that would lead back to the same situation.
func TestAmbiguousPathNeedsBothHandlers(t *testing.T) {
	admin := func(s *setup) {
		protecting("/admin/")(s)
		s.handler.Require = []Requirement{{Claim: "role", Values: []string{"admin"}}}
	}
	rest := func(s *setup) { s.handler.Protects = func(r *http.Request) bool { return !below("/admin/")(r) } }
	for name, tt := range map[string]struct {
		outer, inner  func(*setup)
		claims, other string
		status        int
	}{
		"admin before the rest, a user":        {admin, rest, `{"role":"user"}`, "", 403},
		"admin before the rest, an admin":      {admin, rest, `{"role":"admin"}`, "", 200},
		"the rest before admin, a user":        {rest, admin, `{"role":"user"}`, "", 403},
		"the rest before admin, an admin":      {rest, admin, `{"role":"admin"}`, "", 200},
		"the rest before admin, another login": {rest, admin, `{"role":"admin"}`, "other", 403},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, plainOAuth, tt.outer)
			inner := g.secondSite(plainOAuth, tt.inner)
			if tt.other != "" {
				inner = newRigAt(t, g.as, plainOAuth, tt.inner, func(s *setup) {
					ring, err := seal.NewKeyRing(seal.NewKey())
					if err != nil {
						t.Fatal(err)
					}
					s.session.Site = seal.NewSite(ring, g.as.URL, "app", tt.other)
				})
			}
			header := with(g.session(tt.claims), navigation)
			asked := 0
			w := httptest.NewRecorder()
			err := g.handler.ServeHTTP(w, g.request("GET", "/shop;color=red", header...), NextFunc(func(w http.ResponseWriter, r *http.Request) error {
				return inner.handler.ServeHTTP(w, r, NextFunc(func(_ http.ResponseWriter, r *http.Request) error {
					asked++
					if r.Header["Authorization"] == nil {
						t.Error("got no token at the app, want one")
					}
					return nil
				}))
			}))
			if err != nil || w.Code != tt.status || asked != map[int]int{200: 1}[tt.status] {
				t.Errorf("status %d, want %d, %d calls of the app: %v", w.Code, tt.status, asked, err)
			}
		})
	}
}

// TestAmbiguousPathGetsTheOptionsOfBothHandlers: the app gets the token header of
// the second Handler, without the client's value, and a token as young as its
// limit.
func TestAmbiguousPathGetsTheOptionsOfBothHandlers(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth, protecting("/admin/"))
		rest := g.secondSite(plainOAuth, func(s *setup) {
			s.handler.Protects = func(r *http.Request) bool { return !below("/admin/")(r) }
			s.handler.HeaderName = "X-Token"
			s.handler.RefreshIfOlder = []AgeLimit{{Match: below("/pay/"), Age: 0}}
		})
		b := g.browser()
		b.mustReach("/admin/")
		cookie := b.jar.get(sessionCookie).Value
		for i, header := range [][]string{nil, {"X-Token: FORGED"}, {"x_token: FORGED", "Authorization: Bearer FORGED"}} {
			time.Sleep(2 * time.Second)
			resp := chain{g, rest}.serve(t, "/pay;/x", append(with(cookie, script), header...)...)
			got := rest.app.last()
			if want := g.as.newest(fakeas.KindAccess); resp.StatusCode != 200 || got.Get("X-Token") != "Bearer "+want {
				t.Errorf("with %q: got status %d, want 200, the app got X-Token %.20q", header, resp.StatusCode, got["X-Token"])
			}
			if underscored := "x_token"; got[underscored] != nil || got["Authorization"] != nil {
				t.Errorf("with %q: the app got %v, want neither X-Token of the client nor Authorization", header, got)
			}
			if n := g.as.refreshes(); n != i+1 {
				t.Errorf("with %q: %d refreshes, want %d", header, n, i+1)
			}
		}
		if resp := (chain{g, rest}).serve(t, "/pay;/x", append(with(cookie, script), "Early-Data: 1")...); resp.StatusCode != http.StatusTooEarly {
			t.Errorf("in early data: got status %d, want 425", resp.StatusCode)
		}
	})
}

// TestPathHeadersReachNoAppWithoutASession: some apps read such a header as the
// path.
func TestPathHeadersReachNoAppWithoutASession(t *testing.T) {
	for how, option := range map[string]func(*setup){
		"optional": optional,
		"beside":   func(s *setup) { s.handler.Protects = func(*http.Request) bool { return false } },
	} {
		g := newRig(t, plainOAuth, option)
		for _, name := range []string{"X-Original-Url", "X-Rewrite-Url", "X_Original_Url", "X-Rewrite_Url", "x.original.url"} {
			if a := g.get("/static/x", append([]string{name + ": /admin"}, script...)...); a.relayed != 1 || g.app.last()[name] != nil {
				t.Errorf("%s, %s: got %d calls of the app with %q, want 1 without the header", how, name, a.relayed, g.app.last()[name])
			}
		}
	}
}

func TestPlainPathIsCheckedWithoutAllocations(t *testing.T) {
	h := &Handler{Config: Config{OriginalURL: func(r *http.Request) *url.URL { return r.URL }}}
	for _, target := range []string{"/", "/static/js/app.4f3c2b1a.js", "/api/v1.0/users/42/some-name_x", "/static/a%20b"} {
		r, err := readRequest("GET", target)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { _ = h.hasAmbiguousPath(r) }); n != 0 || h.hasAmbiguousPath(r) {
			t.Errorf("%s: got %v allocations, want 0", target, n)
		}
	}
}

// BenchmarkAmbiguousPath measures the check of a path, which every request pays.
func BenchmarkAmbiguousPath(b *testing.B) {
	for _, target := range []string{"/api/v1.0/users/42/some-name_x", "/static/caf%C3%A9/gr%C3%B6%C3%9Fe"} {
		r, err := readRequest("GET", target)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(target, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = isAmbiguous("GET", r.URL)
			}
		})
	}
}

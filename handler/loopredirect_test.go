package handler

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// mostRedirects is the greatest number of redirects in a row.
const mostRedirects = 10

// redirectTo makes the app answer some paths with a redirect.
func (g *rig) redirectTo(targets map[string]string) {
	g.app.answer = func(w http.ResponseWriter, r *http.Request) error {
		target, ok := targets[r.URL.Path]
		if !ok {
			_, err := io.WriteString(w, "the app at "+r.RequestURI)
			return err
		}
		w.Header().Set("Location", target)
		w.WriteHeader(http.StatusFound)
		return nil
	}
}

// wantLoopEnded fails the test unless a walk has ended at the loop page after few
// redirects, with one log line that contains the cause.
func (b *browser) wantLoopEnded(t *testing.T, a *answer, cause string) {
	t.Helper()
	wantLoginLink(t, a, 500, "login_loop")
	if n := len(b.hops) - 1; n > mostRedirects {
		t.Errorf("got %d redirects in a row, want at most %d: %q", n, mostRedirects, b.hops)
	}
	if lines := b.log.lines("login_loop"); len(lines) != 1 || !strings.Contains(lines[0], cause) {
		t.Errorf("got log lines %q, want one with %q", lines, cause)
	}
}

// TestLoopThroughTheAppIsStopped: the app answers each request with a redirect to the
// login, as if the token were not good enough.
func TestLoopThroughTheAppIsStopped(t *testing.T) {
	const login = "/oauth2/login?return_to=/wanted"
	open := func(s *setup) { s.handler.Protects = func(r *http.Request) bool { return r.URL.Path != "/wanted" } }
	strict := func(s *setup) { s.handler.Cookie = Cookie{SameSite: "strict"} }
	for _, tt := range []struct {
		name    string
		options []func(*setup)
		targets map[string]string
		cause   string
	}{
		{"path", nil, map[string]string{"/wanted": login}, "audience"},
		{"URL", nil, map[string]string{"/wanted": appOrigin + login}, "audience"},
		{"URL without scheme", nil, map[string]string{"/wanted": "//app.test" + login}, "audience"},
		{"another prompt", nil, map[string]string{"/wanted": login + "&prompt=login"}, "audience"},
		{"over another page", nil, map[string]string{"/wanted": "/signin", "/signin": login}, "audience"},
		{"strict cookie", []func(*setup){strict}, map[string]string{"/wanted": login}, "audience"},
		{"plain OAuth", []func(*setup){plainOAuth}, map[string]string{"/wanted": login}, "audience"},
		{"optional", []func(*setup){optional}, map[string]string{"/wanted": login}, "audience"},
		{"page outside of the matcher", []func(*setup){open}, map[string]string{"/wanted": login}, "outside of the matcher"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, tt.options...)
			g.redirectTo(tt.targets)
			b := g.browser()
			b.wantLoopEnded(t, b.open("/wanted"), tt.cause)
			if n := g.as.codesRedeemed(); n != loopLimit-1 {
				t.Errorf("got %d completed logins, want %d", n, loopLimit-1)
			}
			// The page's link works once the cause is removed.
			g.app.answer = nil
			b.wantAppAt(b.open(login), "/wanted")
		})
	}
}

// TestLoopBesideOtherTabsIsStopped: pages and scripts of other tabs get answers in
// the meantime.
func TestLoopBesideOtherTabsIsStopped(t *testing.T) {
	g := newRig(t)
	b := g.loggedIn()
	g.redirectTo(map[string]string{"/wanted": "/signin", "/signin": "/oauth2/login?return_to=/wanted"})
	a := b.walk(b.origin()+"/wanted", "none", func(next string) bool {
		if strings.HasSuffix(next, "/oauth2/login?return_to=/wanted") {
			b.fetch("GET", "/api")
			b.fetch("GET", "/oauth2/session")
		}
		return false
	})
	wantLoginLink(t, a, 500, "login_loop")
}

// TestLoopWithoutAnyCookieAtThePageIsStopped: the page is optional, and the browser
// drops the session cookie.
func TestLoopWithoutAnyCookieAtThePageIsStopped(t *testing.T) {
	g := newRig(t, optional)
	g.redirectTo(map[string]string{"/wanted": "/oauth2/login?return_to=/wanted"})
	b := g.browser()
	b.jar.refuse = func(name string) bool { return name == sessionCookie }
	b.wantLoopEnded(t, b.open("/wanted"), "drops the session cookie")
}

// TestLoopThroughErrorPagesIsStopped: the surrounding server answers errors with a
// redirect to the login.
func TestLoopThroughErrorPagesIsStopped(t *testing.T) {
	refused := func(s *setup) { s.handler.Require = []Requirement{{Claim: "sub", Values: []string{"somebody else"}}} }
	broken := func(http.ResponseWriter, *http.Request) error { return errStoreDown }
	for name, tt := range map[string]struct {
		option func(*setup)
		answer func(http.ResponseWriter, *http.Request) error
	}{
		"an error of the Handler": {refused, nil},
		"an error of the app":     {func(*setup) {}, broken},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, tt.option, func(s *setup) {
				s.handler.ErrorRedirect = func(*http.Request, error) string { return "/oauth2/login?return_to=/wanted" }
				s.handler.Fail = func(_ http.ResponseWriter, _ *http.Request, e *Error) error { return e }
			})
			g.app.answer = tt.answer
			b := g.browser()
			a := b.open("/wanted")
			redirects := len(b.hops) - 1
			for a.err != nil && redirects <= mostRedirects {
				a = b.open("/oauth2/login?return_to=/wanted") // as the error route says
				redirects += len(b.hops)
			}
			wantLoginLink(t, a, 500, "login_loop")
			if redirects > mostRedirects {
				t.Errorf("got %d redirects in a row, want at most %d", redirects, mostRedirects)
			}
		})
	}
}

// TestSecondLoginBehindAProxyEndsAtAPage: a second Handler runs in another process
// behind the first one, for the same host. It never gets its cookies, and its
// callbacks reach the first one.
func TestSecondLoginBehindAProxyEndsAtAPage(t *testing.T) {
	for name, sameLogin := range map[string]bool{"another login": false, "the same login": true} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			second := newRigAt(t, g.as, func(s *setup) {
				if sameLogin {
					s.session.Site = g.keeper.Site
				}
			})
			g.app.answer = func(w http.ResponseWriter, r *http.Request) error {
				behind := httptest.NewRecorder() // another process: the Handlers do not see each other
				err := second.handler.ServeHTTP(behind, r, NextFunc(second.app.serve))
				for name, values := range behind.Result().Header {
					w.Header()[name] = values
				}
				w.WriteHeader(behind.Code)
				_, _ = w.Write(behind.Body.Bytes())
				return err
			}
			b := g.browser()
			b.wantLoopEnded(t, b.open("/wanted"), "a second login behind oauth_session")
			if lines := g.log.lines("login_loop"); strings.Contains(strings.Join(lines, ""), "audience") {
				t.Errorf("got log lines %q, want none that blames the app", lines)
			}
			g.app.answer = nil
			b.mustReach("/wanted")
		})
	}
}

// TestSessionsThatEndAtOnceEndAtAPage: the access token has expired when the browser
// comes back, and there is no refresh token.
func TestSessionsThatEndAtOnceEndAtAPage(t *testing.T) {
	as := startAuthServer(t)
	as.Set(func(k *fakeas.Knobs) { k.RefreshTokens, k.AccessTokenLifetime = fakeas.RefreshNone, time.Second })
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth)
		b := g.browser()
		a := b.walk(b.origin()+"/wanted", "none", func(next string) bool {
			if next == b.origin()+"/wanted" {
				time.Sleep(2 * time.Second)
			}
			return false
		})
		b.wantLoopEnded(t, a, "expires at once")
	})
}

// TestOneMoreLoginIsNotALoop: an app may ask for one more login after the first, such
// as one with prompt=login before a sensitive page.
func TestOneMoreLoginIsNotALoop(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	for range 2 * loopLimit {
		logins := g.as.codesRedeemed()
		g.app.answer = func(w http.ResponseWriter, r *http.Request) error {
			if g.as.codesRedeemed() <= logins+1 {
				w.Header().Set("Location", "/oauth2/login?prompt=login&return_to=/sensitive")
				w.WriteHeader(http.StatusSeeOther)
				return nil
			}
			_, err := io.WriteString(w, "the app at "+r.RequestURI)
			return err
		}
		b.jar.cookies = nil
		b.mustReach("/sensitive")
	}
}

// TestRedirectsOfTheAppAreNotALoop: the user logs in many times within a minute, and
// the app answers each landing with a redirect.
func TestRedirectsOfTheAppAreNotALoop(t *testing.T) {
	g := newRig(t)
	g.redirectTo(map[string]string{"/": "/home", "/out": "https://elsewhere.test/"})
	toElsewhere := func(next string) bool { return strings.HasPrefix(next, "https://elsewhere.test") }
	for name, step := range map[string]func(b *browser){
		"another account": func(b *browser) {
			b.wantAppAt(b.open("/oauth2/login?prompt=select_account&return_to=/"), "/home")
		},
		"logout between": func(b *browser) {
			b.wantAppAt(b.open("/"), "/home")
			b.fetch("POST", "/oauth2/logout")
		},
		// The browser shows a page that this site does not see.
		"another host": func(b *browser) {
			if a := b.walk(b.origin()+"/oauth2/login?return_to=/out", "none", toElsewhere); a.status != http.StatusFound {
				t.Errorf("got status %d at %s, want the app's redirect", a.status, a.uri)
			}
		},
		// The user does not wait for the app.
		"slow page": func(b *browser) {
			b.walk(b.origin()+"/oauth2/login?return_to=/", "none", func(next string) bool { return strings.HasSuffix(next, "/home") })
		},
		"no answer": func(b *browser) {
			b.walk(b.origin()+"/oauth2/login?return_to=/page", "none", func(next string) bool { return strings.HasSuffix(next, "/page") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := g.browser()
			for range 2 * loopLimit {
				step(b)
			}
			if lines := g.log.lines("login_loop"); len(lines) > 0 {
				t.Errorf("got log lines %q, want none", lines)
			}
		})
	}
}

// TestRefusedAccountsAreNotALoop: the user tries several accounts, and none of them may
// use the page.
func TestRefusedAccountsAreNotALoop(t *testing.T) {
	g := newRig(t, func(s *setup) { s.handler.Require = []Requirement{{Claim: "sub", Values: []string{"somebody else"}}} })
	b := g.browser()
	for range 2 * loopLimit {
		if a := b.open("/oauth2/login?prompt=select_account&return_to=/wanted"); a.status != http.StatusForbidden {
			t.Errorf("got status %d at %s, want 403", a.status, a.uri)
		}
	}
}

// TestTenTabsAtOnceAreNotALoop: the app redirects the landings, and the browser
// follows no redirect before all tabs have landed.
func TestTenTabsAtOnceAreNotALoop(t *testing.T) {
	const n = 10
	for name, targets := range map[string]func(i int) string{
		"to its pages":    func(i int) string { return fmt.Sprintf("/tab/%d", i) },
		"to another host": func(int) string { return "https://elsewhere.test/" },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			all := map[string]string{}
			for i := range n {
				all[fmt.Sprintf("/page/%d", i)] = targets(i)
			}
			g.redirectTo(all)
			b := g.browser()
			_, at := startTabs(b, n)
			for i := range n {
				a := b.walk(b.origin()+b.approve(at[i]), "cross-site", func(next string) bool {
					return strings.HasPrefix(next, "https://elsewhere.test") || strings.Contains(next, "/tab/")
				})
				if a.status != http.StatusFound || a.location() != targets(i) {
					t.Errorf("tab %d: got status %d to %q at %s, want the app's redirect", i, a.status, a.location(), a.uri)
				}
			}
			b.mustReach("/tab/0")
		})
	}
}

// TestLoopCountOfAnotherSiteIsNotTouched: two logins on one host have one cookie for
// the count, and each reads its own value only.
func TestLoopCountOfAnotherSiteIsNotTouched(t *testing.T) {
	g := newRig(t, protecting("/private/"))
	g.redirectTo(map[string]string{"/": "/oauth2/login"})
	ring, err := seal.NewKeyRing(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := seal.NewSite(ring, "https://other.test", "b", "").SealForBrowser(loopCookieName, []byte(`{"c":2}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/page"} {
		if a := g.get(path, append(navigation, "Cookie: "+loopCookieName+"="+foreign)...); a.header["Set-Cookie"] != nil {
			t.Errorf("%s: got cookies %q, want none", path, a.header["Set-Cookie"])
		}
	}
}

// TestAppCannotSetTheLoopCount, and the count that the Handler sets passes an inner one.
func TestAppCannotSetTheLoopCount(t *testing.T) {
	first := newRig(t, plainOAuth, protecting("/admin/"))
	second := first.secondSite(plainOAuth, func(s *setup) {
		s.handler.Protects = func(r *http.Request) bool { return !below("/admin/")(r) }
	})
	second.app.answer = func(w http.ResponseWriter, _ *http.Request) error {
		w.Header()["Set-Cookie"] = []string{loopCookieName + "=forged; Path=/; Secure"}
		w.Header().Set("Location", "/oauth2/login")
		w.WriteHeader(http.StatusFound)
		return nil
	}
	b := first.browser()
	b.walk(b.origin()+"/admin/x", "none", func(next string) bool { return strings.HasSuffix(next, "/admin/x") })
	resp := chain{first, second}.serve(t, "/admin/x", append(navigation, "Cookie: "+b.jar.header(true)[0])...)
	lines := resp.Header["Set-Cookie"]
	if len(lines) != 1 || !strings.HasPrefix(lines[0], loopCookieName+"=") || strings.Contains(lines[0], "forged") || strings.Contains(lines[0], "Max-Age=0") {
		t.Errorf("got cookies %q, want the Handler's count alone", lines)
	}
	if warned := second.log.lines("the app tried to set"); len(warned) != 1 {
		t.Errorf("got log lines %q, want one about the app's cookie", warned)
	}
}

func TestTargetOfARedirect(t *testing.T) {
	g := newRig(t)
	r := g.request(http.MethodGet, "/a/page")
	for location, want := range map[string]redirectTarget{
		"":                                toPage,
		"/home":                           toSite,
		"/oauth2/login":                   toLogin,
		"../oauth2/login?x=1#y":           toLogin,
		"http://app.test/oauth2/login":    toLogin,
		"https://app.test./oauth2/login":  toLogin,
		"/oauth2/logout":                  toSite,
		"/oauth2/loginx":                  toSite,
		"https://app.test":                toSite,
		"https://other.test/oauth2/login": toOtherHost,
		"//other.test":                    toOtherHost,
		"https://%zz":                     toSite,
	} {
		if got := g.handler.targetOf(r, location); got != want {
			t.Errorf("%q: got target %q, want %q", location, got, want)
		}
	}
	if _, err := url.Parse("https://%zz"); err == nil {
		t.Error("got no error for an invalid URL, want one")
	}
}

// TestLoopPageOfTheCallbackKeepsTheCode out of the Referer header of the requests that its
// link and its button send, which access logs have.
func TestLoopPageOfTheCallbackKeepsTheCode(t *testing.T) {
	for _, target := range []redirectTarget{toLogin, toLoginFromError} {
		t.Run(string(target), func(t *testing.T) {
			g := newRig(t)
			b := g.browser()
			callback := b.approve(b.start("/wanted"))
			w := httptest.NewRecorder()
			g.handler.setLoopCount(w, loopCount{Landings: loopLimit - 1, Since: time.Now().Unix(), Redirected: target})
			b.jar = jar{} // the attempt is gone
			b.jar.set(w.Result().Header["Set-Cookie"])
			a := b.open(callback)
			wantLoginLink(t, a, 500, "login_loop")
			if got := a.header.Get("Referrer-Policy"); !strings.Contains(a.body, "<form") || got != "origin" && got != "no-referrer" {
				t.Errorf("got Referrer-Policy %q on a page with a button, want one without paths", got)
			}
		})
	}
}

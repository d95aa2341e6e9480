package handler

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// secondSite is another process with the same keys, on the same store.
func (g *rig) secondSite(options ...func(*setup)) *rig {
	g.t.Helper()
	return newRigAt(g.t, g.as, append(options, func(s *setup) {
		s.session.Vault, s.session.Site = keeper.NewVault(g.store), g.handler.Keeper.Site
	})...)
}

// replay sends a callback with cookies of an earlier time.
func (g *rig) replay(callback string, cookies []string) *answer {
	g.t.Helper()
	r := g.request(http.MethodGet, callback, navigation...)
	r.Header["Cookie"] = cookies
	return g.do(r)
}

// sessionSet is the value of the session's cookie that an answer sets.
func sessionSet(a *answer) string {
	value, _, _ := strings.Cut(strings.TrimPrefix(sessionCookieLine(a), sessionCookie+"="), ";")
	return value
}

// TestAttemptIsRedeemedOnce: the same callback arrives many times at once at two
// processes. The server revokes all tokens of a code that comes twice.
func TestAttemptIsRedeemedOnce(t *testing.T) {
	for name, options := range map[string][]func(*setup){
		"OpenID Connect": nil, "plain OAuth": {plainOAuth},
		"strict cookie": {func(s *setup) { s.handler.Cookie = Cookie{SameSite: "strict"} }},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, options...)
			sites := []*rig{g, g.secondSite(options...)}
			b := g.browser()
			callback := b.approve(b.start("/wanted"))
			cookies := b.jar.header(true)
			g.as.Fail(fakeas.Slow(200 * time.Millisecond).For(fakeas.GrantCode).Repeat(-1))
			answers := make([]*answer, 20)
			var all sync.WaitGroup
			for i := range answers {
				all.Go(func() { answers[i] = sites[i%2].replay(callback, cookies) })
			}
			all.Wait()
			secret := sessionSet(answers[0])
			for i, a := range answers {
				if landing := a.location() + a.body; sessionSet(a) != secret || secret == "" || !strings.Contains(landing, appOrigin+"/wanted") {
					t.Errorf("callback %d: got status %d to %.60q, session %q, want the page and the shared session", i, a.status, landing, sessionSet(a))
				}
			}
			if n := g.as.codesRedeemed(); n != 1 {
				t.Errorf("got %d sent codes, want 1", n)
			}
			for _, site := range sites {
				if a := site.get("/", with(secret, navigation)...); a.status != http.StatusOK {
					t.Errorf("the session: got status %d, want 200", a.status)
				}
			}
		})
	}
}

// TestRepeatedCallbackSharesTheResult with the cookies from before the login, as
// from another tab or a restarted browser.
func TestRepeatedCallbackSharesTheResult(t *testing.T) {
	g := newRig(t)
	other := g.secondSite()
	b := g.browser()
	callback := b.approve(b.start("/oauth2/login?return_to=/wanted"))
	cookies := b.jar.header(true)
	first := g.replay(callback, cookies)
	secret := sessionSet(first)
	for name, site := range map[string]*rig{"here": g, "elsewhere": other} {
		a := site.replay(callback, cookies)
		if a.status != http.StatusSeeOther || a.location() != appOrigin+"/wanted" || sessionSet(a) != secret {
			t.Errorf("%s: status %d to %q, session %q, want %q", name, a.status, a.location(), sessionSet(a), secret)
		}
		// An attacker who planted the cookie in this browser does not know the
		// code.
		a = site.replay(strings.Replace(callback, "code=", "code=x", 1), cookies)
		wantNewLogin(t, g, a)
		if sessionSet(a) != "" {
			t.Errorf("%s: got the session for another code, want none", name)
		}
		// A browser with the session keeps it.
		a = site.replay(callback, []string{cookies[0] + "; " + sessionCookie + "=" + secret})
		if a.status != http.StatusSeeOther || sessionSet(a) != secret {
			t.Errorf("%s, with the session: got status %d, want 303, session %q", name, a.status, sessionSet(a))
		}
		if a := site.get("/", with(secret, navigation)...); a.status != http.StatusOK {
			t.Errorf("%s: the session has ended: got status %d, want 200", name, a.status)
		}
	}
	// An ended result begins one more login, and no code is sent again.
	g.post("/oauth2/logout", with(secret, script)...)
	wantNewLogin(t, g, g.replay(callback, cookies))
	if stats := g.as.Stats(); stats.Grants[fakeas.GrantCode] != 1 {
		t.Errorf("got %d sent codes, want 1", stats.Grants[fakeas.GrantCode])
	}
}

// TestForgedCodesCostOneTokenRequest, together or one after the other, and leave no
// item in the store.
func TestForgedCodesCostOneTokenRequest(t *testing.T) {
	for name, fault := range map[string]*fakeas.Fault{
		"refused": nil, "server down": ptr(fakeas.Unavailable()), "misconfigured": ptr(fakeas.OAuthError("invalid_client")),
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			b := g.browser()
			callback, err := url.Parse(b.approve(b.start("/wanted")))
			if err != nil {
				t.Fatal(err)
			}
			cookies := b.jar.header(true)
			if fault != nil {
				g.as.Fail(fault.For(fakeas.GrantCode).Repeat(-1))
			}
			made := func(i int) *answer {
				q := url.Values{"code": {fmt.Sprint("made-up-", i)}, "state": {callback.Query().Get("state")}}
				return g.replay(callback.Path+"?"+q.Encode(), cookies)
			}
			var all sync.WaitGroup
			for i := range 150 {
				all.Go(func() { made(i) })
			}
			all.Wait()
			for i := range 150 {
				wantNewLogin(t, g, made(150+i))
			}
			if n := g.as.codesRedeemed(); n != 1 {
				t.Errorf("got %d token requests, want 1", n)
			}
			if n := g.store.items(); n != 0 {
				t.Errorf("got %d items in the store, want 0", n)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

// TestSpentCodeIsNotSentAgain by any process, if its answer was lost or was of no
// use.
func TestSpentCodeIsNotSentAgain(t *testing.T) {
	for name, damage := range map[string]func(*rig){
		"lost answer":  func(g *rig) { g.as.Fail(fakeas.LoseAnswer()) },
		"lost request": func(g *rig) { g.as.Fail(fakeas.LoseRequest()) },
		"nonsense":     func(g *rig) { g.as.Fail(fakeas.Answer(200, "text/html", "<p>Hello")) },
		"another's ID token": func(g *rig) {
			g.as.Set(func(k *fakeas.Knobs) { k.LoginIDToken.Claims.Set = map[string]any{"aud": "other"} })
		},
		"session not kept": func(g *rig) { g.store.setFault(false, isSession) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			other := g.secondSite()
			b := g.browser()
			callback := b.approve(b.start("/wanted"))
			cookies := b.jar.header(true)
			damage(g)
			first := g.replay(callback, cookies)
			if sessionSet(first) != "" {
				t.Fatalf("got status %d with a session, want a failure", first.status)
			}
			g.store.setFault(false, nil)
			for _, site := range []*rig{g, other} {
				wantNewLogin(t, g, site.replay(callback, cookies))
			}
			if n := g.as.codesRedeemed(); n != 1 {
				t.Errorf("got %d sent codes, want 1", n)
			}
		})
	}
}

// isSession reports whether an item is a session, and not the claim of a login.
func isSession(item session.Item) bool { return item.Version == 1 && len(item.Value) > 64 }

// TestAnswerAfterTheLoginDeletesTheLoopCookie: then the browser has the session
// cookie only.
func TestAnswerAfterTheLoginDeletesTheLoopCookie(t *testing.T) {
	for _, caching := range []string{"", "public, max-age=60", "no-store"} {
		t.Run(caching, func(t *testing.T) {
			g := newRig(t, plainOAuth)
			g.app.answer = func(w http.ResponseWriter, r *http.Request) error {
				w.Header()["Set-Cookie"] = []string{"app=1", loopCookieName + "=forged; Path=/; Secure"}
				if caching != "" {
					w.Header().Set("Cache-Control", caching)
				}
				w.WriteHeader(http.StatusOK)
				return nil
			}
			b := g.browser()
			landing := b.open("/wanted")
			if names := cookieNames(b); !slices.Equal(names, []string{sessionCookie, "app"}) {
				t.Errorf("after the login: got cookies %q, want the session and the app's", names)
			}
			// A cache must not give the deletion to other browsers.
			if got := landing.header["Cache-Control"]; !slices.Equal(got, []string{strings.TrimPrefix(caching+", private", ", ")}) {
				t.Errorf("got Cache-Control %q on the answer after the login, want the app's and private", got)
			}
			if !onlyEndsTheCount(landing) {
				t.Errorf("got cookies %q on the answer after the login, want the deletion only", landing.header["Set-Cookie"])
			}
			next := b.open("/next")
			want := cmp.Or(caching, "private") // as for every answer to a request with a session
			if got := next.header["Set-Cookie"]; !slices.Equal(got, []string{"app=1"}) || next.header.Get("Cache-Control") != want {
				t.Errorf("next answer: got cookies %q with Cache-Control %q, want the app's", got, next.header.Get("Cache-Control"))
			}
		})
	}
	// Its Cache-Control replaces that of the page in the browser's cache.
	for caching, want := range map[string]string{"": "no-cache, private", "max-age=60": "max-age=60, private"} {
		t.Run("304 with Cache-Control "+cmp.Or(caching, "missing"), func(t *testing.T) {
			g := newRig(t, plainOAuth)
			g.app.answer = func(w http.ResponseWriter, _ *http.Request) error {
				if caching != "" {
					w.Header().Set("Cache-Control", caching)
				}
				w.WriteHeader(http.StatusNotModified)
				return nil
			}
			landing := g.browser().open("/wanted")
			if got := landing.header["Cache-Control"]; !slices.Equal(got, []string{want}) || len(landing.header["Set-Cookie"]) != 1 {
				t.Errorf("got Cache-Control %q and %d cookies, want %s and the deletion", got, len(landing.header["Set-Cookie"]), want)
			}
		})
	}
	for path, method := range map[string]string{"/oauth2/session": http.MethodGet, "/oauth2/session/refresh": http.MethodPost} {
		t.Run(path, func(t *testing.T) {
			g := newRig(t)
			b := g.browser()
			b.walk(b.origin()+"/wanted", "none", func(next string) bool { return strings.HasSuffix(next, "/wanted") })
			b.fetch(method, path)
			if names := cookieNames(b); !slices.Equal(names, []string{sessionCookie}) {
				t.Errorf("got cookies %q, want no loop cookie", names)
			}
		})
	}
}

func TestFailedLoginDeletesItsCookie(t *testing.T) {
	for _, code := range []string{"access_denied", "invalid_scope", "login_required"} {
		t.Run(code, func(t *testing.T) {
			g := newRig(t)
			b := g.browser()
			callback := b.approve(b.start("/wanted"))
			before := cookieNames(b)
			a := b.send(g.request(http.MethodGet, strings.Replace(callback, "code=", "error="+code+"&x=", 1), navigation...), true)
			if names := cookieNames(b); slices.Contains(names, before[0]) {
				t.Errorf("got status %d and cookies %q, want the login cookie deleted", a.status, names)
			}
		})
	}
	t.Run("failed login", func(t *testing.T) {
		g := newRig(t)
		g.as.Fail(fakeas.OAuthError("invalid_client").For(fakeas.GrantCode))
		b := g.browser()
		b.open("/wanted")
		if names := cookieNames(b); len(names) != 0 {
			t.Errorf("got cookies %q, want the login cookie deleted", names)
		}
	})
}

func cookieNames(b *browser) (names []string) {
	for _, c := range b.jar.cookies {
		names = append(names, c.Name)
	}
	return names
}

// onlyEndsTheCount reports whether an answer of the app sets none of the module's
// cookies, apart from the deletion of the loop cookie.
func onlyEndsTheCount(a *answer) bool {
	return !slices.ContainsFunc(a.header["Set-Cookie"], func(line string) bool {
		return line != "app=1" && !strings.HasPrefix(line, loopCookieName+"=; Path=/; Max-Age=0; ")
	})
}

package handler

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// below matches paths with a prefix.
func below(prefix string) func(*http.Request) bool {
	return func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, prefix) }
}

// limited sets age limits for some paths.
func limited(s *setup) {
	s.handler.RefreshIfOlder = []AgeLimit{
		{Match: below("/young"), Age: time.Minute},
		{Match: below("/young/now"), Age: 0},
		{Match: below("/young"), Age: time.Hour},
	}
}

// limitedSite runs a test in a synctest bubble, at a site with age limits, with a
// session.
func limitedSite(t *testing.T, f func(t *testing.T, g *rig, cookie string), options ...func(*setup)) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, append([]func(*setup){plainOAuth, limited}, options...)...)
		f(t, g, g.loggedIn().jar.get(sessionCookie).Value)
	})
}

// wantNewest checks that the app was reached with the server's newest token.
func wantNewest(t *testing.T, g *rig, a *answer, refreshes int) {
	t.Helper()
	if a.status != 200 || a.relayed != 1 || a.header["Set-Cookie"] != nil {
		t.Errorf("%s: got status %d, want 200: %.200s", a.uri, a.status, a.body)
	}
	if g.app.last().Get("Authorization") != "Bearer "+g.as.newest(fakeas.KindAccess) {
		t.Errorf("%s: got another token, want the newest", a.uri)
	}
	if n := g.as.refreshes(); n != refreshes {
		t.Errorf("%s: %d refreshes, want %d", a.uri, n, refreshes)
	}
}

func TestOldTokenIsRefreshedOnlyAtItsLimit(t *testing.T) {
	limitedSite(t, func(t *testing.T, g *rig, cookie string) {
		get := func(path string) *answer { return g.get(path, with(cookie, script)...) }
		time.Sleep(time.Minute)
		wantNewest(t, g, get("/young"), 0) // a minute is not older than a minute
		time.Sleep(time.Millisecond)
		wantNewest(t, g, get("/old"), 0)
		wantNewest(t, g, get("/young"), 1)
		wantNewest(t, g, get("/young"), 1)
		time.Sleep(time.Minute + time.Millisecond)
		wantNewest(t, g, get("/young/page"), 2)
		wantNewest(t, g, get("/old"), 2)
	})
}

// TestAgeZeroGetsATokenObtainedAfterTheRequest: with age 0 each request has a token that was obtained
// after it came.
func TestAgeZeroGetsATokenObtainedAfterTheRequest(t *testing.T) {
	limitedSite(t, func(t *testing.T, g *rig, cookie string) {
		for i := range 5 {
			time.Sleep(2 * time.Second)
			wantNewest(t, g, g.get("/young/now", with(cookie, navigation)...), i+1)
		}
		// The keeper sends at most one refresh a second.
		began := time.Now()
		for i := range 5 {
			time.Sleep(time.Millisecond)
			wantNewest(t, g, g.get("/young/now", with(cookie, script)...), 6+i)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("5 refreshes took %v, want 1 s each", took)
		}
	})
}

// TestStrictestAgeLimitApplies in any order of the limits.
func TestStrictestAgeLimitApplies(t *testing.T) {
	h := &Handler{Config: Config{OriginalURL: func(r *http.Request) *url.URL { return r.URL }}}
	limit := func(path string, age time.Duration) AgeLimit { return AgeLimit{below(path), age} }
	for _, limits := range [][]AgeLimit{
		{limit("/", time.Hour), limit("/a", time.Minute), limit("/a/now", 0)},
		{limit("/a/now", 0), limit("/a", time.Minute), limit("/", time.Hour)},
		{limit("/a", time.Minute), limit("/a/now", 0), limit("/", time.Hour), limit("/a", 2*time.Minute)},
	} {
		h.RefreshIfOlder = limits
		for path, want := range map[string]time.Duration{"/a/now": 0, "/a": time.Minute, "/b": time.Hour} {
			r, err := readRequest("GET", path)
			if err != nil {
				t.Fatal(err)
			}
			if age, limited := h.ageLimit(r); !limited || age != want {
				t.Errorf("%s: %v, %v, want %v", path, age, limited, want)
			}
		}
	}
	h.RefreshIfOlder = []AgeLimit{limit("/a", 0)}
	if r, _ := readRequest("GET", "/b"); r != nil {
		if _, limited := h.ageLimit(r); limited {
			t.Error("got a limit for a path without one, want none")
		}
	}
}

// TestOldTokenIsUnavailableWhileTheServerIsDown: a request that needs a younger
// token gets 503. Other requests use the current token.
func TestOldTokenIsUnavailableWhileTheServerIsDown(t *testing.T) {
	limitedSite(t, func(t *testing.T, g *rig, cookie string) {
		g.as.Fail(fakeas.Unavailable().Repeat(-1))
		time.Sleep(61 * time.Second)
		for kind, header := range kinds {
			a := g.get("/young/now", with(cookie, header)...)
			if a.status != 503 || a.header.Get("Retry-After") == "" || a.relayed != 0 || a.location() != "" || a.header["Set-Cookie"] != nil {
				t.Errorf("%s: got status %d, want 503, %v", kind, a.status, a.header)
			}
			if a := g.get("/young", with(cookie, header)...); a.status != 503 || a.relayed != 0 {
				t.Errorf("%s: with a limit of a minute: got status %d, want 503", kind, a.status)
			}
			if a := g.get("/old", with(cookie, header)...); a.status != 200 || a.relayed != 1 {
				t.Errorf("%s: without a limit: got status %d, want 200", kind, a.status)
			}
		}
		if n := g.as.refreshes(); n != 1 {
			t.Errorf("%d refreshes during one pause, want 1", n)
		}
		g.as.ClearFaults()
		time.Sleep(2 * time.Second)
		wantNewest(t, g, g.get("/young/now", with(cookie, script)...), 2)
	})
}

// TestOldTokenWithoutRefreshTokenNeedsALogin: only a login gets a younger token.
// One login is enough, however long it takes.
func TestOldTokenWithoutRefreshTokenNeedsALogin(t *testing.T) {
	for path, age := range map[string]time.Duration{"/young/now": minReloginAge, "/young": time.Minute} {
		t.Run(path, func(t *testing.T) {
			as := startAuthServer(t)
			as.Set(func(k *fakeas.Knobs) { k.RefreshTokens = fakeas.RefreshNone })
			synctest.Test(t, func(t *testing.T) {
				g := newRigAt(t, as, plainOAuth, limited)
				b := g.loggedIn()
				time.Sleep(age)
				b.mustReach(path)
				if len(b.hops) != 1 {
					t.Errorf("at age %v: got hops %q, want no login", age, b.hops)
				}
				time.Sleep(time.Millisecond)
				if a := b.fetch("POST", path); a.status != 401 || a.relayed != 0 || a.header["Set-Cookie"] != nil {
					t.Errorf("a script: got status %d, want 401, cookies %q", a.status, a.header["Set-Cookie"])
				}
				if a := b.fetch("GET", "/old"); a.status != 200 {
					t.Errorf("other paths: got status %d, want 200", a.status)
				}
				first := b.jar.get(sessionCookie).Value
				for range 5 {
					time.Sleep(age + time.Second)
					b.mustReach(path)
					if len(b.hops) != 4 { // the path, the server, the callback, the path
						t.Errorf("got hops %q, want the page, the server, the callback and the page", b.hops)
					}
					b.mustReach(path)
					if len(b.hops) != 1 {
						t.Errorf("after the login: got hops %q, want one", b.hops)
					}
				}
				if b.jar.get(sessionCookie).Value == first {
					t.Error("got the former session after the login, want a new one")
				}
				if as.refreshes() != 0 {
					t.Errorf("got %d refreshes, want 0", as.refreshes())
				}
			})
		})
	}
}

// TestSlowLoginDoesNotLoop: the redirect from the server takes five seconds.
func TestSlowLoginDoesNotLoop(t *testing.T) {
	as := startAuthServer(t)
	as.Set(func(k *fakeas.Knobs) { k.RefreshTokens = fakeas.RefreshNone })
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth, limited)
		b := g.loggedIn()
		time.Sleep(time.Minute)
		callback := b.approve(b.start("/young/now"))
		a := b.walk(b.origin()+callback, "cross-site", func(string) bool { return true })
		time.Sleep(5 * time.Second)
		b.wantAppAt(b.walk(a.location(), "cross-site", nil), "/young/now")
	})
}

// TestConcurrentRequestsShareAYoungToken: each request gets a token that was
// obtained after its arrival, but the requests share refreshes.
func TestConcurrentRequestsShareAYoungToken(t *testing.T) {
	limitedSite(t, func(t *testing.T, g *rig, cookie string) {
		var mu sync.Mutex
		obtained := map[string]time.Time{g.as.newest(fakeas.KindAccess): time.Now()}
		time.Sleep(time.Minute)
		note := func(token string) time.Time { // refreshes take no time here
			mu.Lock()
			defer mu.Unlock()
			if _, ok := obtained[token]; !ok {
				obtained[token] = time.Now()
			}
			return obtained[token]
		}
		var all sync.WaitGroup
		const n = 200
		for i := range n {
			r := g.request("GET", "/young/now", with(cookie, script)...)
			all.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				came := time.Now()
				w := g.ask(r, func(_ http.ResponseWriter, r *http.Request) error {
					if at := note(bearer(r)); at.Before(came) {
						t.Errorf("a request at %v: got a token of %v, want a later one", came, at)
					}
					return nil
				})
				if w.Code != 200 {
					t.Errorf("got status %d, want 200", w.Code)
				}
			})
		}
		all.Wait()
		if refreshes := g.as.refreshes(); refreshes < 2 || refreshes > 4 {
			t.Errorf("%d refreshes for %d requests within two seconds, want one a second", refreshes, n)
		}
	})
}

func TestRefreshEndpointReturnsTheSessionAfterARefresh(t *testing.T) {
	limitedSite(t, func(t *testing.T, g *rig, cookie string) {
		refresh := func() *answer { return g.post("/oauth2/session/refresh", with(cookie, script)...) }
		for n, wait := range []time.Duration{5 * time.Second, 6 * time.Second, 10 * time.Second, time.Second} {
			time.Sleep(wait)
			a := refresh()
			if a.status != 200 || !strings.Contains(a.body, `"authenticated":true`) || a.relayed != 0 || a.header["Set-Cookie"] != nil {
				t.Fatalf("got status %d, want 200: %s", a.status, a.body)
			}
			if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
				t.Errorf("got header %v, want no-store and same-origin", a.header)
			}
			// A token of ten seconds is young enough; it stays.
			if want := []int{0, 1, 1, 2}[n]; g.as.refreshes() != want {
				t.Errorf("call %d: %d refreshes, want %d", n+1, g.as.refreshes(), want)
			}
		}
		wantNewest(t, g, g.get("/", with(cookie, script)...), 2)
		// It counts as use of the session, unlike the session endpoint.
		for range 20 {
			time.Sleep(time.Hour)
			if a := refresh(); a.status != 200 {
				t.Fatalf("got status %d, want 200: %s", a.status, a.body)
			}
		}
		time.Sleep(time.Minute)
		g.as.Fail(fakeas.Unavailable().Repeat(-1))
		a := refresh()
		if p := a.problem(t); a.status != 503 || p.Code != "temporarily_unavailable" || a.header.Get("Retry-After") == "" || a.header["Set-Cookie"] != nil {
			t.Errorf("with the server down: got status %d, want 503, %v", a.status, a.header)
		}
		if a := g.get("/", with(cookie, script)...); a.status != 200 {
			t.Errorf("with a valid token: got status %d, want 200", a.status)
		}
	})
}

// TestRefreshEndpointRefusesOtherRequests: requests of other sites, without a
// session, or with a session that cannot be refreshed.
func TestRefreshEndpointRefusesOtherRequests(t *testing.T) {
	g := newRig(t, plainOAuth)
	cookie := g.oldSession(time.Minute)
	g.as.Set(func(k *fakeas.Knobs) { k.RefreshTokens = fakeas.RefreshNone })
	frozen := g.oldSession(time.Minute) // has none
	for name, tt := range map[string]struct {
		method string
		header []string
		status int
		code   string
	}{
		"cross-site":            {"POST", with(cookie, []string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.test"}), 403, "cross_origin"},
		"same-site":             {"POST", with(cookie, []string{"Sec-Fetch-Site: same-site", "Origin: https://other.app.test"}), 403, "cross_origin"},
		"foreign Origin":        {"POST", with(cookie, []string{"Origin: https://evil.test"}), 403, "cross_origin"},
		"no refresh token":      {"POST", with(frozen, script), 409, "not_refreshable"},
		"no cookie":             {"POST", script, 401, "login_required"},
		"unknown cookie":        {"POST", with(strings.Repeat("A", 43), script), 401, "login_required"},
		"malformed cookie":      {"POST", with("x", script), 401, "login_required"},
		"GET":                   {"GET", with(cookie, script), 405, "method_not_allowed"},
		"HEAD":                  {"HEAD", with(cookie, script), 405, "method_not_allowed"},
		"PUT":                   {"PUT", with(cookie, script), 405, "method_not_allowed"},
		"cross-site, no cookie": {"POST", []string{"Sec-Fetch-Site: cross-site"}, 403, "cross_origin"},
	} {
		a := g.do(g.request(tt.method, "/oauth2/session/refresh", tt.header...))
		if p := a.problem(t); a.status != tt.status || p.Code != tt.code || a.relayed != 0 || a.header["Set-Cookie"] != nil {
			t.Errorf("%s: got status %d, want %d, %+v, cookies %q", name, a.status, tt.status, p, a.header["Set-Cookie"])
		}
		if a.status == 405 && a.header.Get("Allow") != "POST" {
			t.Errorf("%s: got Allow %q, want POST", name, a.header.Get("Allow"))
		}
	}
	if n := g.as.refreshes(); n != 0 {
		t.Errorf("got %d refreshes, want 0", n)
	}
	if a := g.get("/", with(frozen, script)...); a.status != 200 {
		t.Errorf("the session without refresh token is gone: got status %d, want 200", a.status)
	}
	g.store.down.Store(true)
	if a := g.post("/oauth2/session/refresh", with(cookie, script)...); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("with the store down: got status %d, want 503", a.status)
	}
}

// TestRefreshEndpointReportsAnEndedSession with 401 and no Retry-After.
func TestRefreshEndpointReportsAnEndedSession(t *testing.T) {
	g := newRig(t, plainOAuth)
	cookie := g.oldSession(time.Minute)
	g.as.Fail(fakeas.OAuthError("invalid_grant").For(fakeas.GrantRefresh))
	for range 2 {
		a := g.post("/oauth2/session/refresh", with(cookie, script)...)
		if p := a.problem(t); a.status != 401 || p.LoginURL != "/oauth2/login" {
			t.Errorf("got status %d, want 401, %+v", a.status, p)
		}
	}
	if n := g.as.refreshes(); n != 1 {
		t.Errorf("got %d refreshes, want 1", n)
	}
}

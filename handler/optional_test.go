package handler

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// optional lets every request pass without a session, whatever its path.
func optional(s *setup) {
	all := func(*http.Request) bool { return true }
	s.handler.Optional, s.handler.AlwaysOptional = all, all
}

func TestOptionalPathPassesWithoutASession(t *testing.T) {
	g := newRig(t, plainOAuth, optional)
	for _, tt := range clientRequests {
		header := append(strings.Split(tt.header, "|"), "Authorization: Bearer EVIL")
		for name, cookie := range map[string]string{"no cookie": "", "unknown": sessionCookie + "=" + seal.NewSecret().Cookie(), "broken": sessionCookie + "=x"} {
			h := header
			if cookie != "" {
				h = append(slices.Clone(header), "Cookie: "+cookie)
			}
			a := g.get("/", h...)
			if a.status != 200 || a.relayed != 1 || g.app.last()["Authorization"] != nil || g.app.last()["Cookie"] != nil {
				t.Errorf("%s, %s: got status %d, want 200, the app got %v", tt.name, name, a.status, g.app.last())
			}
		}
		h := append(slices.Clone(header), "Cookie: "+sessionCookie+"="+g.session(""))
		if a := g.get("/", h...); a.status != 200 || g.app.last().Get("Authorization") != "Bearer AT_made_by_hand" {
			t.Errorf("%s: with a session: got Authorization %q, want the token", tt.name, g.app.last()["Authorization"])
		}
	}
}

// TestOptionalPathIsUnavailableWhileTheStoreIsDown: a request with a session must
// not become anonymous because the store fails.
func TestOptionalPathIsUnavailableWhileTheStoreIsDown(t *testing.T) {
	g := newRig(t, plainOAuth, optional)
	cookie := "Cookie: " + sessionCookie + "=" + g.session("")
	g.store.down.Store(true)
	for _, header := range [][]string{navigation, script} {
		a := g.get("/", append(slices.Clone(header), cookie)...)
		if a.status != 503 || a.relayed != 0 || a.header.Get("Retry-After") == "" || a.header["Set-Cookie"] != nil || a.location() != "" {
			t.Errorf("got status %d, want 503, cookies %q", a.status, a.header["Set-Cookie"])
		}
		if a := g.get("/", header...); a.status != 200 {
			t.Errorf("without a cookie: got status %d, want 200", a.status)
		}
	}
	g.store.down.Store(false)
	if a := g.get("/", append(slices.Clone(script), cookie)...); a.status != 200 || g.app.last()["Authorization"] == nil {
		t.Errorf("afterwards: got status %d, want 200", a.status)
	}
}

// TestSeveralSessionCookiesAreUnavailableWhileTheStoreIsDown: the store decides
// which one has a session.
func TestSeveralSessionCookiesAreUnavailableWhileTheStoreIsDown(t *testing.T) {
	for name, option := range map[string]func(*setup){"optional": optional, "required": func(*setup) {}} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, plainOAuth, option)
			cookies := "Cookie: " + sessionCookie + "=" + seal.NewSecret().Cookie() + "; " + sessionCookie + "=" + g.session("")
			g.store.down.Store(true)
			for _, path := range []string{"/", "/oauth2/session"} {
				for _, header := range [][]string{navigation, script} {
					a := g.get(path, append(slices.Clone(header), cookies)...)
					if a.status != 503 || a.relayed != 0 || a.header["Set-Cookie"] != nil {
						t.Errorf("%s: got status %d, want 503, location %q, cookies %q", path, a.status, a.location(), a.header["Set-Cookie"])
					}
				}
			}
			g.store.down.Store(false)
			if a := g.get("/", append(slices.Clone(script), cookies)...); a.status != 200 || g.app.last()["Authorization"] == nil {
				t.Errorf("afterwards: got status %d, want 200", a.status)
			}
		})
	}
}

// TestSetUserGetsNoUserWithoutASession: the hook is called with nil, so that the
// server can remove a user from the last request.
func TestSetUserGetsNoUserWithoutASession(t *testing.T) {
	calls := 0
	g := newRig(t, plainOAuth, optional, func(s *setup) {
		s.handler.SetUser = func(_ *http.Request, u *User) {
			calls++
			if u != nil {
				t.Errorf("got user %+v, want nil", u)
			}
		}
	})
	g.get("/", script...)
	if calls != 1 {
		t.Errorf("got %d calls of SetUser, want one with nil", calls)
	}
}

// endedSession returns a browser whose session ends at its next request.
func endedSession(t *testing.T, g *rig) *browser {
	t.Helper()
	b := g.browser()
	b.wantAppAt(b.open("/oauth2/login"), "/")
	g.as.SetUser(fakeas.User{Name: "alice", Disabled: true})
	time.Sleep(time.Hour) // the access token expires
	return b
}

// TestRequestThatFindsTheEndClearsTheCookie. Optional pages then pass without a
// user, and others after a login.
func TestRequestThatFindsTheEndClearsTheCookie(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth, func(s *setup) {
			s.handler.Optional = func(r *http.Request) bool { return r.URL.Path == "/optional" }
		})
		b := endedSession(t, g)
		a := b.fetch("GET", "/api")
		if a.status != 401 || b.jar.get(sessionCookie) != nil {
			t.Errorf("got status %d, want 401, cookie %v", a.status, b.jar.get(sessionCookie))
		}
		as.SetUser(fakeas.User{Name: "alice"})
		b.mustReach("/wanted")
		b = endedSession(t, g)
		as.SetUser(fakeas.User{Name: "alice"})
		as.Fail(fakeas.OAuthError("invalid_grant").For(fakeas.GrantRefresh))
		b.mustReach("/wanted")
	})
}

// TestOptionalPageDoesNotClearTheCookie: a cache may store the app's answer, and
// would delete the cookies of other users.
func TestOptionalPageDoesNotClearTheCookie(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth, optional)
		b := endedSession(t, g)
		a := b.open("/optional")
		if a.status != 200 || a.relayed != 1 || g.app.last()["Authorization"] != nil {
			t.Errorf("got status %d, want 200, the app got %v", a.status, g.app.last())
		}
		if a.header["Set-Cookie"] != nil {
			t.Errorf("got cookies %q on the app's answer, want none", a.header["Set-Cookie"])
		}
	})
}

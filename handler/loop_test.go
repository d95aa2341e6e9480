package handler

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

func contextOf(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithCancel(r.Context())
}

func TestLoginLoopWithoutTheSessionCookieIsStopped(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	b.jar.refuse = func(name string) bool { return name == sessionCookie }
	a := b.open("/wanted")
	wantLoginLink(t, a, 500, "login_loop")
	if n := g.as.codesRedeemed(); n != loopLimit {
		t.Errorf("%d logins were completed, want %d", n, loopLimit)
	}
	if lines := g.log.lines("login_loop"); len(lines) != 1 || !strings.Contains(lines[0], "cookie") {
		t.Errorf("got log lines %q, want one", lines)
	}
	// The link on the page works once the cause is removed.
	b.jar.refuse = nil
	b.mustReach("/wanted")
}

func TestLoginLoopWithoutAnyCookieIsStopped(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	b.jar.refuse = func(string) bool { return true }
	wantLoginLink(t, b.open("/wanted"), 400, "cookies_blocked")
	if n := g.as.codesRedeemed(); n != 0 {
		t.Errorf("got %d redeemed codes, want 0", n)
	}
	if n := g.as.Stats().Requests[fakeas.EndpointAuthorize]; n != 1+maxRestartsStale {
		t.Errorf("got %d logins, want the loop stopped after three", n)
	}
}

// TestInvalidSecondCookieDoesNotStopTheLogin: another host can set one for a shared
// domain, which a name with __Host- prevents.
func TestInvalidSecondCookieDoesNotStopTheLogin(t *testing.T) {
	g := newRig(t, func(s *setup) { s.handler.Cookie = Cookie{Domain: "app.test"} })
	b := g.browser()
	b.jar.set([]string{"__Secure-oauth_session=of-a-sibling; Domain=test; Path=/; Secure"})
	b.mustReach("/")
}

// TestSwitchToPartitionedCookiesDoesNotLoop: browsers keep a partitioned cookie
// next to one without the attribute, and send both. A browser with the cookie of an
// old session must be able to log in.
func TestSwitchToPartitionedCookiesDoesNotLoop(t *testing.T) {
	g := newRig(t, func(s *setup) { s.handler.Cookie = Cookie{SameSite: "none", Partitioned: true} })
	b := g.browser()
	b.jar.set([]string{sessionCookie + "=" + seal.NewSecret().Cookie() + "; Path=/; Secure; HttpOnly; SameSite=None"})
	b.mustReach("/wanted")
}

func TestSlowRepeatedLoginsAreNotALoop(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth)
		b := g.browser()
		for range 2 * loopLimit {
			b.mustReach("/")
			b.jar.set([]string{sessionCookie + "=; Path=/; Secure; Max-Age=0"})
			time.Sleep(loopWindow/2 + time.Second)
		}
	})
}

func TestRepeatedLogoutsAreNotALoop(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	for range 2 * loopLimit {
		b.mustReach("/")
		if a := b.fetch("POST", "/oauth2/logout"); a.status != http.StatusOK {
			t.Fatalf("got status %d, want 200", a.status)
		}
	}
}

// TestRepeatedLoginsAreNotALoop: a user tries three accounts in a minute, and the
// browser sends the session cookie each time.
func TestRepeatedLoginsAreNotALoop(t *testing.T) {
	g := newRig(t)
	b := g.loggedIn()
	for range 2 * loopLimit {
		b.wantAppAt(b.open("/oauth2/login?prompt=select_account&return_to=/wanted"), "/wanted")
	}
}

// TestRepeatedCrossSiteVisitsAreNotALoop: browsers do not send a strict cookie from
// another site.
func TestRepeatedCrossSiteVisitsAreNotALoop(t *testing.T) {
	g := newRig(t, func(s *setup) { s.handler.Cookie = Cookie{SameSite: "strict"} })
	b := g.browser()
	for range 2 * loopLimit {
		b.wantAppAt(b.follow("/wanted"), "/wanted")
	}
}

// TestEndedSessionsAreNotALoop: the browser sent the cookie each time, and the
// server refused the refresh.
func TestEndedSessionsAreNotALoop(t *testing.T) {
	for name, end := range map[string]func(b *browser){
		"found by a navigation": func(*browser) {},
		"found by a script":     func(b *browser) { b.fetch("GET", "/api") },
	} {
		t.Run(name, func(t *testing.T) {
			as := startAuthServer(t)
			synctest.Test(t, func(t *testing.T) {
				g := newRigAt(t, as, plainOAuth)
				as.Set(func(k *fakeas.Knobs) { k.AccessTokenLifetime = 5 * time.Second })
				b := g.browser()
				for range 2 * loopLimit {
					b.mustReach("/")
					time.Sleep(6 * time.Second)
					as.Fail(fakeas.OAuthError("invalid_grant").For(fakeas.GrantRefresh))
					end(b)
				}
			})
		})
	}
}

package handler

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// revoke ends all sessions as an operator does.
func (g *rig) revoke(want int) {
	g.t.Helper()
	if n, err := (keeper.Sites{g.keeper}).EndOlderThan(context.Background(), 0); n != want || err != nil {
		g.t.Fatalf("revoking: got %d, %v, want %d", n, err, want)
	}
}

// wantNotice checks the page of an ended session.
func wantNotice(t *testing.T, a *answer, code string) {
	t.Helper()
	for _, want := range []string{"You have been signed out", code, `href="/oauth2/login?return_to=%2Fwanted"`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("page of an ended session: got %.600q, want %q in it", a.body, want)
		}
	}
	if a.status != http.StatusUnauthorized || a.relayed != 0 || a.header.Get("WWW-Authenticate") == "" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("got status %d and header %v, want 401 with a challenge, not to be stored", a.status, a.header)
	}
}

// TestRevokedUserLearnsItOnce, at the first navigation. The link of the page and the next
// navigation lead to the login.
func TestRevokedUserLearnsItOnce(t *testing.T) {
	g := newRig(t)
	b := g.loggedIn()
	g.revoke(1)
	// Requests of scripts, and a prefetch, do not use the notice up.
	for range 2 {
		if a := b.fetch(http.MethodGet, "/api"); a.status != http.StatusUnauthorized || a.problem(t).Code != "login_required" {
			t.Errorf("script: got status %d, %s, want 401", a.status, a.body)
		}
	}
	b.send(b.request(http.MethodGet, "/wanted", append([]string{"Sec-Purpose: prefetch"}, navigation...)...), false)
	wantNotice(t, b.open("/wanted"), "session_revoked")
	b.mustReach("/wanted")
	g.revoke(1)
	wantNotice(t, b.open("/oauth2/login?return_to=%2Fwanted"), "session_revoked")
	b.wantAppAt(b.open("/oauth2/login?return_to=%2Fwanted"), "/wanted")
}

// TestUserBeyondTheSessionLimitLearnsIt, and two browsers do not end each other's sessions
// in turn with silent logins.
func TestUserBeyondTheSessionLimitLearnsIt(t *testing.T) {
	g := newRig(t, func(s *setup) { s.session.SessionLimit = 1 })
	first, second := g.loggedIn(), g.loggedIn()
	second.mustReach("/wanted")
	wantNotice(t, first.open("/wanted"), "session_limit")
	second.mustReach("/wanted")
	first.mustReach("/wanted")
	wantNotice(t, second.open("/wanted"), "session_limit")
	// The same browser logs in again and replaces its own session.
	first.wantAppAt(first.open("/oauth2/login?return_to=%2Fwanted"), "/wanted")
	first.mustReach("/wanted")
}

// TestNoticeIsForItsBrowserOnly: a browser with no cookie, an invented one, or one whose
// session ended otherwise goes to the login.
func TestNoticeIsForItsBrowserOnly(t *testing.T) {
	g := newRig(t)
	b := g.loggedIn()
	cookie := b.jar.get(sessionCookie).Value
	g.revoke(1)
	g.browser().start("/wanted")
	invented := g.browser()
	invented.jar.set([]string{sessionCookie + "=" + strings.Repeat("A", len(cookie)) + "; Path=/; Secure"})
	invented.start("/wanted")
	loggedOut := g.loggedIn()
	old := loggedOut.jar.get(sessionCookie).Value
	loggedOut.submit("/oauth2/logout", "", loggedOut.origin())
	loggedOut.jar.set([]string{sessionCookie + "=" + old + "; Path=/; Secure"})
	loggedOut.start("/wanted")
	wantNotice(t, b.open("/wanted"), "session_revoked")
}

// TestOptionalPageShowsNoNotice: it is for visitors, too.
func TestOptionalPageShowsNoNotice(t *testing.T) {
	g := newRig(t, func(s *setup) {
		s.handler.Optional = func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/public") }
	})
	b := g.loggedIn()
	g.revoke(1)
	b.mustReach("/public")
	wantNotice(t, b.open("/wanted"), "session_revoked")
}

// TestLoginRecordsItsBrowser for the list of sessions.
func TestLoginRecordsItsBrowser(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	callback := b.approve(b.start("/wanted"))
	r := b.request(http.MethodGet, callback, append([]string{"User-Agent: Firefox on a laptop"}, navigation...)...)
	b.send(r, true)
	page, _, err := keeper.Sites{g.keeper}.ListUser(t.Context(), g.as.Tokens()[0].User, [32]byte{}, 10)
	if err != nil || len(page) != 1 || page[0].Label == nil || page[0].Label.UserAgent != "Firefox on a laptop" {
		t.Errorf("got %+v, %v, want one session with its browser", page, err)
	}
}

// TestSessionLimitNeedsAUser: without one, it could never end a session.
func TestSessionLimitNeedsAUser(t *testing.T) {
	g := newRig(t, plainOAuth)
	c := g.handler.Config
	limited := *c.Keeper
	limited.SessionLimit = 2
	c.Keeper = &limited
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "session_limit") {
		t.Errorf("plain OAuth: got error %v, want one about session_limit", err)
	}
	newRig(t, plainOAuth, func(s *setup) { s.handler.UserInfo, s.session.SessionLimit = true, 2 })
}

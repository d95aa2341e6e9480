package handler

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestNoLoginBeginsWhileTheStoreIsDown: its session could not be stored.
func TestNoLoginBeginsWhileTheStoreIsDown(t *testing.T) {
	g := newRig(t)
	for name, fault := range map[string]func(broken bool){
		"down": func(broken bool) { g.store.down.Store(broken) },
		"no writes": func(broken bool) {
			if !broken {
				g.store.setFault(false, nil)
				return
			}
			g.store.setFault(false, func(session.Item) bool { return true })
			b := g.browser() // finds out
			b.open("/")
		},
	} {
		t.Run(name, func(t *testing.T) {
			fault(true)
			begun := g.as.Stats().Requests[fakeas.EndpointAuthorize]
			for _, path := range []string{"/wanted", "/oauth2/login?return_to=/wanted", "/oauth2/login?prompt=none"} {
				a := g.get(path, navigation...)
				if a.status != http.StatusServiceUnavailable || a.location() != "" || a.header["Set-Cookie"] != nil || a.header.Get("Retry-After") == "" {
					t.Errorf("%s: got status %d, want 503 to %q, cookies %q", path, a.status, a.location(), a.header["Set-Cookie"])
				}
			}
			if a := g.get("/api", script...); a.status != http.StatusUnauthorized {
				t.Errorf("a script: got status %d, want 401", a.status)
			}
			if n := g.as.Stats().Requests[fakeas.EndpointAuthorize]; n != begun {
				t.Errorf("got %d begun logins, want 0", n-begun)
			}
			fault(false)
			g.browser().mustReach("/wanted")
		})
	}
}

// silentAnnouncer is a shared store that does not answer announcements of keys.
type silentAnnouncer struct{}

func (silentAnnouncer) Announce(context.Context, session.Topic, session.Holder, []byte) ([][]byte, error) {
	return nil, errStoreDown
}

// TestNoLoginBeginsBeforeTheKeysAreAgreed: a new instance with several keys must not
// seal a login that another instance cannot open. The answer is temporary.
func TestNoLoginBeginsBeforeTheKeysAreAgreed(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth, func(s *setup) {
			ring, err := seal.NewKeyRing(seal.NewKey(), seal.NewKey())
			if err != nil {
				t.Fatal(err)
			}
			s.session.Site = seal.NewSite(ring, as.URL, "app", "")
			_ = seal.Share(silentAnnouncer{}, s.session.Site, func(seal.KeyEvent) {}) // never run
		})
		a := g.get("/wanted", navigation...)
		if a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "temporarily_unavailable") || a.header.Get("Retry-After") != "5" {
			t.Errorf("got status %d, Retry-After %q: %s, want 503 temporarily_unavailable and 5", a.status, a.header.Get("Retry-After"), a.body)
		}
		if a.location() != "" || a.header["Set-Cookie"] != nil {
			t.Errorf("got Location %q and cookies %q, want none", a.location(), a.header["Set-Cookie"])
		}
	})
}

// TestFrozenStoreDelaysLoginsBriefly, however many begin at once.
func TestFrozenStoreDelaysLoginsBriefly(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth)
		g.store.setFault(true, nil)
		begun := time.Now()
		done := make(chan *answer)
		for range 10 {
			go func() { done <- g.get("/wanted", navigation...) }()
		}
		for range 10 {
			if a := <-done; a.status != http.StatusServiceUnavailable {
				t.Errorf("got status %d, want 503", a.status)
			}
		}
		if waited := time.Since(begun); waited > 3*time.Second {
			t.Errorf("got answers after %v, want at most 3 s", waited)
		}
		g.store.setFault(false, nil)
		g.browser().mustReach("/wanted")
	})
}

// TestStoreDownDuringTheCallbackSpendsNoCode: the page goes to a new login by
// itself, and the callback works again when the store does.
func TestStoreDownDuringTheCallbackSpendsNoCode(t *testing.T) {
	for name, after := range map[string]func(*testing.T, *browser, string, string){
		"goes on": func(t *testing.T, b *browser, callback, next string) {
			b.wantAppAt(b.open(next), "/wanted?x=1&y")
		},
		"reload by hand": func(t *testing.T, b *browser, callback, next string) {
			b.wantAppAt(b.open(callback), "/wanted?x=1&y")
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			b := g.browser()
			callback := b.approve(b.start("/wanted?x=1&y"))
			g.store.down.Store(true)
			var next string
			for range 3 {
				a := b.send(g.request("GET", callback, navigation...), true)
				if a.status != 503 || a.header.Get("Retry-After") == "" || b.jar.get(sessionCookie) != nil {
					t.Errorf("got status %d, want 503: %s", a.status, a.body)
				}
				next = wantReloadToLogin(t, a)
			}
			if n := g.as.codesRedeemed(); n != 0 {
				t.Errorf("got %d sent codes, want 0", n)
			}
			if a := b.open(next); a.status != 503 {
				t.Errorf("a new login: got status %d, want 503", a.status)
			}
			g.store.down.Store(false)
			after(t, b, callback, next)
			if n := g.as.codesRedeemed(); n != 1 {
				t.Errorf("got %d sent codes, want 1", n)
			}
		})
	}
}

// awaitRevocation returns when the server has answered a revocation, and fails
// the test if a refresh token that it issued for a login is still good.
func awaitRevocation(t *testing.T, g *rig) {
	t.Helper()
	select {
	case <-g.as.revoked:
	case <-time.After(30 * time.Second):
		t.Fatal("got no revocation, want one")
	}
	if live := liveRefreshTokens(g); len(live) != 0 {
		t.Errorf("got %d valid refresh tokens, want 0", len(live))
	}
}

func liveRefreshTokens(g *rig) (live []fakeas.Issued) {
	for _, token := range g.as.Tokens() {
		if token.Kind == fakeas.KindRefresh && !token.Revoked {
			live = append(live, token)
		}
	}
	return live
}

// TestTokensWithoutASessionAreRevoked: nothing uses them, so they must not stay
// valid.
func TestTokensWithoutASessionAreRevoked(t *testing.T) {
	for name, tt := range map[string]struct {
		arrange func(*rig)
		code    string
		status  int
	}{
		"session not kept":   {func(g *rig) { g.store.setFault(false, isSession) }, "temporarily_unavailable", 503},
		"another's ID token": {func(g *rig) { loginIDToken(g, "aud", "other") }, "login_failed", 502},
		"wrong nonce":        {func(g *rig) { loginIDToken(g, "nonce", "other") }, "login_failed", 502},
		"no keys":            {func(g *rig) { g.as.Fail(fakeas.Unavailable().At(fakeas.EndpointJWKS).Repeat(-1)) }, "login_unavailable", 503},
		"no ID token":        {func(g *rig) { g.as.Set(func(k *fakeas.Knobs) { k.LoginAnswer.Omit = []string{"id_token"} }) }, "login_failed", 502},
		"no access token":    {func(g *rig) { g.as.Set(func(k *fakeas.Knobs) { k.LoginAnswer.Omit = []string{"access_token"} }) }, "login_failed", 502},
		"UserInfo refused": {func(g *rig) {
			g.handler.UserInfo = true
			g.as.Fail(fakeas.Answer(403, "text/plain", "").At(fakeas.EndpointUserInfo))
		}, "login_failed", 502},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			tt.arrange(g)
			a := g.browser().open("/wanted")
			if a.status != tt.status || !strings.Contains(a.body, tt.code) {
				t.Errorf("got status %d, want %d: %s", a.status, tt.status, a.body)
			}
			if tt.status == 503 {
				wantReloadToLogin(t, a)
			}
			awaitRevocation(t, g)
		})
	}
}

func loginIDToken(g *rig, claim string, value any) {
	g.as.Set(func(k *fakeas.Knobs) { k.LoginIDToken.Claims.Set = map[string]any{claim: value} })
}

func TestTokensOfALoginLoopAreRevoked(t *testing.T) {
	for name, options := range map[string][]func(*setup){"OpenID Connect": nil, "plain OAuth": {plainOAuth}} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, options...)
			b := g.browser()
			b.jar.refuse = func(name string) bool { return name == sessionCookie }
			wantLoginLink(t, b.open("/wanted"), 500, "login_loop")
			<-g.as.revoked
			if live := liveRefreshTokens(g); len(live) != loopLimit-1 {
				t.Errorf("%d refresh tokens are still good, want those of the sessions", len(live))
			}
		})
	}
}

// TestRefreshTokenOfAReplacedSessionIsRevoked, and the new session goes on.
func TestRefreshTokenOfAReplacedSessionIsRevoked(t *testing.T) {
	g := newRig(t)
	b := g.loggedIn()
	old := g.as.newest(fakeas.KindRefresh)
	b.wantAppAt(b.open("/oauth2/login?return_to=/wanted"), "/wanted")
	<-g.as.revoked
	live := liveRefreshTokens(g)
	if len(live) != 1 || live[0].Value == old {
		t.Errorf("got valid refresh tokens %v, want the new one", live)
	}
	if a := b.fetch("POST", "/oauth2/session/refresh"); a.status != http.StatusOK {
		t.Errorf("the new session: got status %d, want 200", a.status)
	}
}

// TestTokensOfOneGrantAreNotRevoked: the server may end the new session with the
// old one.
func TestTokensOfOneGrantAreNotRevoked(t *testing.T) {
	old := keeper.Ended{Subject: "alice", RefreshToken: "RT_old"}
	for name, tt := range map[string]struct {
		oldSID, sid, subject, refreshToken string
		share                              bool
	}{
		"same session at the server":    {"s1", "s1", "alice", "RT_new", true},
		"another session at the server": {"s1", "s2", "alice", "RT_new", false},
		"session without sid before":    {"", "s2", "alice", "RT_new", false},
		"same user, no sid":             {"", "", "alice", "RT_new", true},
		"another user, no sid":          {"", "", "bob", "RT_new", false},
		"same token":                    {"s1", "s2", "bob", "RT_old", true},
	} {
		old.SID = tt.oldSID
		if got := mayShareGrant(old, keeper.Identity{Subject: tt.subject, SID: tt.sid}, keeper.Tokens{RefreshToken: tt.refreshToken}); got != tt.share {
			t.Errorf("%s: got %v, want %v", name, got, tt.share)
		}
	}
}

// TestLoginThatTheServerEndedLeavesNoSession: one more login is tried, and then a
// page says so.
func TestLoginThatTheServerEndedLeavesNoSession(t *testing.T) {
	issued := time.Now().Truncate(time.Second)
	for name, l := range map[string]keeper.Logout{
		"user, same second":       {Subject: fakeas.DefaultUser, IssuedAt: issued},
		"user, later":             {Subject: fakeas.DefaultUser, IssuedAt: issued.Add(time.Minute)},
		"session, same second":    {SID: "S1", IssuedAt: issued},
		"both, within the second": {SID: "S1", Subject: fakeas.DefaultUser, IssuedAt: issued.Add(900 * time.Millisecond)},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.as.Set(func(k *fakeas.Knobs) { k.LoginIDToken.Claims.Set = map[string]any{"iat": issued.Unix(), "sid": "S1"} })
			l.Token, l.Until = "LT", time.Now().Add(3*time.Minute)
			if _, err := g.keeper.EndByServerLogout(context.Background(), l); err != nil {
				t.Fatal(err)
			}
			a := g.browser().open("/wanted")
			wantLoginLink(t, a, 403, "logged_out")
			if strings.Contains(a.body, "cannot be kept") || strings.Contains(a.body, `http-equiv="refresh"`) {
				t.Errorf("got page %s, want one that explains the logout", a.body)
			}
			if n := g.as.codesRedeemed(); n != 1+maxRestartsStale {
				t.Errorf("got %d redeemed codes, want those of the table", n)
			}
			for range 1 + maxRestartsStale {
				<-g.as.revoked
			}
			if lines := g.log.lines(`"level":"error"`); len(lines) != 0 {
				t.Errorf("got log lines %q, want one", lines)
			}
		})
	}
}

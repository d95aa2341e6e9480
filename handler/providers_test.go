package handler

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// TestRefreshSendsScopeOnlyIfConfigured: some servers require scope at a refresh,
// others refuse it. refresh_param decides.
func TestRefreshSendsScopeOnlyIfConfigured(t *testing.T) {
	again := func(s *setup) { s.oauth.RefreshParams = []oauth.Param{{Name: "scope", Value: "api"}} }
	without := func(*setup) {}
	for name, tt := range map[string]struct {
		rule   fakeas.Presence
		option func(*setup)
		status int
	}{
		"wanted and sent":    {fakeas.Required, again, 200},
		"wanted, not sent":   {fakeas.Required, without, 401},
		"refused, not sent":  {fakeas.Forbidden, without, 200},
		"refused and sent":   {fakeas.Forbidden, again, 401},
		"optional and sent":  {fakeas.Optional, again, 200},
		"optional, not sent": {fakeas.Optional, without, 200},
	} {
		t.Run(name, func(t *testing.T) {
			as := startAuthServer(t)
			as.Set(func(k *fakeas.Knobs) { k.RefreshScope = tt.rule })
			synctest.Test(t, func(t *testing.T) {
				g := newRigAt(t, as, plainOAuth, tt.option, func(s *setup) { s.oauth.Scopes = []string{"api"} })
				b := g.loggedIn()
				time.Sleep(5 * time.Minute)
				if a := b.fetch("GET", "/"); a.status != tt.status {
					t.Errorf("status %d, want %d", a.status, tt.status)
				}
			})
		})
	}
}

// TestMissingGroupsMeetNoRequirement: Entra ID leaves the groups out if there are
// many, and names the address to fetch them. Unknown groups count as none.
func TestMissingGroupsMeetNoRequirement(t *testing.T) {
	g := newRig(t, func(s *setup) { s.handler.Require = []Requirement{{Claim: "groups", Values: []string{"users"}}} })
	g.loggedIn()
	g.as.Set(func(k *fakeas.Knobs) { k.GroupsOverage = true })
	if a := g.browser().open("/"); a.status != 403 || a.relayed != 0 {
		t.Errorf("got status %d, want 403", a.status)
	}
}

// TestDefaultTokenLifetimeEndsSessionWithoutRefreshToken: the server says no
// lifetime.
func TestDefaultTokenLifetimeEndsSessionWithoutRefreshToken(t *testing.T) {
	as := startAuthServer(t)
	as.Set(func(k *fakeas.Knobs) {
		k.RefreshTokens, k.LoginAnswer = fakeas.RefreshNone, fakeas.Edit{Omit: []string{"expires_in"}}
	})
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth)
		b := g.loggedIn()
		time.Sleep(5*time.Minute - 10*time.Second - time.Millisecond)
		if a := b.fetch("GET", "/"); a.status != 200 {
			t.Errorf("got status %d, want 200", a.status)
		}
		time.Sleep(time.Millisecond)
		if a := b.fetch("GET", "/"); a.status != 401 {
			t.Errorf("got status %d, want 401", a.status)
		}
		b.mustReach("/") // after a login
		if as.codesRedeemed() != 2 {
			t.Errorf("got %d logins, want 2", as.codesRedeemed())
		}
	})
}

// TestOverlappingRotationKeepsTheSession: a server that accepts the last but one
// token tolerates a lost answer.
func TestOverlappingRotationKeepsTheSession(t *testing.T) {
	as := startAuthServer(t)
	as.Set(func(k *fakeas.Knobs) { k.Rotation, k.Overlap = fakeas.RotateOverlap, 1 })
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth)
		b := g.loggedIn()
		for range 3 {
			as.Fail(fakeas.LoseAnswer().For(fakeas.GrantRefresh))
			time.Sleep(5 * time.Minute)
			if a := b.fetch("GET", "/"); a.status != 200 {
				t.Errorf("got status %d, want 200", a.status)
			}
		}
		if st := as.Stats(); st.Reuses != 0 || as.refreshes() != 6 {
			t.Errorf("got %d refreshes and %d reuses, want 6 and 0", as.refreshes(), st.Reuses)
		}
	})
}

// TestLogoutWorksWithAProprietaryEndpoint: Cognito's logout is not in its metadata and takes
// logout_uri. It is configured with its parameters.
func TestLogoutWorksWithAProprietaryEndpoint(t *testing.T) {
	g := newRig(t, func(s *setup) {
		s.oauth.Endpoints.EndSession = s.oauth.Issuer + "/logout?client_id=app&logout_uri=" + appOrigin + "/oauth2/logout/callback"
	})
	b := g.loggedIn()
	a := b.send(g.request("POST", "/oauth2/logout", formPost...), false)
	end := b.walk(a.location(), "same-origin", nil)
	if end.status != 200 || end.uri != "GET /oauth2/logout/callback" {
		t.Errorf("got %s with status %d, want the page after the logout with 200", end.uri, end.status)
	}
	<-g.as.revoked
}

// TestCompressedAnswerIsRefused: it was not requested. The session stays.
func TestCompressedAnswerIsRefused(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth)
		b := g.loggedIn()
		as.Fail(fakeas.Fault{Gzip: true, Grant: fakeas.GrantRefresh})
		time.Sleep(5 * time.Minute)
		if a := b.fetch("GET", "/"); a.status != 503 {
			t.Errorf("got status %d, want 503", a.status)
		}
		time.Sleep(2 * time.Second)
		b.mustReach("/")
		if len(b.hops) != 1 {
			t.Errorf("got hops %q, want no login", b.hops)
		}
	})
}

// TestIssuerWithATenantPlaceholderIsRefused: no login begins, and the log has the
// cause.
func TestIssuerWithATenantPlaceholderIsRefused(t *testing.T) {
	g := newRig(t)
	g.as.Set(func(k *fakeas.Knobs) { k.Issuer = "https://login.test/{tenantid}/v2.0" })
	a := g.browser().open("/")
	if a.status != 502 || a.relayed != 0 || a.location() != "" {
		t.Errorf("got status %d, Location %q, want 502", a.status, a.location())
	}
	if lines := g.log.lines("{tenantid}"); len(lines) != 1 {
		t.Errorf("got log %q, want one line with the placeholder", g.log.text())
	}
}

// TestPostedCallbackIsRefused: response_mode=form_post is not supported.
func TestPostedCallbackIsRefused(t *testing.T) {
	g := newRig(t)
	if a := g.post("/oauth2/callback", formPost...); a.status != 405 || a.header.Get("Allow") != "GET" || a.relayed != 0 {
		t.Errorf("got status %d, want 405, %v", a.status, a.header)
	}
}

// TestIDTokenLifetimeDoesNotLimitTheSession: an expired ID token still serves as
// the hint of the logout.
func TestIDTokenLifetimeDoesNotLimitTheSession(t *testing.T) {
	g := newRig(t)
	// The token has expired, by less than the tolerance for clocks.
	g.as.Set(func(k *fakeas.Knobs) { k.IDTokenLifetime = -30 * time.Second })
	b := g.loggedIn()
	b.mustReach("/")
	if len(b.hops) != 1 {
		t.Errorf("got hops %q, want no login", b.hops)
	}
	a := b.send(g.request("POST", "/oauth2/logout", formPost...), false)
	if !idTokenHint.MatchString(a.location()) {
		t.Errorf("got logout at %.80q, want the ID token in it", a.location())
	}
	<-g.as.revoked
}

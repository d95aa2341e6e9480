package handler

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// claimsJWT returns claims that the authorization server has signed.
func (g *rig) claimsJWT(claims map[string]any) string {
	return g.logoutToken(fakeas.Logout{Edit: fakeas.TokenEdit{
		Header: fakeas.Edit{Set: map[string]any{"typ": "JWT"}}, Claims: fakeas.Edit{Set: claims, Omit: []string{"events"}},
	}})
}

const sourceToken = "ST_5f2d9a41c7"

// distribute serves claims as a distributed source, and returns its description.
func (g *rig) distribute(claims map[string]any) map[string]any {
	raw := g.claimsJWT(claims)
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+sourceToken {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(raw))
	}))
	g.t.Cleanup(source.Close)
	g.secrets = append(g.secrets, sourceToken)
	return map[string]any{"endpoint": source.URL + "/claims", "access_token": sourceToken}
}

// leaveToSources makes members that leave two claims to two sources.
func (g *rig) leaveToSources() map[string]any {
	return map[string]any{
		"_claim_names": map[string]any{"address": "aggregated", "department": "distributed", "shoe_size": "elsewhere"},
		"_claim_sources": map[string]any{
			"aggregated":  map[string]any{"JWT": g.claimsJWT(map[string]any{"address": "Main St"})},
			"distributed": g.distribute(map[string]any{"department": "sales", "email": "eve@example.test"}),
			"elsewhere":   map[string]any{"endpoint": "https://claims.example.test/"},
		},
	}
}

// TestAppGetsTheClaimsOfOtherSources: aggregated and distributed claims count like those
// of the ID token and of UserInfo, and a refresh keeps them. The session has neither the
// sources nor their tokens.
func TestAppGetsTheClaimsOfOtherSources(t *testing.T) {
	for _, place := range []string{"ID token", "UserInfo"} {
		t.Run(place, func(t *testing.T) {
			g := newRig(t, func(s *setup) {
				s.handler.UserInfo = place == "UserInfo"
				s.handler.Require = []Requirement{{"department", []string{"sales"}}}
			})
			left := g.leaveToSources()
			g.as.Set(func(k *fakeas.Knobs) {
				if place == "UserInfo" {
					k.UserInfo.Set = left
				} else {
					k.LoginIDToken.Claims.Set = left
				}
			})
			cookie := g.expiredLogin()
			for _, when := range []string{"login", "refresh"} {
				if when == "refresh" {
					g.refreshed(cookie)
				}
				_, claims := g.claimsOf(cookie)
				if claims["address"] != "Main St" || claims["department"] != "sales" || claims["email"] != "alice@example.test" {
					t.Errorf("after the %s: got claims %v, want those of the sources, and the e-mail of the server", when, claims)
				}
				if claims["_claim_sources"] != nil {
					t.Errorf("after the %s: got claims %v, want no sources", when, claims)
				}
			}
			if lines := g.log.lines("another source has them"); len(lines) != 1 || !strings.Contains(lines[0], "shoe_size") {
				t.Errorf("the log says %q, want one line about shoe_size", lines)
			}
		})
	}
}

// TestUnreadableSourceFailsNoLogin: its claims are missing, so they meet no requirement.
func TestUnreadableSourceFailsNoLogin(t *testing.T) {
	for name, source := range map[string]any{
		"unsigned":   map[string]any{"JWT": "eyJhbGciOiJub25lIn0.eyJkZXBhcnRtZW50Ijoic2FsZXMifQ."},
		"no server":  map[string]any{"endpoint": "http://127.0.0.1:1/", "access_token": sourceToken},
		"no token":   map[string]any{"endpoint": "http://127.0.0.1:1/"},
		"not a URL":  map[string]any{"endpoint": "claims", "access_token": sourceToken},
		"wrong type": 7,
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, func(s *setup) {
				s.handler.Require = []Requirement{{"department", []string{"sales"}}}
			})
			g.as.Set(func(k *fakeas.Knobs) {
				k.LoginIDToken.Claims.Set = map[string]any{"_claim_names": map[string]any{"department": "s"}, "_claim_sources": map[string]any{"s": source}}
			})
			b := g.browser()
			if a := b.open("/"); a.status != 403 || a.relayed != 0 || !strings.Contains(a.body, "forbidden") || b.jar.get(sessionCookie) == nil {
				t.Errorf("got status %d, want a session and 403: %s", a.status, a.body)
			}
			if lines := g.log.lines("another source has them"); len(lines) != 1 || !strings.Contains(lines[0], `"claims":["department"]`) {
				t.Errorf("the log says %q, want the claim and the cause", lines)
			}
		})
	}
}

// TestLargeSourceFailsNoLogin: claims that do not fit are missing, and the server's own ones
// take precedence.
func TestLargeSourceFailsNoLogin(t *testing.T) {
	text := func(kib int) string { return strings.Repeat("<", kib<<10/6) } // < takes six bytes in JSON
	for name, tt := range map[string]struct {
		address, department, own int // in KiB
		missing                  string
	}{
		"one that is too large":             {1, 70, 0, `["department"]`},
		"two that are too large together":   {40, 40, 0, `["department"]`},
		"no room beside the server's claim": {1, 40, 40, `["department"]`},
		"all fit":                           {20, 20, 20, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, func(s *setup) { s.handler.UserInfo = true })
			left := map[string]any{
				"_claim_names": map[string]any{"address": "a", "department": "d"},
				"_claim_sources": map[string]any{
					"a": g.distribute(map[string]any{"address": text(tt.address)}), "d": g.distribute(map[string]any{"department": text(tt.department)}),
				},
			}
			g.as.Set(func(k *fakeas.Knobs) {
				k.LoginIDToken.Claims.Set, k.UserInfo.Set = left, map[string]any{"own": text(tt.own)}
			})
			session := g.loggedIn().jar.get(sessionCookie)
			if session == nil {
				t.Fatal("got no session")
			}
			_, claims := g.claimsOf(session.Value)
			if claims["address"] != text(tt.address) || claims["own"] != text(tt.own) || (claims["department"] == text(tt.department)) != (tt.missing == "") {
				t.Errorf("got claims %.300v, want all but %s", claims, tt.missing)
			}
			names, _ := claims["_claim_names"].(map[string]any)
			if _, named := names["department"]; named != (tt.missing != "") || names["address"] != nil {
				t.Errorf("got _claim_names %v, want the missing claim alone", names)
			}
			lines := g.log.lines("another source has them")
			if (len(lines) == 1) != (tt.missing != "") || tt.missing != "" && !strings.Contains(lines[0], `"claims":`+tt.missing) {
				t.Errorf("the log says %.300q, want %s and the cause", lines, tt.missing)
			}
		})
	}
}

// TestGroupsOverageIsNamed on the page, for programs and in the log: the user cannot
// help it, and the operator can.
func TestGroupsOverageIsNamed(t *testing.T) {
	groups := Requirement{"groups", []string{"admin"}}
	for name, tt := range map[string]struct {
		require Requirement
		knob    func(*fakeas.Knobs)
		code    string
	}{
		"_claim_names": {groups, func(k *fakeas.Knobs) { k.GroupsOverage = true }, "groups_overage"},
		"hasgroups": {groups, func(k *fakeas.Knobs) {
			k.LoginIDToken.Claims = fakeas.Edit{Set: map[string]any{"hasgroups": true}, Omit: []string{"groups"}}
		}, "groups_overage"},
		"hasgroups as a text": {groups, func(k *fakeas.Knobs) {
			k.LoginIDToken.Claims = fakeas.Edit{Set: map[string]any{"hasgroups": "true"}, Omit: []string{"groups"}}
		}, "groups_overage"},
		"no hasgroups": {groups, func(k *fakeas.Knobs) {
			k.LoginIDToken.Claims = fakeas.Edit{Set: map[string]any{"hasgroups": false}, Omit: []string{"groups"}}
		}, "forbidden"},
		"other groups":     {groups, func(*fakeas.Knobs) {}, "forbidden"},
		"no groups at all": {groups, func(k *fakeas.Knobs) { k.LoginIDToken = withoutClaim("groups") }, "forbidden"},
		"another claim":    {Requirement{"roles", []string{"admin"}}, func(k *fakeas.Knobs) { k.GroupsOverage = true }, "forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, func(s *setup) { s.handler.Require = []Requirement{tt.require} })
			g.as.Set(tt.knob)
			b := g.browser()
			a := b.open("/wanted")
			overage := tt.code == "groups_overage"
			if a.status != 403 || a.relayed != 0 || !strings.Contains(a.body, tt.code) || strings.Contains(a.body, "so many groups") != overage ||
				!strings.Contains(a.body, `action="/oauth2/logout"`) {
				t.Errorf("got status %d: %s, want 403 %s with a way out", a.status, a.body, tt.code)
			}
			if p := b.fetch("GET", "/api").problem(t); p.Code != tt.code {
				t.Errorf("a script: got code %s, want %s", p.Code, tt.code)
			}
			lines := g.log.lines("groups overage")
			if len(lines) > 1 || (len(lines) == 1) != overage || overage && !strings.Contains(lines[0], "ApplicationGroup") {
				t.Errorf("the log says %q, want one line with the remedy: %v", lines, overage)
			}
		})
	}
	if !slices.Contains(protocolClaims, claimSources) {
		t.Error("the sources of claims, which have access tokens, are stored")
	}
}

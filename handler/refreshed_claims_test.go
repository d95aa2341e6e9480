package handler

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// TestRemovedClaimIsGoneAfterARefresh: a user who leaves a group loses access with
// the next verified ID token.
func TestRemovedClaimIsGoneAfterARefresh(t *testing.T) {
	in, out := []string{"admin"}, []string{"users"}
	userInfo := func(s *setup) { s.handler.UserInfo = true }
	for _, tt := range []struct {
		name    string
		options []func(*setup)
		login   func(*fakeas.Knobs)
		refresh func(*fakeas.Knobs)
		status  int
	}{
		{"left out", nil, nil, func(k *fakeas.Knobs) { k.RefreshIDToken = withoutClaim("groups") }, 403},
		{"other groups", nil, nil, func(k *fakeas.Knobs) { k.RefreshIDToken = claim("groups", out) }, 403},
		{"no groups", nil, nil, func(k *fakeas.Knobs) { k.RefreshIDToken = claim("groups", []string{}) }, 403},
		{"null", nil, nil, func(k *fakeas.Knobs) { k.RefreshIDToken = claim("groups", nil) }, 403},
		{"overage", nil, nil, func(k *fakeas.Knobs) { k.GroupsOverage = true }, 403},
		{"kept", nil, nil, nil, 200},
		{"added", nil, func(k *fakeas.Knobs) { k.LoginIDToken = withoutClaim("groups") }, nil, 200},
		{"no ID token", nil, nil, func(k *fakeas.Knobs) { k.RefreshAnswer.Omit = []string{"id_token"} }, 200},
		{"ID token that proves nothing", nil, nil, func(k *fakeas.Knobs) {
			k.RefreshIDToken = fakeas.TokenEdit{Defect: fakeas.DefectFlipped, Claims: fakeas.Edit{Omit: []string{"groups"}}}
		}, 200},

		{"UserInfo has it", []func(*setup){userInfo}, nil, func(k *fakeas.Knobs) { k.RefreshIDToken = withoutClaim("groups") }, 200},
		{"UserInfo alone has it", []func(*setup){userInfo}, func(k *fakeas.Knobs) { k.LoginIDToken = withoutClaim("groups") },
			func(k *fakeas.Knobs) { k.RefreshIDToken = withoutClaim("groups") }, 200},
		{"UserInfo has it, the ID token others", []func(*setup){userInfo}, func(k *fakeas.Knobs) { k.LoginIDToken = claim("groups", out) },
			func(k *fakeas.Knobs) { k.RefreshIDToken = claim("groups", out) }, 200},
		{"UserInfo has it, the ID token has changed", []func(*setup){userInfo}, nil,
			func(k *fakeas.Knobs) { k.RefreshIDToken = claim("groups", out) }, 403},
		{"UserInfo lacks it", []func(*setup){userInfo}, func(k *fakeas.Knobs) { k.UserInfo.Omit = []string{"groups"} },
			func(k *fakeas.Knobs) { k.RefreshIDToken = withoutClaim("groups") }, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, append(tt.options, func(s *setup) { s.handler.Require = []Requirement{{"groups", []string{"admin"}}} })...)
			g.as.SetUser(fakeas.User{Name: "alice", Claims: map[string]any{"groups": in}})
			if tt.login != nil {
				g.as.Set(tt.login)
			}
			cookie := g.expiredLogin()
			g.as.Set(func(k *fakeas.Knobs) {
				k.LoginIDToken = fakeas.TokenEdit{}
				if tt.refresh != nil {
					tt.refresh(k)
				}
			})
			for range 2 { // the second reads what the first has kept
				a := g.get("/", with(cookie, script)...)
				if a.status != tt.status || a.relayed == 1 != (tt.status == http.StatusOK) {
					t.Fatalf("status %d, want %d", a.status, tt.status)
				}
			}
			if n := g.as.refreshes(); n != 1 {
				t.Errorf("got %d refreshes, want 1", n)
			}
		})
	}
}

// idTokenWith returns an ID token with some claims, as a record has it.
func idTokenWith(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".x"
}

// TestClaimsAfterARefreshAreTheNewest: those of the new ID token and of UserInfo.
// The claims about the authentication stay until a new one.
func TestClaimsAfterARefreshAreTheNewest(t *testing.T) {
	for _, tt := range []struct {
		name                      string
		before, userInfo, idToken string // before the refresh
		refreshed                 string
		all, kept                 string // after it
	}{
		{"plain", `{"a":1,"b":2}`, ``, `{"a":1,"b":2}`, `{"a":3,"c":4}`, `{"a":3,"c":4}`, `{}`},
		{"authentication", `{"auth_time":9,"acr":"gold","amr":["otp"],"a":1}`, ``, `{}`, `{}`, `{"auth_time":9,"acr":"gold","amr":["otp"]}`, `{}`},
		{"the same, repeated", `{"auth_time":9,"acr":"gold"}`, ``, `{}`, `{"auth_time":9}`, `{"auth_time":9,"acr":"gold"}`, `{}`},
		{"the same, in another spelling", `{"auth_time":9,"acr":"gold"}`, ``, `{}`, `{"auth_time":9.0}`, `{"auth_time":9.0,"acr":"gold"}`, `{}`},
		{"another one", `{"auth_time":9,"acr":"gold","amr":["otp"]}`, ``, `{}`, `{"auth_time":10}`, `{"auth_time":10}`, `{}`},
		{"lower now", `{"auth_time":9,"acr":"gold"}`, ``, `{}`, `{"acr":"silver"}`, `{"auth_time":9,"acr":"silver"}`, `{}`},
		{"time not known", `{"auth_time":9,"acr":"gold"}`, ``, `{}`, `{"auth_time":0}`, `{"auth_time":9,"acr":"gold"}`, `{}`},
		{"null", `{"auth_time":9,"acr":"gold"}`, ``, `{}`, `{"auth_time":null,"acr":null}`, `{"auth_time":9,"acr":"gold"}`, `{}`},
		{"UserInfo", `{"a":1,"b":2}`, `{"b":2}`, `{"a":1}`, `{"a":3}`, `{"a":3,"b":2}`, `{"b":2}`},
		{"both, not changed", `{"a":2}`, `{"a":2}`, `{"a":1}`, `{"a":1}`, `{"a":2}`, `{"a":2}`},
		{"both, changed", `{"a":2,"sub":"x"}`, `{"a":2,"sub":"x"}`, `{"a":1,"sub":"x"}`, `{"a":3,"sub":"x"}`, `{"a":3,"sub":"x"}`, `{"sub":"x"}`},
		{"both, left out now", `{"a":2}`, `{"a":2}`, `{"a":1}`, `{}`, `{"a":2}`, `{"a":2}`},
		{"new in the ID token", `{"a":2}`, `{"a":2}`, `{}`, `{"a":3}`, `{"a":3}`, `{}`},
		{"older release", `{"a":1,"b":2,"auth_time":9}`, ``, `{"a":1,"auth_time":9}`, `{}`, `{"b":2,"auth_time":9}`, `{"b":2}`},
		{"older release, both", `{"a":2,"b":1}`, ``, `{"a":1,"b":1}`, `{"a":1,"b":3}`, `{"a":2,"b":3}`, `{"a":2}`},
		{"older release, later authentication", `{"acr":"gold","auth_time":9}`, ``, `{}`, `{"auth_time":10}`, `{"auth_time":10}`, `{}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			current := keeper.Identity{Claims: json.RawMessage(tt.before), UserInfo: json.RawMessage(tt.userInfo), IDToken: idTokenWith(tt.idToken)}
			asked := tt.userInfo != "" || strings.HasPrefix(tt.name, "older")
			kept, err := storedClaims(current, asked)
			if err != nil {
				t.Fatal(err)
			}
			refreshed, err := decodeClaims(json.RawMessage(tt.refreshed))
			if err != nil {
				t.Fatal(err)
			}
			all, userInfo := kept.afterRefresh(refreshed)
			for _, half := range []struct {
				what, want string
				got        map[string]json.RawMessage
			}{{"claims", tt.all, all}, {"those of UserInfo", tt.kept, userInfo}} {
				want, err := decodeClaims(json.RawMessage(half.want))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, half.got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", half.what, diff)
				}
			}
		})
	}
}

// TestClaimsOfAnOlderReleaseWithoutUserInfoAreDropped: all of them came from the ID
// token.
func TestClaimsOfAnOlderReleaseWithoutUserInfoAreDropped(t *testing.T) {
	for _, idToken := range []string{"", "x", "a.b.c", idTokenWith(`[]`), idTokenWith(`{"groups":["users"]}`)} {
		kept, err := storedClaims(keeper.Identity{Claims: json.RawMessage(`{"groups":["admin"]}`), IDToken: idToken}, false)
		if err != nil {
			t.Fatal(err)
		}
		if all, userInfo := kept.afterRefresh(nil); len(all)+len(userInfo) != 0 {
			t.Errorf("ID token %q: got claims %s and %s, want none", idToken, all, userInfo)
		}
	}
}

// TestTooManyClaimsAtARefreshKeepTheOldOnes: the size of claims must not end a
// session.
func TestTooManyClaimsAtARefreshKeepTheOldOnes(t *testing.T) {
	g := newRig(t, func(s *setup) { s.handler.UserInfo = true })
	g.as.Set(func(k *fakeas.Knobs) { k.UserInfo.Set = map[string]any{"x": strings.Repeat("x", maxClaims-9<<10)} })
	cookie := g.expiredLogin()
	_, before := g.claimsOf(cookie)
	g.as.Set(func(k *fakeas.Knobs) { k.RefreshIDToken = claim("y", strings.Repeat("y", 10<<10)) })
	g.refreshed(cookie)
	_, after := g.claimsOf(cookie)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("got other claims after the refresh (-before +after):\n%s", diff)
	}
	if lines := g.log.lines("could not be verified"); len(lines) != 1 || !strings.Contains(lines[0], "the user's claims take") {
		t.Errorf("got log lines %q, want one about the size", lines)
	}
}

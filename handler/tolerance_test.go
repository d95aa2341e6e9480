package handler

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestClaimsOfOddTypesDoNotFailALogin: nobody has asked for these claims.
func TestClaimsOfOddTypesDoNotFailALogin(t *testing.T) {
	g := newRig(t)
	for name, values := range map[string][]any{
		"auth_time":      {nil, "2026-11-22T05:00:00Z", -62135596800, []int{1}, true},
		"sid":            {nil, 7, []string{"a"}, map[string]any{"id": 1}},
		"azp":            {nil, 7, []string{"app"}},
		"at_hash":        {nil, 7, false},
		"nbf":            {nil, "now", []int{}},
		"acr":            {nil, 1},
		"amr":            {nil, "pwd"},
		"email":          {nil, 7},
		"email_verified": {nil, "true"},
		"updated_at":     {nil, "yesterday"},
		"groups":         {nil, "admins", map[string]any{}},
		"address":        {json.RawMessage(`[[[1]]]`)},
	} {
		for _, value := range values {
			edit := fakeas.TokenEdit{Claims: fakeas.Edit{Set: map[string]any{name: value}}}
			g.as.Set(func(k *fakeas.Knobs) { k.LoginIDToken = edit })
			if a := g.browser().open("/x"); a.status != 200 || a.relayed != 1 {
				t.Errorf("%s %v: got status %d, want the app: %s", name, value, a.status, a.title())
			}
		}
	}
}

// TestRequiredClaimsOfOddTypesFailALogin: without them, nobody knows whose token it
// is.
func TestRequiredClaimsOfOddTypesFailALogin(t *testing.T) {
	g := newRig(t)
	for name, values := range map[string][]any{
		"iss":   {nil, 7},
		"sub":   {nil, 7, []string{"alice"}},
		"aud":   {nil, 7, []any{"app", 7}},
		"exp":   {nil, "9999999999"},
		"iat":   {nil, "1700000000"},
		"nonce": {nil, 7},
	} {
		for _, value := range values {
			edit := fakeas.TokenEdit{Claims: fakeas.Edit{Set: map[string]any{name: value}}}
			g.as.Set(func(k *fakeas.Knobs) { k.LoginIDToken = edit })
			if a := g.browser().open("/x"); a.status != 502 || a.relayed != 0 {
				t.Errorf("%s %v: got status %d, want 502: %s", name, value, a.status, a.title())
			}
		}
	}
}

// TestServersThatDeviateCompleteLogins: a login, a refresh and a request with its
// token.
func TestServersThatDeviateCompleteLogins(t *testing.T) {
	groups := make([]string, 900)
	for i := range groups {
		groups[i] = fmt.Sprintf("%08d-0000-4000-8000-000000000000", i)
	}
	for name, knob := range map[string]func(*fakeas.Knobs){
		"keys without kid": func(k *fakeas.Knobs) { k.KeysWithoutID = true },
		"keys without kid, beside others": func(k *fakeas.Knobs) {
			k.KeysWithoutID, k.ExtraKeys = true, fakeas.OddKeys("odd")
		},
		"RSA key without kid":           func(k *fakeas.Knobs) { k.KeysWithoutID, k.SigningAlg = true, "RS256" },
		"forms":                         func(k *fakeas.Knobs) { k.FormAnswers = true },
		"forms, and lifetimes as texts": func(k *fakeas.Knobs) { k.FormAnswers, k.LoginAnswer.Set = true, map[string]any{"expires_in": "300"} },
		"900 groups": func(k *fakeas.Knobs) {
			edit := fakeas.TokenEdit{Claims: fakeas.Edit{Set: map[string]any{"groups": groups}}}
			k.LoginIDToken, k.RefreshIDToken = edit, edit
		},
	} {
		t.Run(name, func(t *testing.T) {
			as := startAuthServer(t)
			as.Set(knob)
			g := newRigAt(t, as, refreshAlways)
			g.loggedIn() // the page after the login waits for a refresh
			if n := as.Stats().Granted[fakeas.GrantRefresh]; n != 1 {
				t.Errorf("got %d refreshes, want 1", n)
			}
			if text := g.log.text(); strings.Contains(text, `"level":"warn"`) || strings.Contains(text, `"level":"error"`) {
				t.Errorf("got log %s, want no warning", text)
			}
		})
	}
}

// refreshAlways makes each request refresh its token.
func refreshAlways(s *setup) {
	s.handler.RefreshIfOlder = []AgeLimit{{Match: func(*http.Request) bool { return true }}}
}

// TestRefusedRefreshAsAFormEndsTheSession, as one in JSON does.
func TestRefusedRefreshAsAFormEndsTheSession(t *testing.T) {
	as := startAuthServer(t)
	as.Set(func(k *fakeas.Knobs) { k.FormAnswers = true })
	g := newRigAt(t, as, refreshAlways)
	b := g.loggedIn()
	for _, token := range as.Tokens() {
		as.Revoke(token.Value)
	}
	if a := b.fetch("GET", "/after"); a.status != 401 {
		t.Errorf("got status %d, want 401", a.status)
	}
}

// TestTooLargeIDTokenFailsALoginWithTheReason: nobody finds it without.
func TestTooLargeIDTokenFailsALoginWithTheReason(t *testing.T) {
	g := newRig(t)
	for _, size := range []int{50 << 10, 100 << 10, 500 << 10} {
		edit := fakeas.TokenEdit{Claims: fakeas.Edit{Set: map[string]any{"x": strings.Repeat("x", size)}}}
		g.as.Set(func(k *fakeas.Knobs) { k.LoginIDToken = edit })
		if a := g.browser().open("/x"); a.status != 502 || len(g.log.lines("the token is larger than 65536 bytes")) == 0 {
			t.Errorf("%d bytes: got status %d, log %s, want 502 and the reason", size, a.status, g.log.text())
		}
	}
}

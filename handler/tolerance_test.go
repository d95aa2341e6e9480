package handler

import (
	"encoding/json"
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

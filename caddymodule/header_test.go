package caddymodule

import (
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// The value of the header option may have other placeholders. Placeholders inside the
// token are not expanded.
func TestHeaderOptionExpandsNothingInToken(t *testing.T) {
	t.Setenv("CANARY", "EXPANDED")
	for _, tc := range []struct {
		name, option, token string
		header              string
		want                string
	}{
		{"plain", "header X-Access-Token {token}", "", "X-Access-Token", "<token>"},
		{"around the token", `header X-Token "t={token}; u={http.auth.user.id}; p={path}"`, "", "X-Token", "t=<token>; u=alice; p=/page"},
		{"twice", `header X-Token "{token} {token}"`, "", "X-Token", "<token> <token>"},
		{"unknown placeholder", `header X-Token "{token}{http.request.header.X-Nothing}"`, "", "X-Token", "<token>"},
		{"placeholder in the token", "header X-Token {token}", "AT_{env.CANARY}", "X-Token", "AT_{env.CANARY}"},
		{"placeholder in the token, default header", "", "AT_{env.CANARY}", "Authorization", "Bearer AT_{env.CANARY}"},
		{"{token} in the token", `header X-Token "{token}"`, "AT_{token}", "X-Token", "AT_{token}"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			if tc.token != "" {
				w.as.Set(func(k *fakeas.Knobs) {
					k.LoginAnswer.Set = map[string]any{"access_token": tc.token}
					k.LoginIDToken.Claims.Omit = []string{"at_hash"}
				})
			}
			w.load(site(tc.option, ""))
			b := newBrowser(t, w.origin)
			b.header.Set("X-Token", "forged")
			b.header.Set("X-Access-Token", "forged")
			b.header.Set("Authorization", "Bearer forged")
			r := b.login("/page").echo(t)
			want := tc.want
			for _, issued := range w.as.Tokens() {
				if issued.Kind == fakeas.KindAccess {
					want = strings.ReplaceAll(want, "<token>", issued.Value)
				}
			}
			if got := strings.Join(r.Values(tc.header), " | "); got != want {
				t.Errorf("got %s %q, want %q", tc.header, got, want)
			}
			if got := r.Values("Authorization"); tc.header != "Authorization" && got != nil {
				t.Errorf("got Authorization %q at the app, want none", got)
			}
		})
	}
}

package handler

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// TestOtherAccountLinkUsesAPromptThatTheServerKnows: an unknown one is ignored, so
// that the user gets the same account again, or refused.
func TestOtherAccountLinkUsesAPromptThatTheServerKnows(t *testing.T) {
	link := regexp.MustCompile(`href="([^"]*)">Use another account<`)
	for _, tt := range []struct {
		name       string
		supported  any    // prompt_values_supported; nil: not there
		configured string // authorize_param prompt
		sent       string // to the server
	}{
		{"not listed at all", nil, "", "login"},
		{"listed", []string{"none", "login", "consent", "select_account"}, "", "select_account"},
		{"others listed", []string{"none", "login", "consent"}, "", "login"},
		{"empty list", []string{}, "", "login"},
		{"no list", "select_account", "", "login"},
		{"list of other types", []any{"select_account", 7}, "", "login"},
		{"in other letters", []string{"SELECT_ACCOUNT"}, "", "login"},
		{"configured", nil, "consent select_account", "consent select_account"},
		{"login configured", []string{"select_account"}, "login", "login"},
		{"consent configured", nil, "consent", "login"},
		{"none configured", nil, "none", "login"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			as := startAuthServer(t)
			if tt.supported != nil {
				as.Set(func(k *fakeas.Knobs) { k.Metadata.Set = map[string]any{"prompt_values_supported": tt.supported} })
			}
			g := newRigAt(t, as, func(s *setup) {
				s.handler.Require = []Requirement{{"email", []string{"bob@example.test"}}}
				if tt.configured != "" {
					s.oauth.AuthorizeParams = []oauth.Param{{Name: "prompt", Value: tt.configured}}
				}
			})
			b := g.browser()
			a := b.open("/wanted?x=1")
			m := link.FindStringSubmatch(a.body)
			if a.status != 403 || m == nil {
				t.Fatalf("got status %d: %s, want 403 with a link", a.status, a.body)
			}
			at, err := url.Parse(b.start(html.UnescapeString(m[1])))
			if err != nil {
				t.Fatal(err)
			}
			if got := at.Query()["prompt"]; len(got) != 1 || got[0] != tt.sent {
				t.Errorf("got prompt %q, want %q", got, tt.sent)
			}
		})
	}
}

// TestRefusedUserCanSignOutAtTheServerFirst, and then log in with another account.
func TestRefusedUserCanSignOutAtTheServerFirst(t *testing.T) {
	g := newRig(t, func(s *setup) { s.handler.Require = []Requirement{{"email", []string{"bob@example.test"}}} })
	b := g.browser()
	if a := b.open("/wanted"); a.status != 403 || !strings.Contains(a.body, `<form method="post" action="/oauth2/logout"><button>Sign out<`) {
		t.Fatalf("got status %d: %s, want 403 with a button to sign out", a.status, a.body)
	}
	a := b.send(g.request(http.MethodPost, "/oauth2/logout", formPost...), false)
	if !strings.HasPrefix(a.location(), g.as.URL+"/end_session?") || !strings.Contains(a.location(), "id_token_hint=") {
		t.Errorf("got Location %s, want the logout of the server", a.location())
	}
	a = b.walk(a.location(), "same-origin", nil)
	if a.status != 200 || !strings.Contains(a.body, "Sign in again") {
		t.Errorf("after the logout: got status %d: %s, want a link to the login", a.status, a.body)
	}
}

// TestRefusedSilentLoginIsNotRestarted if the configuration asks for silent logins
// only: the server would refuse each of them.
func TestRefusedSilentLoginIsNotRestarted(t *testing.T) {
	for _, tt := range []struct {
		prompt, error string
		logins        int
	}{
		{"none", "login_required", 1},
		{"none", "interaction_required", 1},
		{"none", "consent_required", 1},
		{"none", "account_selection_required", 1},
		{" none ", "login_required", 1},
		{"none", "temporarily_unavailable", 3},
		{"consent", "login_required", 3},
		{"nonexistent", "login_required", 3},
	} {
		t.Run(tt.prompt+", "+tt.error, func(t *testing.T) {
			g := newRig(t, func(s *setup) { s.oauth.AuthorizeParams = []oauth.Param{{Name: "prompt", Value: tt.prompt}} })
			g.as.Fail(fakeas.OAuthError(tt.error).At(fakeas.EndpointAuthorize).Repeat(-1))
			b := g.browser()
			wantLoginLink(t, b.open("/wanted"), 502, "login_failed")
			if n := g.as.Stats().Requests[fakeas.EndpointAuthorize]; n != tt.logins {
				t.Errorf("got %d visits to the server, want %d", n, tt.logins)
			}
			g.as.ClearFaults()
			b.mustReach("/wanted")
		})
	}
}

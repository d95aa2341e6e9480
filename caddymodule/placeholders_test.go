package caddymodule

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// Claims reach the app through placeholders. They are empty without a session, and no
// header of the client changes them.
func TestPlaceholdersHoldVerifiedClaims(t *testing.T) {
	w := newWorld(t)
	w.as.SetUser(fakeas.User{Name: "alice", Subject: "user-1", Claims: map[string]any{
		"email": "alice@example.test", "groups": []string{"a", "b"}, "level": 3, "address": map[string]any{"country": "NO"},
		"split": "x\r\nX-Admin: yes", "forged": []string{"x,admins", "b", ",", "c"},
	}})
	w.load(`http://localhost:{$PORT} {
		log
		oauth_session {
			` + loginOptions + `
			optional /public*
		}
		reverse_proxy {$APP} {
			header_up X-User {http.auth.user.id}
			header_up X-Email {http.auth.user.email}
			header_up X-Groups {http.auth.user.groups}
			header_up X-Forged {http.auth.user.forged}
			header_up X-Level {http.auth.user.level}
			header_up X-Country {http.auth.user.address.country}
			header_up X-Split {http.auth.user.split}
			header_up X-Missing {http.auth.user.nothing}
		}
	}`)
	names := []string{"X-User", "X-Email", "X-Groups", "X-Forged", "X-Level", "X-Country", "X-Split", "X-Missing", "X-Admin"}
	seen := func(a answer) map[string]string {
		r := a.echo(t)
		got := map[string]string{}
		for _, name := range names {
			got[name] = strings.Join(r.Values(name), "|")
		}
		return got
	}
	want := map[string]string{
		"X-User": "user-1", "X-Email": "alice@example.test", "X-Groups": "a,b", "X-Forged": "b,c", "X-Level": "3", "X-Country": "NO",
		"X-Split": "", "X-Missing": "", "X-Admin": "",
	}
	empty := map[string]string{}
	for _, name := range names {
		empty[name] = ""
	}

	b := newBrowser(t, w.origin)
	b.header.Set("X-Email", "root@example.test")
	if diff := cmp.Diff(want, seen(b.login("/private"))); diff != "" {
		t.Errorf("signed in (-want +got):\n%s", diff)
	}
	if got := captured.wait(t, "handled request", `"uri":"/private"`, `"status":200`, `"user_id":"user-1"`); got == "" {
		t.Error("got no access log line with the user")
	}
	anonymous := newBrowser(t, w.origin)
	anonymous.header.Set("X-Email", "root@example.test")
	if diff := cmp.Diff(empty, seen(anonymous.open("/public"))); diff != "" {
		t.Errorf("without a session (-want +got):\n%s", diff)
	}
}

// Each form of the option admits anonymous requests on the matching paths only.
func TestOptionalAdmitsAnonymousRequestsWhereConfigured(t *testing.T) {
	for name, tc := range map[string]struct {
		lines  string
		public []string
		closed []string
	}{
		"none":  {"", nil, []string{"/", "/public"}},
		"all":   {"optional", []string{"/", "/public"}, nil},
		"star":  {"optional *", []string{"/", "/public"}, nil},
		"path":  {"optional /public*", []string{"/public", "/public/x"}, []string{"/", "/private"}},
		"named": {"optional @public", []string{"/", "/public"}, []string{"/private"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.load("http://localhost:{$PORT} {\n@public not path /private*\noauth_session {\n" + loginOptions + "\n" + tc.lines + "\n}\nreverse_proxy {$APP}\n}")
			b := newBrowser(t, w.origin)
			b.header.Set("Authorization", "Bearer forged")
			for _, path := range tc.public {
				if got := b.open(path).echo(t).Values("Authorization"); got != nil {
					t.Errorf("%s: got Authorization %q at the app, want none", path, got)
				}
			}
			for _, path := range tc.closed {
				if a := b.open(path); a.status != http.StatusFound {
					t.Errorf("%s: got status %d, want a login", path, a.status)
				}
			}
			b.login("/oauth2/login")
			for _, path := range tc.public {
				if b.open(path).echo(t).Bearer() == "" {
					t.Errorf("%s with a session: got no token at the app", path)
				}
			}
		})
	}
}

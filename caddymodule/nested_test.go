package caddymodule

import (
	"net/http"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// nestedSite is a site with a directive for all of it, and one for an area in it.
func nestedSite(outer, area, inner string) string {
	return "http://localhost:{$PORT} {\noauth_session {\n" + loginOptions + "\n" + outer + "\n}\n" + area +
		" {\noauth_session {\n" + loginOptions + "\n" + inner + "\n}\nreverse_proxy {$APP}\n}\nreverse_proxy {$APP}\n}\n"
}

// An area within the site has a directive of the same login. It sees the session of the
// outer directive, and adds what it requires.
func TestNestedDirectivesOfOneLogin(t *testing.T) {
	for name, tc := range map[string]struct {
		outer, area, inner string
		status             int // at /admin/x
	}{
		"handle_path, met":          {"", "handle_path /admin/*", "require sub alice", 200},
		"handle_path, not met":      {"", "handle_path /admin/*", "require sub nobody", 403},
		"endpoints of its own":      {"", "handle_path /admin/*", "path_prefix /admin/oauth2\nrequire sub alice", 200},
		"endpoints, not met":        {"", "handle_path /admin/*", "path_prefix /admin/oauth2\nrequire sub nobody", 403},
		"handle":                    {"", "handle /admin/*", "require sub alice", 200},
		"route, with encode around": {"", "route /admin/*", "require sub alice\npath_prefix /admin/oauth2", 200},
		"all is optional outside":   {"optional", "handle /admin/*", "require sub alice", 200},
		"optional, own endpoints":   {"optional", "handle /admin/*", "path_prefix /admin/oauth2", 200},
		"a part is optional":        {"optional /admin/*", "handle /admin/*", "path_prefix /admin/oauth2\nrequire sub nobody", 403},
		"optional inside":           {"", "handle /admin/*", "optional", 200},
		"old tokens":                {"", "handle /admin/*", "refresh_if_older * 0s", 200},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.as.AddClient(fakeas.Client{ID: "app", Secret: testSecret, RedirectURIs: []string{w.origin + "/oauth2/callback", w.origin + "/admin/oauth2/callback"}})
			w.load(nestedSite(tc.outer, tc.area, tc.inner))
			b := newBrowser(t, w.origin)
			// Once from outside, and once with the session.
			for range 2 {
				a := b.visit("/admin/x")
				if a.status != tc.status {
					t.Fatalf("got status %d, want %d:\n%s", a.status, tc.status, a.body)
				}
				if a.status == http.StatusOK && (a.echo(t).Bearer() == "" || a.echo(t).Values("Cookie") != nil) {
					t.Errorf("got token %q and cookies %q, want a token and no cookie", a.echo(t).Bearer(), a.echo(t).Values("Cookie"))
				}
			}
			if a := b.login("/y"); a.echo(t).Bearer() == "" && tc.outer == "" {
				t.Error("beside the area: got no token")
			}
		})
	}
}

// The endpoints of an inner directive work through the outer one.
func TestEndpointsOfANestedDirective(t *testing.T) {
	w := newWorld(t)
	w.as.AddClient(fakeas.Client{ID: "app", Secret: testSecret, RedirectURIs: []string{w.origin + "/oauth2/callback", w.origin + "/admin/oauth2/callback"}})
	w.load(nestedSite("", "handle_path /admin/*", "path_prefix /admin/oauth2"))
	b := newBrowser(t, w.origin)
	b.login("/admin/oauth2/login?return_to=/admin/x")
	if a := b.fetch("/admin/oauth2/session"); !strings.Contains(a.body, `"authenticated":true`) {
		t.Errorf("got %s, want an authenticated session", a.body)
	}
	before := b.cookies["__Host-oauth_session"]
	b.login("/admin/oauth2/login?return_to=/admin/x&prompt=login")
	if b.cookies["__Host-oauth_session"] == before {
		t.Error("got the former session after another login, want a new one")
	}
}

// With two logins, no request could ever have both sessions.
func TestNestedDirectivesOfTwoLoginsDoNotRedirectForEver(t *testing.T) {
	w := newWorld(t)
	w.as.AddClient(fakeas.Client{ID: "b", Secret: testSecret, RedirectURIs: []string{w.origin + "/admin/oauth2/callback"}})
	inner := "path_prefix /admin/oauth2\ncookie {\nname __Host-b\n}"
	text := strings.Replace(nestedSite("", "handle /admin/*", inner), "oauth_session {", "@site path /*\noauth_session @site {", 1)
	i := strings.LastIndex(text, "client_id app")
	w.load(text[:i] + "client_id b" + text[i+len("client_id app"):])
	b := newBrowser(t, w.origin)
	if a := b.visit("/admin/x"); a.status != http.StatusInternalServerError || !strings.Contains(a.body, "two different sign-ins") {
		t.Errorf("got status %d and page %s, want a page with the reason", a.status, a.body)
	}
	captured.wait(t, "nested_logins", "/admin/oauth2", "__Host-b", "__Host-oauth_session")
}

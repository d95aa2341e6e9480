package caddymodule

import (
	"net/http"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// wantLoopPage fails the test unless a walk ends at the loop page.
func wantLoopPage(t *testing.T, a answer, cause string) {
	t.Helper()
	if a.status != http.StatusInternalServerError || !strings.Contains(a.body, "login_loop") {
		t.Errorf("got status %d at %s, want the page of login_loop:\n%s", a.status, a.url, a.body)
	}
	captured.wait(t, `"code":"login_loop"`, cause)
	if lines := captured.lines("login_loop", `"level":"error"`); len(lines) != 1 {
		t.Errorf("got log lines %q, want one", lines)
	}
}

// The browser of these tests follows at most ten redirects.
func TestLoopThroughRoutesIsStopped(t *testing.T) {
	for name, tc := range map[string]struct{ text, cause string }{
		"redir behind the directive":      {site("", "handle /x {\nredir * /oauth2/login?return_to=/x\n}"), "after each one the app or a directive"},
		"an app that redirects":           {site("", "handle /x {\nheader Location /oauth2/login?return_to=/x\nrespond 302\n}"), "after each one the app or a directive"},
		"an error route, forbidden":       {site("require sub nobody", "handle_errors {\nredir * /oauth2/login?return_to=/x\n}"), "(handle_errors)"},
		"an error route, app down":        {site("", "handle_errors {\nredir * /oauth2/login?return_to={uri}\n}\nhandle /x {\nreverse_proxy 127.0.0.1:1\n}"), "(handle_errors)"},
		"an error in the inner directive": {site("", "handle /x {\noauth_session {\n"+loginOptions+"\nrequire sub nobody\n}\n}\nhandle_errors {\nredir * /oauth2/login?return_to=/x\n}"), "(handle_errors)"},
		"a page without a session":        {strings.Replace(site("", "handle /x {\nredir * /oauth2/login?return_to=/x\n}"), "oauth_session {", "@site not path /x\noauth_session @site {", 1), "outside of the matcher"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.load(tc.text)
			wantLoopPage(t, newBrowser(t, w.origin).visit("/x"), tc.cause)
		})
	}
}

// Error routes that show a page, or redirect to one, end no count.
func TestRefusedAccountsAreNotALoop(t *testing.T) {
	for name, route := range map[string]string{
		"the module's page": "",
		"a page":            "handle_errors {\nrespond \"refused {err.status_code}\" 403\n}",
		"another redirect":  "handle_errors {\nredir * https://elsewhere.test/\n}",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.load(site("require sub nobody", route))
			b := newBrowser(t, w.origin)
			for range 5 {
				a := b.open("/oauth2/login?prompt=login&return_to=/x")
				a = b.open(a.header.Get("Location")) // at the authorization server
				a = b.open(a.header.Get("Location")) // the callback
				if a = b.open(a.header.Get("Location")); a.status != http.StatusForbidden && a.status != http.StatusFound {
					t.Errorf("got status %d at %s, want the answer to /x", a.status, a.url)
				}
			}
			if lines := captured.lines("login_loop"); len(lines) > 0 {
				t.Errorf("got log lines %q, want none", lines)
			}
		})
	}
}

// A Caddy behind another one has the same host, and its own login. Its callback reaches
// the first one.
func TestLoginBehindAnotherCaddyEndsAtAPage(t *testing.T) {
	for name, client := range map[string]string{"another client": "second", "the same client": "app"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.as.AddClient(fakeas.Client{ID: "second", Secret: testSecret, RedirectURIs: []string{w.origin + "/oauth2/callback"}})
			t.Setenv("BEHIND", freePort(t))
			w.load("http://localhost:{$PORT} {\noauth_session {\n" + loginOptions + "\n}\nreverse_proxy 127.0.0.1:{$BEHIND}\n}\n" +
				"http://:{$BEHIND} {\noauth_session {\n" + strings.Replace(loginOptions, "client_id app", "client_id "+client, 1) + "\n}\nreverse_proxy {$APP}\n}\n")
			wantLoopPage(t, newBrowser(t, w.origin).visit("/x"), "a second login behind oauth_session")
		})
	}
}

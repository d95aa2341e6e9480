package handler

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// The callback of a directive in `handle /app1/*` goes to whatever serves /oauth2/*. The
// browser comes back without a session, and with the login cookie.
func TestMissingCallbackIsHintedAt(t *testing.T) {
	as := startAuthServer(t)
	hint := []string{"no callback has reached", "path_prefix", "handle", appOrigin + "/oauth2/callback"}
	again := func(b *browser) { b.start("/app1/"); b.start("/app1/") }
	for name, tt := range map[string]struct {
		visit func(*browser)
		want  int
	}{
		"the page again": {again, 1},
		"ten times": {func(b *browser) {
			for range 10 {
				b.start("/app1/x?y=1")
			}
		}, 1},
		"login again": {func(b *browser) {
			b.start("/oauth2/login?return_to=/app1/")
			b.start("/oauth2/login?return_to=/app1/")
		}, 1},
		"after a minute": {func(b *browser) { again(b); time.Sleep(logInterval); again(b) }, 2},

		"the first login":   {func(b *browser) { b.start("/app1/") }, 0},
		"tabs":              {func(b *browser) { b.start("/app1/a"); b.start("/app1/b"); b.start("/app1/c") }, 0},
		"two browsers":      {func(b *browser) { b.start("/app1/"); b.rig.browser().start("/app1/") }, 0},
		"given up for long": {func(b *browser) { b.start("/app1/"); time.Sleep(2 * loginAttemptLifetime); b.start("/app1/") }, 0},
		"a callback came":   {func(b *browser) { b.rig.loggedIn(); again(b) }, 0},
		"a refusal came": {func(b *browser) {
			b.as.Fail(fakeas.OAuthError(accessDenied).At(fakeas.EndpointAuthorize))
			b.open("/app1/")
			again(b)
		}, 0},
		"signed in before": {func(b *browser) {
			b.jar.set([]string{sessionCookie + "=" + seal.NewSecret().Cookie() + "; Path=/; Secure"})
			again(b)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRigAt(t, as, plainOAuth)
				tt.visit(g.browser())
				lines := g.log.lines(hint[0])
				if len(lines) != tt.want {
					t.Fatalf("got log lines %q, want %d", lines, tt.want)
				}
				for _, line := range lines {
					for _, text := range hint {
						if !strings.Contains(line, text) || !strings.Contains(line, `"level":"warn"`) {
							t.Errorf("got %s, want a warning with %q", line, text)
						}
					}
				}
			})
		})
	}
}

// A directive whose path_prefix is another one gets the callback of a neighbour as an
// ordinary page. Its log says whose configuration to check.
func TestCallbackOfAnotherDirectiveIsReported(t *testing.T) {
	g := newRig(t)
	other := newRig(t, func(s *setup) { s.handler.PathPrefix = "/app1/oauth2" })
	b := g.browser()
	callback := b.approve(b.start("/"))
	cookies := b.jar.header(false)[0]
	ask := func(path string, header ...string) *answer {
		return other.get(path, append(slices.Clone(navigation), header...)...)
	}
	wantNewLogin(t, other, ask(callback, "Cookie: "+cookies))
	lines := other.log.lines("as an ordinary page")
	if len(lines) != 1 || !strings.Contains(lines[0], "path_prefix") || !strings.Contains(lines[0], `"path":"/oauth2/callback"`) {
		t.Errorf("got log lines %q, want one with the path and path_prefix", lines)
	}
	for _, secret := range []string{"code=", "state="} {
		if strings.Contains(other.log.text(), secret) {
			t.Errorf("got %q in the log, want no query", secret)
		}
	}
	other.log.reset()
	for _, request := range [][]string{{"/page?state=closed", "Cookie: " + cookies}, {callback}, {"/page?state=", "Cookie: " + cookies}} {
		ask(request[0], request[1:]...)
		if lines := other.log.lines("ordinary page"); lines != nil {
			t.Errorf("%q: got log lines %q, want none", request, lines)
		}
	}
	// The endpoint itself, in another directive with the same path_prefix.
	same := newRig(t)
	same.get(callback, append(slices.Clone(navigation), "Cookie: "+cookies)...)
	if lines := same.log.lines("another oauth_session directive"); len(lines) != 1 || !strings.Contains(lines[0], "path_prefix") {
		t.Errorf("got log lines %q, want one that names path_prefix", lines)
	}
}

// A 404 below path_prefix comes from the Handler, which nobody may expect there.
func TestUnknownEndpointSaysWhatToCheck(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth, func(s *setup) { s.handler.PathPrefix = "/app1/oauth2" })
		for _, path := range []string{"/app1/oauth2/", "/app1/oauth2/unknown", "/app1/oauth2/callback/", "/app1/oauth2/%63allback", "/app1/oauth2/app2/oauth2/callback"} {
			page := g.get(path, navigation...)
			problem := g.get(path, script...).problem(t)
			if page.status != 404 || problem.Status != 404 || problem.Code != "not_found" {
				t.Errorf("%s: got status %d and %+v, want 404", path, page.status, problem)
			}
			for _, text := range []string{"/app1/oauth2", "path_prefix", "handle"} {
				if !strings.Contains(page.body, text) || !strings.Contains(problem.Detail, text) {
					t.Errorf("%s: got page %s and problem %+v, want %q in both", path, page.body, problem, text)
				}
			}
			if lines := g.log.lines("no endpoint has this address"); len(lines) != 1 || !strings.Contains(lines[0], "path_prefix") || !strings.Contains(lines[0], "handle") {
				t.Errorf("%s: got log lines %q, want one a minute", path, lines)
			}
			g.log.reset()
			time.Sleep(logInterval)
		}
	})
}

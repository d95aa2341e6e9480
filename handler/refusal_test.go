package handler

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// stateOf returns the state parameter of an authorization request.
func stateOf(t *testing.T, authorizationURL string) string {
	t.Helper()
	u, err := url.Parse(authorizationURL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("state")
}

// TestBrowserWithoutCookiesIsToldSo after few redirects, however the login began.
func TestBrowserWithoutCookiesIsToldSo(t *testing.T) {
	for name, login := range map[string]func(*browser) *answer{
		"page":           func(b *browser) *answer { return b.open("/wanted") },
		"link":           func(b *browser) *answer { return b.follow("/wanted") },
		"login endpoint": func(b *browser) *answer { return b.open("/oauth2/login?return_to=/wanted") },
		"worker":         func(b *browser) *answer { b.worker = true; return b.open("/wanted") },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			b := g.browser()
			b.jar.refuse = func(string) bool { return true }
			a := login(b)
			wantLoginLink(t, a, 400, "cookies_blocked")
			if !strings.Contains(a.body, "sends no cookies") || !strings.Contains(a.body, "return_to=%2Fwanted") || len(b.hops) > 10 {
				t.Errorf("after %d hops: got page %s, want the cause and a link to the wanted page", len(b.hops), a.body)
			}
			b.jar.refuse = nil
			b.mustReach("/wanted")
		})
	}
}

// TestLostLoginCookieIsNotCalledBlocked: the browser sends other cookies, or the
// cookie had time to expire, or it is the first time.
func TestLostLoginCookieIsNotCalledBlocked(t *testing.T) {
	t.Run("first time", func(t *testing.T) {
		g := newRig(t)
		b := g.browser()
		callback := b.approve(b.start("/wanted"))
		b.jar.cookies = nil
		b.wantAppAt(b.open(callback), "/wanted")
	})
	t.Run("another cookie", func(t *testing.T) {
		g := newRig(t)
		b := g.browser()
		b.jar.set([]string{"theme=dark; Path=/; Secure"})
		b.jar.refuse = func(name string) bool { return strings.HasPrefix(name, loginCookiePrefix) }
		wantLoginLink(t, b.open("/wanted"), 400, "login_expired")
	})
	t.Run("expired", func(t *testing.T) {
		as := startAuthServer(t)
		synctest.Test(t, func(t *testing.T) {
			g := newRigAt(t, as, plainOAuth)
			b := g.browser()
			callback := b.approve(b.start("/wanted"))
			b.jar.cookies = nil
			restarted := b.send(g.request(http.MethodGet, callback, navigation...), true).location()
			time.Sleep(loginAttemptLifetime + time.Second)
			wantLoginLink(t, b.open("/oauth2/callback?code=x&state="+stateOf(t, restarted)), 400, "login_expired")
		})
	})
}

// TestErrorInASecondTabLandsWithASession: the first tab has completed its login, so
// the second one needs none.
func TestErrorInASecondTabLandsWithASession(t *testing.T) {
	for _, code := range []string{"server_error", "invalid_scope", "login_required", "interaction_required", "unknown_to_us", "access_denied"} {
		for _, kind := range []string{"page", "login endpoint"} {
			t.Run(code+", "+kind, func(t *testing.T) {
				g := newRig(t)
				b := g.browser()
				wanted, first := "/second?tab=2", b.start("/first")
				start := map[string]string{"page": wanted, "login endpoint": "/oauth2/login?return_to=" + url.QueryEscape(wanted)}[kind]
				state := stateOf(t, b.start(start))
				b.wantAppAt(b.open(b.approve(first)), "/first")
				session := b.jar.get(sessionCookie)
				g.as.Fail(fakeas.OAuthError(code).At(fakeas.EndpointAuthorize).Repeat(-1))
				a := b.open("/oauth2/callback?error=" + code + "&state=" + state)
				if kind == "page" && code != accessDenied {
					b.wantAppAt(a, wanted)
				} else if a.status < 400 || a.relayed != 0 || !strings.Contains(a.body, "return_to=") {
					t.Errorf("got status %d: %s, want an error page", a.status, a.body)
				}
				if b.jar.get(sessionCookie) != session || len(b.hops) > 10 {
					t.Errorf("got hops %q, want the session kept", b.hops)
				}
				if len(g.log.lines("login refused by the authorization server")) == 0 {
					t.Errorf("got log %s, want the refusal", g.log.text())
				}
			})
		}
	}
}

// TestTenTabsWithAnErrorInOne all land.
func TestTenTabsWithAnErrorInOne(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	wanted, at := startTabs(b, 10)
	b.wantAppAt(b.open(b.approve(at[9])), wanted[9])
	for i := range 9 {
		if i == 4 {
			b.wantAppAt(b.open("/oauth2/callback?error=temporarily_unavailable&state="+stateOf(t, at[i])), wanted[i])
			continue
		}
		b.wantAppAt(b.open(b.approve(at[i])), wanted[i])
	}
}

// TestErrorThatIsNotOfThisSiteLandsNowhere: only a state of this site, or the attempt
// of this browser, names a page.
func TestErrorThatIsNotOfThisSiteLandsNowhere(t *testing.T) {
	g := newRig(t)
	other := newRig(t)
	b := g.loggedIn()
	for _, state := range []string{"", "made-up", "https://evil.test/", stateOf(t, other.browser().start("/theirs"))} {
		a := b.open("/oauth2/callback?error=server_error&state=" + url.QueryEscape(state))
		if a.status != 400 || a.relayed != 0 || a.location() != "" || strings.Contains(a.body, "evil.test") || strings.Contains(a.body, "theirs") {
			t.Errorf("state %.20q: got status %d to %q: %s, want a page", state, a.status, a.location(), a.body)
		}
		if !strings.Contains(a.body, `<a href="/">Continue</a>`) {
			t.Errorf("state %.20q: got page %s, want a link to the site", state, a.body)
		}
	}
}

// TestErrorWithoutStateIsLoggedAndShown once a minute, by its code alone.
func TestErrorWithoutStateIsLoggedAndShown(t *testing.T) {
	for name, query := range map[string]string{
		"unauthorized client": "error=unauthorized_client&error_description=SECRET",
		"denied":              "error=access_denied",
		"hostile":             "error=" + url.QueryEscape("<b>x</b>\n{\"level\":\"forged\"}\x1b[31m") + "&error_description=SECRET",
		"state that is empty": "error=server_error&state=",
		"state of others":     "error=invalid_request&state=made-up",
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			for range 20 {
				a := g.get("/oauth2/callback?"+query, navigation...)
				wantLoginLink(t, a, 400, "login_refused")
				if !strings.Contains(a.body, "refused") || strings.Contains(a.body, "expired") || strings.Contains(a.body, "<b>") {
					t.Fatalf("got page %s, want one that says that the server refused", a.body)
				}
			}
			q, _ := url.ParseQuery(query)
			code, _, _ := strings.Cut(q.Get("error"), "\n")
			lines := g.log.lines("refused a login")
			if len(lines) != 1 || !strings.Contains(lines[0], code) || !strings.Contains(lines[0], `"level":"warn"`) {
				t.Errorf("got log lines %q, want one with %q", lines, code)
			}
			if strings.Contains(g.log.text(), "SECRET") || strings.Contains(g.log.text(), `\u001b`) || strings.Contains(g.log.text(), `</b>\n`) || len(g.log.lines(`"level":"forged"`)) > 0 {
				t.Errorf("got log %s, want the printable code alone", g.log.text())
			}
			if a := g.get("/oauth2/callback?"+query, script...); a.problem(t).Code != "login_refused" {
				t.Errorf("a script: got %s, want login_refused", a.body)
			}
		})
	}
}

// TestRefusalWithoutAttemptIsSaid: the state is known, but the browser has lost the
// attempt. After one restart the page says that the server refused.
func TestRefusalWithoutAttemptIsSaid(t *testing.T) {
	for code, logins := range map[string]int{"invalid_scope": 2, "server_error": 2, "access_denied": 1} {
		t.Run(code, func(t *testing.T) {
			g := newRig(t)
			g.as.Fail(fakeas.OAuthError(code).At(fakeas.EndpointAuthorize).Repeat(-1))
			b := g.browser()
			b.jar.refuse = func(string) bool { return true }
			wantLoginLink(t, b.open("/wanted"), 400, "login_refused")
			if n := g.as.Stats().Requests[fakeas.EndpointAuthorize]; n != logins {
				t.Errorf("got %d logins, want %d", n, logins)
			}
			if lines := g.log.lines("refused a login"); len(lines) != 1 || !strings.Contains(lines[0], code) {
				t.Errorf("got log lines %q, want one with %s", lines, code)
			}
			if !slices.ContainsFunc(g.answers, func(a *answer) bool { return strings.Contains(a.body, "return_to=%2Fwanted") }) {
				t.Error("got no link to the wanted page, want one")
			}
		})
	}
}

// TestRepeatedRefusalIsAuditedOnce: a browser that sends one callback again and again does
// not fill the audit trail and the log.
func TestRepeatedRefusalIsAuditedOnce(t *testing.T) {
	var h Handler
	one, other := callback{cookie: &http.Cookie{Value: "attempt1"}}, callback{cookie: &http.Cookie{Value: "attempt2"}}
	got := 0
	for range 50 {
		for _, cb := range []callback{one, other} {
			if h.refusedOnce(cb, "access_denied") != nil {
				got++
			}
		}
	}
	if got != 2 {
		t.Errorf("got %d audit events, want one for each attempt", got)
	}
	for i := range 1000 {
		if h.refusedOnce(callback{cookie: &http.Cookie{Value: fmt.Sprint("flood", i)}}, "access_denied") != nil {
			got++
		}
	}
	if got > maxCauses+2 {
		t.Errorf("got %d audit events in a minute, want at most %d", got, maxCauses+2)
	}
}

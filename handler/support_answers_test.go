package handler

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// answerScene is a session and the answer to its refresh.
type answerScene struct {
	*rig
	gate   *gate
	cookie string
	first  string    // access token
	tokens [3]string // refresh tokens: the first is at 1
}

// inAnswerBubble logs in, and then makes the server give an answer to refreshes.
func inAnswerBubble(t *testing.T, tt refreshAnswer, f func(*testing.T, answerScene)) {
	as := startAuthServer(t)
	gate := startGate(t, as)
	synctest.Test(t, func(t *testing.T) {
		s := answerScene{rig: newRigAt(t, as, gate.token), gate: gate}
		s.cookie = s.loggedIn().jar.get(sessionCookie).Value
		s.first, s.tokens[1] = as.newest(fakeas.KindAccess), as.newest(fakeas.KindRefresh)
		tt.answer(as, gate)
		f(t, s)
	})
}

func (s answerScene) get(target string, header []string) *answer {
	s.t.Helper()
	return s.rig.get(target, with(s.cookie, header)...)
}

// heal makes the server answer normally.
func (s answerScene) heal() {
	s.as.ClearFaults()
	s.as.Set(func(k *fakeas.Knobs) { k.RefreshAnswer = fakeas.Edit{} })
}

// wantApp checks that the app answered a request with a certain token, and that the
// answer sets no cookie.
func (s answerScene) wantApp(t *testing.T, a *answer, token string) {
	t.Helper()
	if a.status != 200 || a.relayed != 1 || a.header["Set-Cookie"] != nil {
		t.Fatalf("%s: got status %d, want 200, %d calls of the app, cookies %q: %.200s", a.uri, a.status, a.relayed, a.header["Set-Cookie"], a.body)
	}
	if got := s.app.last().Get("Authorization"); got != "Bearer "+token {
		t.Errorf("%s: the app got %.20q, want %.20q", a.uri, got, "Bearer "+token)
	}
}

// wantLogin checks that a navigation is redirected to the login, and that any other
// request gets its URL.
func (s answerScene) wantLogin(t *testing.T, a *answer, kind string) {
	t.Helper()
	if a.relayed != 0 {
		t.Errorf("%s: got a call of the app, want none", a.uri)
	}
	if kind == "navigation" {
		if a.status != http.StatusFound || !strings.HasPrefix(a.location(), s.as.URL+"/authorize?") {
			t.Errorf("%s: status %d to %q, want the login", a.uri, a.status, a.location())
		}
		return
	}
	if p := a.problem(t); a.status != 401 || p.Code != "login_required" || p.LoginURL != "/oauth2/login" {
		t.Errorf("%s: got status %d, want 401, %+v", a.uri, a.status, p)
	}
}

// wantTrouble checks a temporary error. No login begins, and no cookie is set.
func (s answerScene) wantTrouble(t *testing.T, a *answer, tt refreshAnswer, kind string) {
	t.Helper()
	code := map[int]string{502: "misconfigured", 503: "temporarily_unavailable"}[tt.status]
	wait, err := strconv.Atoi(a.header.Get("Retry-After"))
	if a.status != tt.status || a.relayed != 0 || a.location() != "" || a.header["Set-Cookie"] != nil || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: got status %d, want %d, %d calls of the app, %v", a.uri, a.status, tt.status, a.relayed, a.header)
	}
	if err != nil || wait < tt.wait || wait > tt.wait*5/4+1 {
		t.Errorf("%s: Retry-After %q, want %d, or a quarter and one more", a.uri, a.header.Get("Retry-After"), tt.wait)
	}
	if kind == "navigation" {
		if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || !strings.Contains(a.body, code) {
			t.Errorf("%s: got %s: %s, want a page with %s", a.uri, a.header.Get("Content-Type"), a.body, code)
		}
		// Only an outage ends by itself.
		if reloads := strings.Contains(a.body, fmt.Sprintf(`content="%d"`, wait)); reloads != (tt.status == 503) {
			t.Errorf("%s: status %d: got a page that reloads: %v, want it for 503 only", a.uri, a.status, reloads)
		}
		return
	}
	if p := a.problem(t); p.Code != code || p.LoginURL != "" {
		t.Errorf("%s: got problem %+v, want the code and no login URL", a.uri, p)
	}
}

// wantSession checks the answer of the session endpoint.
func (s answerScene) wantSession(t *testing.T, alive bool) {
	t.Helper()
	a := s.get("/oauth2/session", script)
	if got := strings.Contains(a.body, `"authenticated":true`); got != alive {
		t.Errorf("authenticated is %v, want %v: %s", got, alive, a.body)
	}
}

func (s answerScene) wantCalls(t *testing.T, n int) {
	t.Helper()
	if got := s.as.refreshes(); got != n {
		t.Fatalf("%d refresh requests, want %d", got, n)
	}
}

// wantNext checks which refresh token the next refresh sends, and its effect.
func (s answerScene) wantNext(t *testing.T, tt refreshAnswer, kind string) {
	t.Helper()
	if tt.next == 0 {
		return
	}
	if tt.next == 2 {
		s.tokens[2] = s.as.newest(fakeas.KindRefresh)
	}
	a := s.get("/wanted", kinds[kind])
	s.wantCalls(t, tt.calls+1)
	if got := s.as.lastPresented(); got != s.tokens[tt.next] || tt.next == 2 && got == s.tokens[1] {
		t.Errorf("next refresh: got refresh token %d, want that of the table", slices.Index(s.tokens[:], got))
	}
	if tt.late {
		s.wantLogin(t, a, kind)
		return
	}
	s.wantApp(t, a, s.as.newest(fakeas.KindAccess))
}

// sessionCookieLine returns the Set-Cookie line of the session cookie, if any.
func sessionCookieLine(a *answer) string {
	for _, line := range a.header["Set-Cookie"] {
		if strings.HasPrefix(line, sessionCookie+"=") {
			return line
		}
	}
	return ""
}

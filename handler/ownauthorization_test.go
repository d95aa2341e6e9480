package handler

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// An app with a login of its own does not get the client's Authorization header. The log
// says so once a minute, with both remedies and without the header's value.
func TestRemovedAuthorizationIsLoggedOnceAMinute(t *testing.T) {
	for name, tt := range map[string]struct{ sent, scheme string }{
		"Basic":                {"Basic bm9kZTpyZWQtc2VjcmV0", "Basic"},
		"Bearer of Node-RED":   {"Bearer NR-SECRET-cafe", "Bearer"},
		"npm in lower case":    {"bearer NPM-SECRET-cafe", "Bearer"},
		"a token alone":        {"SECRET-cafe", "unknown"},
		"a scheme of the app":  {"Secret-Scheme SECRET-cafe", "unknown"},
		"a scheme and no more": {"Negotiate", "Negotiate"},
		"empty":                {"", "unknown"},
		"a forged line":        {"Basic\t{\"level\":\"error\"} SECRET-cafe", "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			as := startAuthServer(t)
			synctest.Test(t, func(t *testing.T) {
				g := newRigAt(t, as, plainOAuth, func(s *setup) {
					s.handler.Optional = func(r *http.Request) bool { return r.URL.Path == "/optional" }
				})
				lines := func() []string { return g.log.lines("authorization keep") }
				anonymous := append(slices.Clone(script), "Authorization: "+tt.sent)
				session := with(g.session(""), anonymous)
				for _, request := range []func(){
					func() { g.get("/optional", anonymous...) }, func() { g.get("/", session...) }, func() { g.get("/optional", session...) },
				} {
					request()
					request()
					got := lines()
					if len(got) != 1 {
						t.Fatalf("got log lines %q, want one", got)
					}
					if !strings.Contains(got[0], "header <name> {token}") || !strings.Contains(got[0], `"scheme":"`+tt.scheme+`"`) {
						t.Errorf("got %s, want both remedies and the scheme %s", got[0], tt.scheme)
					}
					if strings.Contains(strings.ToLower(got[0]), "secret") || strings.Contains(got[0], "bm9kZ") {
						t.Errorf("got %s, want no value of the header", got[0])
					}
					time.Sleep(logInterval)
					g.log.reset()
				}
			})
		})
	}
}

// Where nothing of the client's is lost, there is nothing to log.
func TestNoAuthorizationIsReportedWithoutNeed(t *testing.T) {
	for name, tt := range map[string]struct {
		policy AuthorizationPolicy
		sent   []string
	}{
		"no header": {ReplaceAuthorization, nil},
		"keep":      {KeepAuthorization, []string{"Authorization: Basic eDp5"}},
		"reject":    {RejectAuthorization, []string{"Authorization: Basic eDp5"}},
	} {
		g := newRig(t, plainOAuth, optional, func(s *setup) { s.handler.Authorization = tt.policy })
		header := append(slices.Clone(script), tt.sent...)
		g.get("/", header...)
		g.get("/", with(g.session(""), header)...)
		if lines := g.log.lines("authorization keep"); lines != nil {
			t.Errorf("%s: got log lines %q, want none", name, lines)
		}
	}
	// A request that is answered here loses nothing either.
	g := newRig(t, plainOAuth)
	if a := g.get("/", append(slices.Clone(script), "Authorization: Basic eDp5")...); a.status != 401 {
		t.Errorf("got status %d, want 401", a.status)
	}
	if lines := g.log.lines("authorization keep"); lines != nil {
		t.Errorf("got log lines %q, want none", lines)
	}
}

// The inner one of two nested Handlers removes the token that the outer one has set. That
// is no header of the client.
func TestTokenOfAnOuterHandlerIsNotReportedAsTheClients(t *testing.T) {
	for _, retry := range []bool{false, true} {
		g := newRig(t, plainOAuth, func(s *setup) { s.handler.RetryUnauthorized = retry })
		config := g.handler.Config
		config.HeaderValue = func(_ *http.Request, token string) string { return "Token " + token }
		outer, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		inner, app := g.handler, new(app)
		g.handler = outer
		g.app.answer = func(w http.ResponseWriter, r *http.Request) error { return inner.ServeHTTP(w, r, NextFunc(app.serve)) }
		for _, header := range [][]string{nil, {"Authorization: Basic eDp5"}} {
			g.log.reset()
			a := g.get("/", with(g.session(""), append(slices.Clone(script), header...))...)
			if a.status != 200 || app.last().Get("Authorization") != "Bearer AT_made_by_hand" {
				t.Errorf("got status %d and %q at the app, want the token", a.status, app.last()["Authorization"])
			}
			lines := g.log.lines("authorization keep")
			if len(lines) != len(header) || len(lines) == 1 && !strings.Contains(lines[0], `"scheme":"Basic"`) {
				t.Errorf("sent %q: got log lines %q, want one for a header of the client", header, lines)
			}
		}
	}
}

package handler

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestLibraryPageShowsTheExample keeps docs/library.md from drifting: its Go code is
// compiled and run as the package example.
func TestLibraryPageShowsTheExample(t *testing.T) {
	page, err := os.ReadFile("../docs/library.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 3 {
		t.Fatalf("got %d blocks of Go code, want at least 3", len(blocks))
	}
	for _, block := range blocks {
		if !strings.Contains(string(example), block[1]) {
			t.Errorf("got a block that example_test.go does not contain:\n%s", block[1])
		}
	}
	for _, part := range []string{"func protect(", "func app(", ") Close("} {
		if !strings.Contains(string(page), part) {
			t.Errorf("got a page without %q", part)
		}
	}
}

// userApp answers with the subject of the user in the request's context.
func userApp(w http.ResponseWriter, r *http.Request) error {
	user, ok := FromContext(r.Context())
	email, _ := user.Claim("email")
	return json.NewEncoder(w).Encode([]any{ok, user.Subject, email})
}

func TestFromContextReturnsTheUserOfTheSession(t *testing.T) {
	g := newRig(t, plainOAuth, optional, func(s *setup) { s.handler.Protects = func(r *http.Request) bool { return r.URL.Path != "/open" } })
	g.app.answer = userApp
	cookie := g.session(`{"email":"a@b"}`)
	for name, tt := range map[string]struct {
		target string
		header []string
		want   string
	}{
		"session":                      {"/", with(cookie, script), `[true,"alice","a@b"]`},
		"no session":                   {"/", script, `[false,"",null]`},
		"session at an open path":      {"/open", with(cookie, script), `[false,"",null]`},
		"session that does not exist":  {"/", with("x", script), `[false,"",null]`},
		"headers that name other user": {"/", append(with(cookie, script), "X-User: mallory", "Remote-User: mallory"), `[true,"alice","a@b"]`},
	} {
		if a := g.get(tt.target, tt.header...); strings.TrimSpace(a.body) != tt.want {
			t.Errorf("%s: got %d %s, want %s", name, a.status, a.body, tt.want)
		}
	}
}

// TestFromContextHasNoUserOfAnOuterHandler: a request that the inner Handler relays
// without a session has no user, whatever the outer Handler found.
func TestFromContextHasNoUserOfAnOuterHandler(t *testing.T) {
	outer, inner := newRig(t, plainOAuth), newRig(t, plainOAuth, optional)
	inner.app.answer = userApp
	w := httptest.NewRecorder()
	r := outer.request("GET", "/", with(outer.session(""), script)...)
	err := outer.handler.ServeHTTP(w, r, NextFunc(func(w http.ResponseWriter, r *http.Request) error {
		if user, ok := FromContext(r.Context()); !ok || user.Subject != "alice" {
			t.Errorf("got user %q, %t between the Handlers, want alice", user.Subject, ok)
		}
		return inner.handler.ServeHTTP(w, r, NextFunc(inner.app.serve))
	}))
	if got, want := strings.TrimSpace(w.Body.String()), `[false,"",null]`; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestMiddlewareRelaysAndAnswers(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) {
		s.handler.Fail = func(http.ResponseWriter, *http.Request, *Error) error { return errors.New("error page is broken") }
		s.handler.Require = []Requirement{{Claim: "role", Values: []string{"admin"}}}
	})
	protected := g.handler.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	for name, tt := range map[string]struct {
		header []string
		want   int
	}{
		"session":             {with(g.session(`{"role":"admin"}`), script), http.StatusTeapot},
		"no session":          {script, http.StatusUnauthorized},
		"navigation":          {navigation, http.StatusFound},
		"error of the option": {with(g.session(`{"role":"user"}`), navigation), http.StatusInternalServerError},
	} {
		w := httptest.NewRecorder()
		protected.ServeHTTP(w, g.request("GET", "/", tt.header...))
		if w.Code != tt.want {
			t.Errorf("%s: got status %d, want %d", name, w.Code, tt.want)
		}
	}
	if got := len(g.log.lines("error page is broken")); got != 1 {
		t.Errorf("got %d log lines about the failed error page, want 1", got)
	}
}

// TestZeroOptionsWork: without a Logger and with the keeper's default durations, a
// whole login, an error that would be logged and a logout work.
func TestZeroOptionsWork(t *testing.T) {
	g := newRig(t, func(s *setup) {
		s.handler.Logger = nil
		s.session.Observe = NewObserver(nil)
		s.session.IdleTimeout, s.session.MaxLifetime, s.session.RefreshTimeout, s.session.DefaultTokenLifetime = 0, 0, 0, 0
	})
	b := g.loggedIn()
	if a := b.fetch("GET", "/oauth2/session"); a.status != 200 || !strings.Contains(a.body, `"max_expires_in":86`) {
		t.Errorf("got status %d, %s, want a session with a lifetime of a day", a.status, a.body)
	}
	g.store.down.Store(true)
	if a := g.get("/", navigation...); a.status != http.StatusServiceUnavailable {
		t.Errorf("got status %d while the store is down, want 503", a.status)
	}
	g.store.down.Store(false)
	if a := b.fetch("POST", "/oauth2/logout"); a.status != 200 {
		t.Errorf("got status %d for the logout, want 200", a.status)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := g.keeper.Vault.Close(ctx); err != nil {
		t.Errorf("got error %v while closing the vault", err)
	}
}

package handler

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

func TestSessionEndpointDescribesTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, &authServer{Server: offline()}, plainOAuth)
		began := time.Now()
		cookie := "Cookie: " + sessionCookie + "=" + g.session(`{"sub":"alice","email":"a@b"}`)
		time.Sleep(90 * time.Second)
		a := g.get("/oauth2/session", append(slices.Clone(script), cookie)...)
		var got map[string]any
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 {
			t.Fatalf("got status %d, want 200, %v: %s", a.status, err, a.body)
		}
		want := map[string]any{
			"authenticated": true, "user": "alice", "claims": map[string]any{"sub": "alice", "email": "a@b"},
			"created_at":      began.UTC().Format(time.RFC3339),
			"idle_expires_in": 8*3600 - 90.0, "max_expires_in": 24*3600 - 90.0, "token_expires_in": 3600 - 90.0,
			"login_url": "/oauth2/login", "logout_url": "/oauth2/logout",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		for name, value := range map[string]string{
			"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := a.header.Get(name); got != value {
				t.Errorf("%s is %q, want %q", name, got, value)
			}
		}
	})
}

func TestSessionEndpointReportsNoSession(t *testing.T) {
	g := newRig(t, plainOAuth)
	for _, cookie := range []string{"", sessionCookie + "=" + seal.NewSecret().Cookie(), sessionCookie + "=x"} {
		a := g.get("/oauth2/session", append(slices.Clone(script), "Cookie: "+cookie)...)
		if a.status != 200 || a.body != `{"authenticated":false,"login_url":"/oauth2/login"}`+"\n" || a.header["Set-Cookie"] != nil {
			t.Errorf("%q: got status %d, want 200: %s", cookie, a.status, a.body)
		}
	}
	g.store.down.Store(true)
	a := g.get("/oauth2/session", append(slices.Clone(script), "Cookie: "+sessionCookie+"="+seal.NewSecret().Cookie())...)
	if a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("with the store down: got status %d, want 503: %s", a.status, a.body)
	}
}

// TestSessionEndpointDoesNotProlongTheSession: a page that polls does not keep its
// session alive.
func TestSessionEndpointDoesNotProlongTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, &authServer{Server: offline()}, plainOAuth, func(s *setup) { s.session.IdleTimeout = time.Hour })
		header := append(slices.Clone(script), "Cookie: "+sessionCookie+"="+g.session(""))
		authenticated := func() bool {
			return strings.Contains(g.get("/oauth2/session", header...).body, `"authenticated":true`)
		}
		for range 59 {
			time.Sleep(time.Minute)
			if !authenticated() {
				t.Fatal("got an early end of the session, want it alive")
			}
		}
		// Uses are stored from time to time, so a session may end a little later.
		time.Sleep(5 * time.Minute)
		if authenticated() {
			t.Error("got a live session, want it ended in spite of the requests")
		}
		if a := g.get("/", header...); a.status != 401 || a.relayed != 0 {
			t.Errorf("got status %d, want 401", a.status)
		}
	})
}

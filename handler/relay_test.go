package handler

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAuthorizationHeaderFollowsThePolicy(t *testing.T) {
	ours := []string{"Bearer AT_made_by_hand"}
	sent := map[string][]string{
		"none": nil, "Basic": {"Basic eDp5"}, "Bearer": {"Bearer EVIL"}, "two": {"Bearer EVIL", "Basic eDp5"}, "empty": {""},
	}
	for policy, want := range map[AuthorizationPolicy]func(sent []string, session bool) (status int, got []string){
		ReplaceAuthorization: func(_ []string, session bool) (int, []string) {
			if session {
				return 200, ours
			}
			return 200, nil
		},
		KeepAuthorization: func(sent []string, session bool) (int, []string) {
			if sent == nil && session {
				return 200, ours
			}
			return 200, sent
		},
		RejectAuthorization: func(sent []string, session bool) (int, []string) {
			switch {
			case sent != nil:
				return 400, nil
			case session:
				return 200, ours
			}
			return 200, nil
		},
	} {
		g := newRig(t, plainOAuth, func(s *setup) {
			s.handler.Authorization = policy
			s.handler.Optional = func(r *http.Request) bool { return r.URL.Path == "/optional" }
		})
		cookie := "Cookie: " + sessionCookie + "=" + g.session("")
		for name, values := range sent {
			header := slices.Clone(script)
			for _, v := range values {
				header = append(header, "Authorization: "+v)
			}
			for _, withSession := range []bool{true, false} {
				h := header
				if withSession {
					h = append(slices.Clone(h), cookie)
				}
				status, authorization := want(values, withSession)
				a := g.get("/optional", h...)
				if a.status != status || status == 200 && !slices.Equal(g.app.last()["Authorization"], authorization) || (status == 200) != (a.relayed == 1) {
					t.Errorf("policy %d, %s, session %v: status %d, the app got %q, want %d and %q", policy, name, withSession, a.status, g.app.last()["Authorization"], status, authorization)
				}
			}
			// A client's header is no login.
			if a := g.get("/", header...); a.relayed != 0 || a.status != 401 && a.status != 400 {
				t.Errorf("policy %d, %s without a session: got status %d, want 401", policy, name, a.status)
			}
		}
	}
}

func TestTokenHeaderHasNoOtherSpelling(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) {
		s.handler.HeaderName = "x-access-token"
		s.handler.HeaderValue = func(_ *http.Request, token string) string { return "token " + token }
		s.handler.Optional = func(*http.Request) bool { return true }
	})
	spoofed := []string{
		"X-Access-Token: EVIL", "x-access-token: EVIL", "X_Access_Token: EVIL", "X-ACCESS_TOKEN: EVIL", "X.Access.Token: EVIL", "x_access-Token: EVIL", "X!Access~Token: EVIL",
		"Authorization: Bearer EVIL", "X-Access-Token2: fine", "X-Other: fine",
	}
	cookie := "Cookie: " + sessionCookie + "=" + g.session("")
	for _, tt := range []struct {
		cookie []string
		want   http.Header
	}{
		{[]string{cookie}, http.Header{"X-Access-Token": {"token AT_made_by_hand"}, "X-Access-Token2": {"fine"}, "X-Other": {"fine"}}},
		{nil, http.Header{"X-Access-Token2": {"fine"}, "X-Other": {"fine"}}},
		{[]string{"Cookie: " + sessionCookie + "=invalid"}, http.Header{"X-Access-Token2": {"fine"}, "X-Other": {"fine"}}},
	} {
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			g.do(g.request(method, "/", append(slices.Clone(spoofed), tt.cookie...)...))
			if diff := cmp.Diff(tt.want, g.app.last()); diff != "" {
				t.Errorf("%s with cookie %v: the app gets (-want +got):\n%s", method, tt.cookie != nil, diff)
			}
		}
	}
}

func TestHopByHopHeadersAreRemoved(t *testing.T) {
	g := newRig(t, plainOAuth)
	cookie := "Cookie: " + sessionCookie + "=" + g.session("")
	for _, tt := range []struct {
		sent                []string
		upgrade, connection []string
	}{
		{nil, nil, nil},
		{[]string{"Connection: keep-alive"}, nil, nil},
		{[]string{"Connection: close, authorization"}, nil, nil},
		{[]string{"Connection: Authorization", "Connection: X-Access-Token"}, nil, nil},
		{[]string{"Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings"}, nil, nil},
		{[]string{"Upgrade: h2c, websocket", "Connection: Upgrade"}, nil, nil},
		{[]string{"Upgrade: h2c", "Upgrade: websocket", "Connection: Upgrade"}, nil, nil},
		// The request asks for no upgrade.
		{[]string{"Upgrade: websocket"}, nil, nil},
		{[]string{"Upgrade: websocket", "Connection: keep-alive, Upgrades"}, nil, nil},
		{[]string{"Upgrade: websocket", "Connection: upgrade;q=1"}, nil, nil},
		{[]string{"Upgrade: websocket", "Connection: Upgrade"}, []string{"websocket"}, []string{"Upgrade"}},
		{[]string{"Upgrade: websocket", "Connection: authorization", "Connection: keep-alive,\tupgrade"}, []string{"websocket"}, []string{"Upgrade"}},
		{[]string{"Upgrade: websocket", "Connection: keep-alive, Upgrade, authorization"}, []string{"websocket"}, []string{"Upgrade"}},
		{[]string{"Upgrade: websocket", "Connection: Upgrade", "Connection: authorization"}, []string{"websocket"}, []string{"Upgrade"}},
		{[]string{"Upgrade: WebSocket", "Connection: upgrade"}, []string{"WebSocket"}, []string{"upgrade"}},
	} {
		g.get("/", append(slices.Clone(tt.sent), cookie)...)
		got := g.app.last()
		if !slices.Equal(got["Upgrade"], tt.upgrade) || !slices.Equal(got["Connection"], tt.connection) || got.Get("Authorization") != "Bearer AT_made_by_hand" {
			t.Errorf("%q: got Upgrade %q, Connection %q, Authorization %q at the app, want those of the table", tt.sent, got["Upgrade"], got["Connection"], got["Authorization"])
		}
	}
}

// TestHopByHopFieldsReachNoApp (RFC 9110, section 7.6.1), whether Connection names
// them or not. Other fields that it names stay: a client must not choose the
// removed fields.
func TestHopByHopFieldsReachNoApp(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) {
		s.handler.Optional = func(r *http.Request) bool { return r.URL.Path == "/optional" }
	})
	cookie := "Cookie: " + sessionCookie + "=" + g.session("") + "; a=1"
	for _, tt := range []struct {
		sent []string
		name string
		want []string
	}{
		{[]string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "Http2-Settings: AAMAAABk"}, "Http2-Settings", nil},
		{[]string{"Http2-Settings: AAMAAABk"}, "Http2-Settings", nil},
		{[]string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: websocket", "Http2-Settings: AAMAAABk"}, "Http2-Settings", nil},
		{[]string{"Connection: keep-alive", "Keep-Alive: timeout=5"}, "Keep-Alive", nil},
		{[]string{"Proxy-Connection: keep-alive"}, "Proxy-Connection", nil},
		{[]string{"Proxy-Authorization: Basic eDp5"}, "Proxy-Authorization", nil},
		{[]string{"Te: gzip, trailers", "Connection: TE"}, "Te", []string{"trailers"}},
		{[]string{"Te: Trailers"}, "Te", []string{"trailers"}},
		{[]string{"Te: gzip", "Te: trailers"}, "Te", []string{"trailers"}},
		{[]string{"Te: gzip", "Te: nottrailers"}, "Te", nil},
		{[]string{"Connection: X-Forwarded-For", "X-Forwarded-For: 192.0.2.1"}, "X-Forwarded-For", []string{"192.0.2.1"}},
		{[]string{"Connection: X-Other, Cookie", "X-Other: x"}, "X-Other", []string{"x"}},
		{[]string{"Connection: Cookie"}, "Cookie", []string{"a=1"}},
	} {
		for _, target := range []string{"/", "/optional"} {
			g.get(target, append(slices.Clone(tt.sent), cookie)...)
			if got := g.app.last()[tt.name]; !slices.Equal(got, tt.want) {
				t.Errorf("%s: of %q the app gets %s %q, want %q", target, tt.sent, tt.name, got, tt.want)
			}
		}
		if tt.name == "Cookie" {
			continue
		}
		g.get("/optional", tt.sent...)
		if got := g.app.last()[tt.name]; !slices.Equal(got, tt.want) {
			t.Errorf("without a session: of %q: got %s %q at the app, want %q", tt.sent, tt.name, got, tt.want)
		}
	}
}

// TestRequestIsLeftAsItWasFound after an error and a panic: error routes and the
// access log read it. The rig checks it after ordinary answers.
func TestRequestIsLeftAsItWasFound(t *testing.T) {
	g := newRig(t, plainOAuth)
	header := []string{
		"Cookie: a=1; " + sessionCookie + "=" + g.session(""), "Authorization: Bearer EVIL", "Upgrade: h2c", "Connection: Upgrade, authorization", "X-Other: x",
		"Http2-Settings: AAMAAABk", "Keep-Alive: timeout=5", "Proxy-Connection: close", "Proxy-Authorization: Basic eDp5", "Te: gzip, trailers",
	}
	failure := errors.New("bad gateway")
	g.app.answer = func(http.ResponseWriter, *http.Request) error { return failure }
	if a := g.get("/", header...); !errors.Is(a.err, failure) {
		t.Errorf("got error %v, want the app's", a.err)
	}
	g.app.answer = func(_ http.ResponseWriter, r *http.Request) error {
		r.Header.Set("Authorization", "changed by the app")
		panic(http.ErrAbortHandler)
	}
	r := g.request("GET", "/", header...)
	before := r.Header.Clone()
	func() {
		defer func() {
			if p := recover(); p != http.ErrAbortHandler {
				t.Errorf("got panic %v, want %v", p, http.ErrAbortHandler)
			}
		}()
		_ = g.handler.ServeHTTP(httptest.NewRecorder(), r, NextFunc(g.app.serve))
	}()
	before.Set("Cookie", "a=1") // ours stay away from error routes too
	if diff := cmp.Diff(before, r.Header); diff != "" {
		t.Error(diff)
	}
}

func TestTraceAndConnectAreNotRelayed(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) { s.handler.Optional = func(*http.Request) bool { return true } })
	cookie := "Cookie: " + sessionCookie + "=" + g.session("")
	for _, method := range []string{"TRACE", "CONNECT", "trace", "Trace", "connect"} {
		for _, h := range [][]string{nil, {cookie}} {
			r := g.request("GET", "/", h...)
			r.Method = method
			if a := g.do(r); a.status != 405 || a.relayed != 0 {
				t.Errorf("%s: got status %d, want 405", method, a.status)
			}
		}
	}
}

func TestEndpointsMatchExactly(t *testing.T) {
	g := newRig(t, plainOAuth)
	cookie := "Cookie: " + sessionCookie + "=" + g.session("")
	for target, app := range map[string]bool{
		"/oauth2/callback/": false, "/oauth2/callback%2f": false, "/oauth2/Callback": false, "/oauth2/callback;x": false, "/oauth2/": false,
		"/oauth2//callback": false, "/oauth2/unknown": false, "/%6fauth2/session": false, "/oauth2%2fsession": false, "/oauth2/%73ession": false,
		"/oauth2/..%2fx": false, "/oauth2/../x": false, "/oauth2": true, "/oauth2x/session": true, "/OAUTH2/session": true, "/x/oauth2/session": true, "//oauth2/session": true,
	} {
		a := g.get(target, append(script, cookie)...)
		if app != (a.relayed == 1) || !app && a.status != 404 {
			t.Errorf("%s: got status %d, want 404, %d calls of the app", target, a.status, a.relayed)
		}
	}
	// The URL before a rewrite counts.
	h := g.handler
	h.OriginalURL = func(r *http.Request) *url.URL { u := *r.URL; u.Path = "/oauth2/unknown"; return &u }
	if a := g.get("/rewritten", append(script, cookie)...); a.status != 404 || a.relayed != 0 {
		t.Errorf("a rewritten URL below the prefix: got status %d, want 404", a.status)
	}
}

func TestPathPrefixMovesTheEndpoints(t *testing.T) {
	for prefix, ok := range map[string]bool{
		"": true, "/auth": true, "/a/b": true, "/": false, "auth": false, "/auth/": false, "/a b": false, `/a"`: false, "/é": false,
	} {
		if _, err := New(wholeConfig(t, func(c *Config) { c.PathPrefix = prefix })); (err == nil) != ok {
			t.Errorf("path_prefix %q: got error %v, want none", prefix, err)
		}
	}
	g := newRig(t, plainOAuth, func(s *setup) { s.handler.PathPrefix = "/auth" })
	if a := g.get("/auth/session", script...); a.status != 200 || a.relayed != 0 {
		t.Errorf("got status %d, want 200", a.status)
	}
}

// TestPathPrefixThatBrowsersNeverSendIsRefused: every login would end in a loop.
func TestPathPrefixThatBrowsersNeverSendIsRefused(t *testing.T) {
	for _, prefix := range []string{"/a?b", "/a#b", "//a", "/a/../b", "/./a", "/a%41", "/a%2fb"} {
		if _, err := New(wholeConfig(t, func(c *Config) { c.PathPrefix = prefix })); err == nil {
			t.Errorf("path_prefix %q: got no error, want one", prefix)
		}
	}
}

// TestRequestPastItsDeadlineIsNotRelayed: the client may still wait, and must not
// get an empty 200.
func TestRequestPastItsDeadlineIsNotRelayed(t *testing.T) {
	g := newRig(t, plainOAuth)
	r := g.request("GET", "/", append(script, "Cookie: "+sessionCookie+"="+g.session(""))...)
	ctx, cancel := context.WithDeadline(r.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if a := g.do(r.WithContext(ctx)); a.relayed != 0 || a.status < 500 {
		t.Errorf("got status %d with %q, want an error and no call of the app", a.status, a.body)
	}
}

func TestSetUserGetsTheUserBeforeTheApp(t *testing.T) {
	var user *User
	g := newRig(t, plainOAuth, func(s *setup) {
		s.handler.SetUser = func(_ *http.Request, u *User) { user = u }
	})
	g.app.answer = func(http.ResponseWriter, *http.Request) error {
		if user == nil || user.Subject != "alice" {
			t.Errorf("got user %+v at the app, want alice", user)
		}
		return nil
	}
	g.get("/", "Cookie: "+sessionCookie+"="+g.session(`{"email":"a@b"}`))
	if user == nil {
		t.Error("got no call of SetUser with the user, want one")
	}
}

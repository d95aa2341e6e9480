package handler

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// protecting is an option: the paths below a prefix need a session.
func protecting(prefix string) func(*setup) {
	return func(s *setup) { s.handler.Protects = below(prefix) }
}

// TestUnprotectedRequestPassesWithoutOwnCookies, otherwise unchanged, and without
// an access to the store.
func TestUnprotectedRequestPassesWithoutOwnCookies(t *testing.T) {
	g := newRig(t, plainOAuth, protecting("/private/"), func(s *setup) {
		s.handler.Authorization = RejectAuthorization
		s.handler.SetUser = func(*http.Request, *User) { t.Error("got a call of SetUser, want none") }
	})
	ours := sessionCookie + "=" + g.session("")
	asked := g.store.calls.Load()
	for name, tt := range map[string]struct{ sent, want []string }{
		"none":          {nil, nil},
		"the app's":     {[]string{"app=1;  b=2", "c=3"}, []string{"app=1;  b=2", "c=3"}},
		"ours":          {[]string{ours}, nil},
		"two sessions":  {[]string{ours + "; " + sessionCookie + "=" + seal.NewSecret().Cookie()}, nil},
		"broken":        {[]string{sessionCookie + "=x; app=1"}, []string{"app=1"}},
		"a login's":     {[]string{"app=1; " + loginCookiePrefix + "x=y", "c=3"}, []string{"app=1", "c=3"}},
		"between other": {[]string{"app=1; " + ours + "; b=2"}, []string{"app=1; b=2"}},
	} {
		for _, method := range []string{"GET", "POST", "OPTIONS", "TRACE"} {
			header := append(slices.Clone(script),
				"Authorization: Bearer THEIRS", "Connection: Upgrade, X-App", "Upgrade: websocket", "Origin: https://other.test",
				"Sec-Fetch-Site: cross-site", "Early-Data: 1", "X-App: 1")
			for _, line := range tt.sent {
				header = append(header, "Cookie: "+line)
			}
			r := g.request(method, "/public", header...)
			want := r.Header.Clone()
			want["Cookie"] = tt.want
			if tt.want == nil {
				delete(want, "Cookie")
			}
			a := g.do(r)
			if a.relayed != 1 || a.status != 200 || a.header["Set-Cookie"] != nil {
				t.Errorf("%s %s: got status %d, want 200, cookies %q", method, name, a.status, a.header["Set-Cookie"])
			} else if diff := cmp.Diff(want, g.app.last()); diff != "" {
				t.Errorf("%s %s: the app got (-want +got):\n%s", method, name, diff)
			}
			if diff := cmp.Diff(want["Cookie"], r.Header["Cookie"]); diff != "" {
				t.Errorf("%s %s: the request was left with (-want +got):\n%s", method, name, diff)
			}
		}
	}
	if n := g.store.calls.Load() - asked; n != 0 {
		t.Errorf("the store was asked %d times, want 0", n)
	}
}

// TestUnprotectedRequestCannotUpgradeToAnotherProtocol: over such a connection a
// client could request protected paths past this Handler.
func TestUnprotectedRequestCannotUpgradeToAnotherProtocol(t *testing.T) {
	g := newRig(t, plainOAuth, protecting("/private/"))
	for _, tt := range []struct{ sent, upgrade, settings []string }{
		{[]string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "Http2-Settings: AAMAAABk"}, nil, nil},
		{[]string{"Connection: Upgrade", "Upgrade: h2c", "Http2-Settings: AAMAAABk"}, nil, nil},
		{[]string{"Connection: Upgrade", "Upgrade: websocket, h2c"}, nil, nil},
		{[]string{"Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"}, nil, nil},
		{[]string{"Connection: Upgrade", "Upgrade: TLS/1.0"}, nil, nil},
		{[]string{"Upgrade: websocket"}, nil, nil},
		{[]string{"Connection: Upgrade", "Upgrade: WebSocket"}, []string{"WebSocket"}, nil},
	} {
		r := g.request("GET", "/public", append(slices.Clone(script), tt.sent...)...)
		before := r.Header.Clone()
		a := g.do(r)
		got := g.app.last()
		if a.relayed != 1 || !slices.Equal(got["Upgrade"], tt.upgrade) || !slices.Equal(got["Http2-Settings"], tt.settings) {
			t.Errorf("%q: got Upgrade %q and HTTP2-Settings %q at the app, want those of the table", tt.sent, got["Upgrade"], got["Http2-Settings"])
		}
		if diff := cmp.Diff(before, r.Header); diff != "" {
			t.Errorf("%q: the request was left with (-want +got):\n%s", tt.sent, diff)
		}
	}
}

// TestProtectedAndAmbiguousPathsNeedASession, and endpoints are answered.
func TestProtectedAndAmbiguousPathsNeedASession(t *testing.T) {
	g := newRig(t, plainOAuth, protecting("/private/"))
	cookie := g.session("")
	for _, path := range []string{"/private/x", "/public/..;/private/x", "/public/..%5cprivate/x", "/public/%252e%252e/private/x"} {
		if a := g.get(path, append(script, "Authorization: Bearer EVIL")...); a.status != 401 || a.relayed != 0 {
			t.Errorf("%s: got status %d, want 401 without a session, %d calls of the app", path, a.status, a.relayed)
		}
		if a := g.get(path, with(cookie, script)...); a.relayed != 1 || g.app.last().Get("Authorization") != "Bearer AT_made_by_hand" {
			t.Errorf("%s with a session: got status %d, Authorization %q, want the token", path, a.status, g.app.last()["Authorization"])
		}
	}
	for path, want := range map[string]int{"/oauth2/login": 302, "/oauth2/session": 200, "/oauth2/callback": 400, "/oauth2/nothing": 404} {
		if a := g.get(path, navigation...); a.status != want || a.relayed != 0 {
			t.Errorf("%s: status %d, want %d; %d calls of the app", path, a.status, want, a.relayed)
		}
	}
}

func TestAppCannotSetOwnCookiesOnUnprotectedPaths(t *testing.T) {
	g := newRig(t, plainOAuth, protecting("/private/"))
	failure := errors.New("no answer")
	for name, answer := range map[string]func(http.ResponseWriter) error{
		"a page":   func(w http.ResponseWriter) error { _, err := io.WriteString(w, "x"); return err },
		"no body":  func(w http.ResponseWriter) error { return nil },
		"an error": func(w http.ResponseWriter) error { return failure },
	} {
		g.app.answer = func(w http.ResponseWriter, _ *http.Request) error {
			w.Header()["Set-Cookie"] = []string{sessionCookie + "=x", "a=1", loginCookiePrefix + "x=y"}
			return answer(w)
		}
		a := g.get("/public", script...)
		if (a.err == failure) != (name == "an error") || !slices.Equal(a.header["Set-Cookie"], []string{"a=1"}) {
			t.Errorf("%s: got error %v, cookies %q, want the app's", name, a.err, a.header["Set-Cookie"])
		}
	}
}

// wrapped is a writer that another handler puts between two Handlers.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// chain has sites behind one another, each for a part of the paths.
type chain []*rig

// serve passes a request through all Handlers to the app of the last one.
func (sites chain) serve(t *testing.T, path string, header ...string) *http.Response {
	t.Helper()
	next := sites[len(sites)-1].app.serve
	for _, g := range slices.Backward(sites) {
		behind := next
		next = func(w http.ResponseWriter, r *http.Request) error {
			return g.handler.ServeHTTP(wrapped{w}, r, NextFunc(behind))
		}
	}
	w := httptest.NewRecorder()
	if err := next(w, sites[0].request(http.MethodGet, path, header...)); err != nil {
		t.Fatal(err)
	}
	return w.Result()
}

// TestSeveralHandlersServeTheirOwnPaths: each gets and sets its cookies as if it
// were alone. The app gets and sets none of them.
func TestSeveralHandlersServeTheirOwnPaths(t *testing.T) {
	as := startAuthServer(t)
	names := []string{"__Host-a", "__Host-b", "__Host-c"}
	var sites chain
	all := "app=1"
	for _, name := range names {
		prefix := "/" + name[len(hostPrefix):]
		g := newRigAt(t, as, plainOAuth, protecting(prefix+"/"), func(s *setup) {
			s.handler.Cookie.Name, s.handler.PathPrefix = name, prefix+"/oauth2"
			s.handler.OtherCookies = func(*http.Request, string) []string { return names }
		})
		all += "; " + name + "=" + g.sessionOf(keeper.Identity{Subject: name}, keeper.Tokens{AccessToken: "AT_of_" + name, Expires: time.Now().Add(time.Hour)})
		sites = append(sites, g)
	}
	app := sites[len(sites)-1].app
	app.answer = func(w http.ResponseWriter, _ *http.Request) error {
		for _, name := range append(names, loginCookiePrefix) {
			w.Header().Add("Set-Cookie", name+"=evil")
		}
		return nil
	}
	for path, want := range map[string]string{"/a/x": "Bearer AT_of___Host-a", "/b/x": "Bearer AT_of___Host-b", "/c/x": "Bearer AT_of___Host-c", "/x": ""} {
		resp := sites.serve(t, path, append(script, "Cookie: "+all)...)
		if got := app.last().Get("Authorization"); resp.StatusCode != 200 || got != want {
			t.Errorf("%s: status %d, the app got %q, want %q", path, resp.StatusCode, got, want)
		}
		if got := app.last()["Cookie"]; !slices.Equal(got, []string{"app=1"}) {
			t.Errorf("%s: got cookies %q at the app, want its own", path, got)
		}
		if got := resp.Header["Set-Cookie"]; got != nil {
			t.Errorf("%s: got cookies %q, want none", path, got)
		}
	}
	for _, path := range []string{"/a/x", "/b/x", "/c/x", "/a/oauth2/login", "/b/oauth2/login", "/c/oauth2/login"} {
		resp := sites.serve(t, path, navigation...)
		if cookies := resp.Cookies(); resp.StatusCode != 302 || len(cookies) != 1 || !strings.HasPrefix(cookies[0].Name, loginCookiePrefix) {
			t.Errorf("%s: got status %d, want 302, cookies %q: not the beginning of a login", path, resp.StatusCode, resp.Header["Set-Cookie"])
		}
	}
}

// TestLaterHandlerOfTheSameLoginTakesOver a request that an earlier one has relayed as
// anonymous: it has its cookies.
func TestLaterHandlerOfTheSameLoginTakesOver(t *testing.T) {
	as := startAuthServer(t)
	beside, between, last := newRigAt(t, as, plainOAuth, protecting("/nothing/")), newRigAt(t, as, plainOAuth, optional), newRigAt(t, as, plainOAuth)
	header := with(last.session(""), script)
	if resp := (chain{beside, last}).serve(t, "/", header...); resp.StatusCode != 200 {
		t.Fatalf("got status %d, want 200 where nothing is between", resp.StatusCode)
	}
	if resp := (chain{beside, between, last}).serve(t, "/", header...); resp.StatusCode != 200 {
		t.Errorf("got status %d, want 200", resp.StatusCode)
	}
}

// TestLaterHandlerLetsTheOuterHandlersCookiePass: it must not take the deletion of
// the loop cookie for the app's.
func TestLaterHandlerLetsTheOuterHandlersCookiePass(t *testing.T) {
	first := newRig(t, plainOAuth, protecting("/admin/"))
	second := first.secondSite(plainOAuth, func(s *setup) {
		s.handler.Protects = func(r *http.Request) bool { return !below("/admin/")(r) }
	})
	for _, body := range []string{"", "x"} {
		second.app.answer = func(w http.ResponseWriter, _ *http.Request) error {
			_, err := io.WriteString(w, body)
			return err
		}
		b := first.browser()
		b.mustReach("/admin/x")
		b.jar.set([]string{loopCookieName + "=x; Path=/; Secure"})
		resp := chain{first, second}.serve(t, "/admin/x", append(script, "Cookie: "+b.jar.header(true)[0])...)
		if lines := resp.Header["Set-Cookie"]; resp.StatusCode != 200 || len(lines) != 1 || !strings.HasPrefix(lines[0], loopCookieName+"=;") {
			t.Errorf("got status %d, cookies %q, want 200 and the deletion of the loop cookie", resp.StatusCode, lines)
		}
	}
	if lines := append(first.log.lines("the app tried to set"), second.log.lines("the app tried to set")...); len(lines) > 0 {
		t.Errorf("got log lines %q, want none about the app", lines)
	}
}

// BenchmarkRelayUnprotected measures the cost of a request that needs no session.
func BenchmarkRelayUnprotected(b *testing.B) {
	g := newRig(b, plainOAuth, protecting("/private/"))
	r := g.request("GET", "/style.css", append(script, "Cookie: a=1; "+sessionCookie+"="+g.session(""))...)
	cookie := r.Header["Cookie"]
	w := httptest.NewRecorder()
	next := func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	b.ReportAllocs()
	for b.Loop() {
		r.Header["Cookie"] = cookie
		if err := g.handler.ServeHTTP(w, r, NextFunc(next)); err != nil {
			b.Fatal(err)
		}
	}
}

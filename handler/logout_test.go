package handler

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// offline is an authorization server that does not answer.
func offline() *fakeas.Server { return fakeas.New(fakeas.Options{URL: "http://127.0.0.1:1"}) }

// gone fails the test if a cookie still opens a session.
func gone(t *testing.T, g *rig, cookie string) {
	t.Helper()
	if a := g.get("/", append(slices.Clone(script), "Cookie: "+sessionCookie+"="+cookie)...); a.status != 401 || a.relayed != 0 {
		t.Errorf("old cookie: got status %d, want 401", a.status)
	}
}

func TestLogoutEndsTheSessionAndRedirectsToTheServer(t *testing.T) {
	g := newRig(t)
	b := g.loggedIn()
	old := b.jar.get(sessionCookie).Value
	a := b.send(g.request("POST", "/oauth2/logout", formPost...), false)
	u, err := url.Parse(a.location())
	if err != nil || a.status != http.StatusSeeOther || !strings.HasPrefix(a.location(), g.as.URL+"/end_session?") {
		t.Fatalf("got status %d, want 303 to %q", a.status, a.location())
	}
	q := u.Query()
	if q.Get("id_token_hint") == "" || q.Get("post_logout_redirect_uri") != appOrigin+"/oauth2/logout/callback" || len(q.Get("state")) < 16 {
		t.Errorf("got logout request %v, want the ID token and the registered address", q)
	}
	if len(b.jar.cookies) != 0 {
		t.Errorf("got cookies %v, want none", b.jar.cookies)
	}
	gone(t, g, old)
	<-g.as.revoked
	end := b.walk(a.location(), "same-origin", nil)
	if end.status != 200 || !strings.Contains(end.body, "Signed out") {
		t.Errorf("got %s with status %d, want the page after the logout with 200", end.uri, end.status)
	}
	// A forged return from the server has the same answer.
	for _, query := range []string{"", "?state=x", "?state=x&state=y", "?post_logout_redirect_uri=//evil.test"} {
		if a := g.get("/oauth2/logout/callback"+query, navigation...); a.status != 200 || strings.Contains(a.body, "evil") {
			t.Errorf("%s: got status %d, want 200", query, a.status)
		}
	}
}

func TestLogoutOfAScriptReturnsTheURL(t *testing.T) {
	g := newRig(t)
	b := g.loggedIn()
	old := b.jar.get(sessionCookie).Value
	a := b.fetch("POST", "/oauth2/logout")
	var answer map[string]string
	if err := json.Unmarshal([]byte(a.body), &answer); err != nil || a.status != 200 || !strings.HasPrefix(answer["logout_url"], g.as.URL+"/end_session?") {
		t.Errorf("got status %d, want 200, %v: %s", a.status, err, a.body)
	}
	gone(t, g, old)
	<-g.as.revoked
}

// TestScriptsDoNotGetTheIDToken: JSON would show it to scripts. A redirect of the
// window does not.
func TestScriptsDoNotGetTheIDToken(t *testing.T) {
	g := newRig(t)
	a := g.loggedIn().fetch("POST", "/oauth2/logout")
	if strings.Contains(a.body, "id_token_hint") {
		t.Error("got the ID token in the answer to a script, want none")
	}
	<-g.as.revoked
}

// TestLogoutWithoutIDTokenNamesTheSession: by what the server gave as a hint for it, never
// by an address or a name, because URLs are logged.
func TestLogoutWithoutIDTokenNamesTheSession(t *testing.T) {
	long := strings.Repeat("x", maxLogoutHint+1)
	for _, tt := range []struct {
		name   string
		on     bool // id_token_hint on
		claims map[string]any
		want   string // logout_hint; "sid": that of the ID token
	}{
		{"off", false, nil, "sid"},
		{"off, with a hint of the server", false, map[string]any{"login_hint": "O.CiQ 1&2"}, "O.CiQ 1&2"},
		{"off, with a hint of another type", false, map[string]any{"login_hint": []string{"a"}}, "sid"},
		{"off, with an empty hint", false, map[string]any{"login_hint": ""}, "sid"},
		{"off, with a long hint", false, map[string]any{"login_hint": long}, "sid"},
		{"off, with a long sid", false, map[string]any{"sid": long}, ""},
		{"on, ID token too long", true, map[string]any{"groups": strings.Repeat("g", oauth.MaxIDTokenHint)}, "sid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, func(s *setup) { s.handler.OmitIDTokenHint = !tt.on })
			g.as.Set(func(k *fakeas.Knobs) { k.LoginIDToken.Claims.Set = tt.claims })
			b := g.loggedIn()
			u, err := url.Parse(b.send(g.request("POST", "/oauth2/logout", formPost...), false).location())
			if err != nil {
				t.Fatal(err)
			}
			q := u.Query()
			if q.Has("id_token_hint") || q.Get("client_id") == "" || strings.Contains(u.RawQuery, fakeas.DefaultUser) {
				t.Errorf("got %v, want client_id, and neither an ID token nor an address of the user", q)
			}
			got := q.Get("logout_hint")
			if strings.HasPrefix(got, "sid_") {
				got = "sid"
			}
			if got != tt.want {
				t.Errorf("logout_hint: got %q, want %q", got, tt.want)
			}
			<-g.as.revoked
		})
	}
}

func TestOnlyPostsOfTheSiteLogOut(t *testing.T) {
	g := newRig(t, plainOAuth)
	b := g.loggedIn()
	for _, method := range []string{"GET", "HEAD"} {
		for _, header := range [][]string{navigation, script, {"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}} {
			if a := b.send(g.request(method, "/oauth2/logout?return_to=//evil.test&post_logout_redirect_uri=https://evil.test", header...), false); a.status != 200 || strings.Contains(a.body, "evil") {
				t.Errorf("%s: got status %d, want 200: %s", method, a.status, a.body)
			}
		}
	}
	for _, header := range [][]string{
		{"Sec-Fetch-Site: cross-site", "Origin: https://evil.test"}, {"Sec-Fetch-Site: same-site", "Origin: https://sub.app.test"}, {"Origin: https://evil.test"}, {"Origin: null"},
		{"Sec-Fetch-Site: cross-site", "Origin: https://evil.test", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", acceptHTML},
	} {
		if a := b.send(g.request("POST", "/oauth2/logout", header...), false); a.status != 403 || a.header["Set-Cookie"] != nil {
			t.Errorf("%q: got status %d, want 403", header, a.status)
		}
	}
	for _, method := range []string{"PUT", "DELETE", "post", "OPTIONS"} {
		if a := b.fetch(method, "/oauth2/logout"); a.status != 405 || a.header.Get("Allow") != "GET, HEAD, POST" {
			t.Errorf("%s: got status %d, want 405", method, a.status)
		}
	}
	b.mustReach("/")
	if len(b.hops) != 1 {
		t.Errorf("got hops %q, want the session kept", b.hops)
	}
}

// TestLogoutPageHasAWorkingButton: its form counts as a form of the site.
func TestLogoutPageHasAWorkingButton(t *testing.T) {
	g := newRig(t, plainOAuth)
	b := g.loggedIn()
	a := b.open("/oauth2/logout")
	if !strings.Contains(a.body, `<form method="post" action="/oauth2/logout">`) || a.header.Get("Referrer-Policy") != "origin" {
		t.Errorf("got header %v and page %s, want a form of this site", a.header, a.body)
	}
	if a := b.send(g.request("POST", "/oauth2/logout", formPost...), false); a.status != 303 || a.location() != "/oauth2/logout/callback" {
		t.Errorf("got status %d, want 303 to %q", a.status, a.location())
	}
	<-g.as.revoked
}

// TestLogoutRevokesTheRefreshToken: the newest one, once, and in the background.
func TestLogoutRevokesTheRefreshToken(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth)
		b := g.loggedIn()
		time.Sleep(5 * time.Minute)
		b.mustReach("/") // after a refresh
		var newest string
		for _, token := range as.Tokens() {
			if token.Kind == fakeas.KindRefresh {
				newest = token.Value
			}
		}
		if as.Stats().Granted[fakeas.GrantRefresh] != 1 {
			t.Fatal("got no refresh, want one")
		}
		b.fetch("POST", "/oauth2/logout")
		b.fetch("POST", "/oauth2/logout")
		synctest.Wait()
		<-as.revoked
		log := as.Log(fakeas.EndpointRevoke)
		if len(log) != 1 || log[0].Form.Get("token") != newest || log[0].Form.Get("token_type_hint") != "refresh_token" || log[0].AuthMethod != fakeas.AuthBasic {
			t.Errorf("got %d revocations, want those of the table", len(log))
		}
	})
}

func TestLogoutDoesNotNeedTheServer(t *testing.T) {
	g := newRig(t)
	b := g.loggedIn()
	old := b.jar.get(sessionCookie).Value
	g.as.Fail(fakeas.Unavailable().At(fakeas.EndpointRevoke).Repeat(-1))
	if a := b.send(g.request("POST", "/oauth2/logout", formPost...), false); a.status != 303 {
		t.Errorf("got status %d, want 303", a.status)
	}
	gone(t, g, old)
	<-g.as.revoked
}

// TestLogoutEndsTheSessionWhileTheStoreIsDown: in this process at once, and in the
// store as soon as it answers. The cookie is deleted in any case.
func TestLogoutEndsTheSessionWhileTheStoreIsDown(t *testing.T) {
	g := newRig(t, plainOAuth)
	b := g.loggedIn()
	old := b.jar.get(sessionCookie).Value
	g.store.down.Store(true)
	a := b.send(g.request("POST", "/oauth2/logout", formPost...), false)
	if a.status != 303 || len(b.jar.cookies) != 0 {
		t.Errorf("got status %d, want 303, the browser has %v", a.status, b.jar.cookies)
	}
	if lines := g.log.lines("not revoked"); len(lines) != 1 {
		t.Errorf("got log %q, want the missing revocation", g.log.text())
	}
	g.store.down.Store(false)
	gone(t, g, old)
}

func TestLogoutWithoutASessionSucceeds(t *testing.T) {
	g := newRig(t, plainOAuth)
	for _, cookie := range []string{"", sessionCookie + "=x", sessionCookie + "=x; " + sessionCookie + "=y"} {
		a := g.post("/oauth2/logout", append(slices.Clone(formPost), "Cookie: "+cookie)...)
		if a.status != 303 || (cookie != "") != (len(a.header["Set-Cookie"]) == 1) {
			t.Errorf("%q: got status %d, want 303, cookies %q", cookie, a.status, a.header["Set-Cookie"])
		}
	}
}

func TestPostLogoutRedirectIsTheConfiguredURL(t *testing.T) {
	g := newRig(t, func(s *setup) { s.handler.PostLogoutRedirect = "https://www.test/bye" })
	b := g.loggedIn()
	a := b.send(g.request("POST", "/oauth2/logout", formPost...), false)
	<-g.as.revoked
	end := b.walk(a.location(), "same-origin", func(next string) bool { return strings.HasPrefix(next, "https://www.test/") })
	if end.status != 303 || end.location() != "https://www.test/bye" {
		t.Errorf("got status %d, want 303 to %q", end.status, end.location())
	}
}

// TestEndOfASessionEndsRunningRequests: a WebSocket or an event stream ends with
// its session, and those of other sessions go on.
func TestEndOfASessionEndsRunningRequests(t *testing.T) {
	g := newRig(t, plainOAuth)
	mine, other := g.session(""), g.session("")
	running := make(chan context.Context, 2)
	g.app.answer = func(_ http.ResponseWriter, r *http.Request) error {
		running <- r.Context()
		<-r.Context().Done()
		return nil
	}
	stop, cancel := context.WithCancel(context.Background())
	done := make(chan string)
	for _, cookie := range []string{mine, other} {
		r := g.request("GET", "/stream", append(slices.Clone(script), "Cookie: "+sessionCookie+"="+cookie)...).WithContext(stop)
		go func() {
			g.do(r)
			done <- cookie
		}()
	}
	first, second := <-running, <-running
	g.post("/oauth2/logout", append(slices.Clone(script), "Cookie: "+sessionCookie+"="+mine)...)
	if ended := <-done; ended != mine {
		t.Error("got an end of the other session's request, want it running")
	}
	if first.Err() != nil && second.Err() != nil {
		t.Error("got an end of both requests, want one running")
	}
	cancel()
	<-done
	<-g.as.revoked
}

func TestMaxLifetimeEndsRunningRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, &authServer{Server: offline()}, plainOAuth, func(s *setup) { s.session.MaxLifetime = 30 * time.Minute })
		began := time.Now()
		g.app.answer = func(_ http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return nil
		}
		g.get("/stream", append(slices.Clone(script), "Cookie: "+sessionCookie+"="+g.session(""))...)
		if took := time.Since(began); took != 30*time.Minute {
			t.Errorf("got a stream of %v, want it to end with the session", took)
		}
	})
}

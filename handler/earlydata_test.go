package handler

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// early has the ways in which a request shows that it came in early data.
var early = map[string]func(*http.Request){
	"handshake not complete":       func(r *http.Request) { r.TLS = &tls.ConnectionState{} },
	"a proxy's word":               func(r *http.Request) { r.Header["Early-Data"] = []string{"1"} },
	"a proxy's word over TLS":      func(r *http.Request) { r.TLS = done(); r.Header["Early-Data"] = []string{"1"} },
	"what is not valid counts too": func(r *http.Request) { r.Header["Early-Data"] = []string{"0", "x"} },
	"even nothing":                 func(r *http.Request) { r.Header["Early-Data"] = []string{""} },
}

func done() *tls.ConnectionState { return &tls.ConnectionState{HandshakeComplete: true} }

// TestEndpointsRefuseEarlyData: an attacker on the network may replay it (RFC
// 8470).
func TestEndpointsRefuseEarlyData(t *testing.T) {
	g := newRig(t, plainOAuth)
	for _, request := range []string{"GET /oauth2/login", "GET /oauth2/callback?code=x&state=y", "GET /oauth2/logout", "POST /oauth2/logout", "GET /oauth2/session", "POST /oauth2/session/refresh"} {
		method, target, _ := strings.Cut(request, " ")
		for name, arrive := range early {
			r := g.request(method, target, with(g.session(""), navigation)...)
			arrive(r)
			if a := g.do(r); a.status != http.StatusTooEarly || a.header["Set-Cookie"] != nil || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s, %s: got status %d, want 425, cookies %q", request, name, a.status, a.header["Set-Cookie"])
			}
		}
		r := g.request(method, target, navigation...)
		if r.TLS = done(); g.do(r).status == http.StatusTooEarly {
			t.Errorf("%s after the handshake: got 425, want another answer", request)
		}
	}
}

// TestEarlyDataChangesNothing: only requests that change nothing pass.
func TestEarlyDataChangesNothing(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) {
		s.handler.Optional = func(r *http.Request) bool { return r.URL.Path == "/static/x" }
		s.handler.RefreshIfOlder = []AgeLimit{{Match: func(r *http.Request) bool { return r.URL.Path == "/sensitive" }, Age: time.Hour}}
	})
	good := g.session("")
	expiring := g.sessionOf(keeper.Identity{}, keeper.Tokens{AccessToken: "AT_expiring", RefreshToken: "RT_expiring", Expires: time.Now().Add(5 * time.Second)})
	for name, arrive := range early {
		for _, tt := range []struct {
			method, path, cookie string
			passes               bool
		}{
			{"GET", "/", good, true},
			{"HEAD", "/", good, true},
			{"OPTIONS", "/", good, true},
			{"GET", "/static/x", "", true},
			{"GET", "/static/x", seal.NewSecret().Cookie(), true},
			{"GET", "/", "", false},
			{"GET", "/", seal.NewSecret().Cookie(), false},
			{"GET", "/", expiring, false},
			{"GET", "/sensitive", good, false},
			{"POST", "/", good, false},
			{"get", "/", good, false},
			{"POST", "/static/x", "", false},
		} {
			for _, header := range [][]string{navigation, script} {
				if tt.cookie != "" {
					header = with(tt.cookie, header)
				}
				r := g.request(tt.method, tt.path, header...)
				arrive(r)
				a := g.do(r)
				if tt.passes != (a.relayed == 1) || !tt.passes && (a.status != http.StatusTooEarly || a.header["Set-Cookie"] != nil) {
					t.Errorf("%s: %s %s: got status %d and %d calls of the app, want those of the table", name, tt.method, tt.path, a.status, a.relayed)
				}
			}
		}
		for shape, upgrade := range webSocketHandshakes {
			r := g.request(upgrade.method, "/", with(good, upgrade.header)...)
			if upgrade.proto != "" {
				r.Proto = upgrade.proto
			}
			arrive(r)
			if a := g.do(r); a.relayed != 0 || a.status != http.StatusTooEarly {
				t.Errorf("%s: WebSocket over %s: got status %d, want 425", name, shape, a.status)
			}
		}
	}
}

// TestEarlyDataDoesNotProlongTheSession, and refreshes no token.
func TestEarlyDataDoesNotProlongTheSession(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth, retrying)
		cookie := g.oldSession(time.Minute)
		g.app.answer = func(w http.ResponseWriter, _ *http.Request) error { return refuse(w) }
		for range 9 {
			r := g.request("GET", "/", with(cookie, script)...)
			if r.TLS = (&tls.ConnectionState{}); g.do(r).status == http.StatusOK {
				t.Error("got no refusal of the app, want one")
			}
			time.Sleep(time.Minute)
		}
		if n := as.refreshes(); n != 0 {
			t.Errorf("got %d refreshes, want 0", n)
		}
		time.Sleep(8*time.Hour - 4*time.Minute)
		if a := g.get("/", with(cookie, script)...); a.status != 401 || a.relayed != 0 {
			t.Errorf("after the idle timeout: got status %d, want 401", a.status)
		}
	})
}

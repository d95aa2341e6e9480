package handler

import (
	"net/http"
	"net/url"
	"testing"
)

// TestSecretEndpointsStayOutOfTheLog in any spelling and with any result. All other
// requests are logged.
func TestSecretEndpointsStayOutOfTheLog(t *testing.T) {
	var out int
	g := newRig(t, plainOAuth, optional, func(s *setup) {
		s.handler.KeepOutOfLog = func(*http.Request) { out++ }
	})
	for target, want := range map[string]int{
		"/oauth2/callback?code=x&state=y": 1, "/oauth2/%63allback?code=x": 1, "/oauth2/logout": 1, "/oauth2/l%6fgout": 1,
		"/oauth2/backchannel_logout?logout_token=x": 1, "/oauth2/backchannel%5flogout": 1,
		"/oauth2/login": 0, "/oauth2/logout/callback": 0, "/oauth2/session": 0, "/oauth2/nothing": 0,
		"/": 0, "/callback": 0, "/oauth2": 0, "/logout": 0,
	} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			out = 0
			r := g.request(method, target, append(script, "Early-Data: 1")...)
			if g.do(r); out != want {
				t.Errorf("%s %s: kept out %d times, want %d", method, target, out, want)
			}
		}
	}
}

// TestOriginalURLIsLookedUpOnce: finding it costs a copy of a request.
func TestOriginalURLIsLookedUpOnce(t *testing.T) {
	looks := 0
	g := newRig(t, plainOAuth, func(s *setup) {
		s.handler.OriginalURL = func(r *http.Request) *url.URL {
			looks++
			return r.URL
		}
	})
	if a := g.get("/", with(g.session(""), script)...); a.relayed != 1 || looks != 1 {
		t.Errorf("got status %d and %d calls of OriginalURL, want 200 and 1", a.status, looks)
	}
}

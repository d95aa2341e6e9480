package handler

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestRepeatedRequestHasTheCookiesOfTheFirst: handlers behind this one, such as
// Caddy's request_header, change headers in place. A change of the Cookie header in
// the first try is not part of the second.
func TestRepeatedRequestHasTheCookiesOfTheFirst(t *testing.T) {
	for name, change := range map[string]func(http.Header){
		"add":    func(h http.Header) { h.Add("Cookie", "added=1") },
		"delete": func(h http.Header) { h.Del("Cookie") },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, plainOAuth, retrying)
			cookie := g.oldSession(time.Minute)
			g.as.Revoke(g.as.newest(fakeas.KindAccess))
			var asked, got []string
			app := refusesOld(g, &asked)
			g.app.answer = func(w http.ResponseWriter, r *http.Request) error {
				got = append(got, fmt.Sprintf("%q", r.Header["Cookie"]))
				change(r.Header)
				return app(w, r)
			}
			r := g.request("GET", "/api", with(cookie, script)...)
			r.Header.Set("Cookie", r.Header.Get("Cookie")+"; theme=dark")
			g.do(r)
			if len(got) != 2 || got[0] != got[1] {
				t.Errorf("got cookies %v at the app, want the same in two tries", got)
			}
		})
	}
}

// TestRepeatedRequestKeepsTheSessionOfAHandlerBehind: a second Handler behind this
// one, with its own cookie, finds its session in both tries.
func TestRepeatedRequestKeepsTheSessionOfAHandlerBehind(t *testing.T) {
	const otherCookie = "__Host-other_session"
	outer := newRig(t, plainOAuth, retrying)
	inner := newRig(t, plainOAuth, func(s *setup) {
		s.handler.Cookie.Name = otherCookie
		s.handler.HeaderName, s.handler.Authorization = "X-Inner-Token", KeepAuthorization
	})
	cookie := outer.oldSession(time.Minute)
	outer.as.Revoke(outer.as.newest(fakeas.KindAccess))
	var asked []string
	app := NextFunc(refusesOld(outer, &asked))
	outer.app.answer = func(w http.ResponseWriter, r *http.Request) error {
		return inner.handler.ServeHTTP(w, r, app)
	}
	r := outer.request("GET", "/api", with(cookie, script)...)
	r.Header.Set("Cookie", r.Header.Get("Cookie")+"; "+otherCookie+"="+inner.session(`{}`))
	if a := outer.do(r); a.status != 200 || len(asked) != 2 {
		t.Errorf("got status %d after %d requests at the app, want 200 after 2: %s", a.status, len(asked), a.body)
	}
}

package security

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestS113FrontchannelLogoutNeedsCookieAndSID: a page of another site ends no session, and a
// sid without its session's cookie ends none.
func TestS113FrontchannelLogoutNeedsCookieAndSID(t *testing.T) {
	w := newWorld(t, plan{options: "frontchannel_logout"})
	b := w.browser()
	b.login(t, "/")
	cookie := b.cookieLine()
	frame := []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", "Accept: text/html"}
	path := func(sid string) string {
		return prefix + "/frontchannel_logout?" + url.Values{"iss": {w.idp.URL}, "sid": {sid}}.Encode()
	}
	sid := w.sid(t, fakeas.DefaultUser)
	if resp := w.browser().send(t, http.MethodGet, path(sid), "", frame...); resp.Status != http.StatusOK {
		t.Errorf("without the cookie: got %d, want 200", resp.Status)
	}
	if resp := b.send(t, http.MethodGet, path("guessed"), "", frame...); resp.Status != http.StatusOK || resp.Header.Get("Set-Cookie") != "" {
		t.Errorf("other sid: got %d, want 200 and no cookie", resp.Status)
	}
	b.checkSession(t)
	if resp := b.send(t, http.MethodGet, path(sid), "", frame...); resp.Status != http.StatusOK || b.session() != "" {
		t.Errorf("cookie and sid: got %d, want 200 and no cookie", resp.Status)
	}
	w.checkRefused(t, w.browser().send(t, http.MethodGet, "/x", "", append([]string{cookie}, scriptHeaders...)...))
}

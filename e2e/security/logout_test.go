package security

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestS97LogoutRevokesWithoutWaiting: a logout ends the session at once and revokes the
// refresh token at the authorization server afterwards.
func TestS97LogoutRevokesWithoutWaiting(t *testing.T) {
	w := shared(t)
	slow := fakeas.NewGate()
	for name, fault := range map[string]*fakeas.Fault{
		"200":  nil,
		"400":  new(fakeas.OAuthError("unsupported_token_type")),
		"503":  new(fakeas.Unavailable()),
		"slow": new(fakeas.Hold(slow)),
		"lost": new(fakeas.LoseRequest()),
	} {
		t.Run(name, func(t *testing.T) {
			w.idp.ClearLog()
			b := w.browser()
			b.login(t, "/")
			cookie := "Cookie: " + sessionCookie + "=" + b.session()
			issued := issuedTokens(w.idp, fakeas.KindRefresh, fakeas.DefaultUser)
			if fault != nil {
				w.idp.Fail(fault.At(fakeas.EndpointRevoke))
			}
			resp, err := postLogout(t.Context(), b, w.site)
			if err != nil {
				t.Fatal(err)
			}
			answered := len(w.idp.Log(fakeas.EndpointRevoke))
			if resp.Status != http.StatusSeeOther || b.session() != "" {
				t.Errorf("logout: got %d, want 303 and no cookie", resp.Status)
			}
			w.checkRefused(t, w.browser().send(t, http.MethodGet, "/x", "", append([]string{cookie}, scriptHeaders...)...))
			if name == "slow" {
				if answered > 0 {
					t.Error("the logout waited for the revocation")
				}
				slow.Open()
			}
			var calls []fakeas.Entry
			eventually(t, "revocation", func() bool {
				calls = w.idp.Log(fakeas.EndpointRevoke)
				return len(calls) > 0
			})
			call := calls[0]
			if call.Method != http.MethodPost || call.Form.Get("token") != issued[len(issued)-1] || call.Form.Get("token_type_hint") != "refresh_token" || len(calls) > 1 {
				t.Errorf("got %d revocations, the first: %s with hint %q", len(calls), call.Method, call.Form["token_type_hint"])
			}
			user, _, ok := (&http.Request{Header: call.Header}).BasicAuth()
			if !ok || user != clientID || call.Query.Has("token") || call.Query.Has("client_secret") {
				t.Error("the client authentication is wrong, or a secret is in the URL")
			}
		})
	}
}

// TestS114OnlyTheSiteLogsOut: no request except a POST from a page of the site logs out.
func TestS114OnlyTheSiteLogsOut(t *testing.T) {
	w := shared(t)
	b := w.browser()
	b.login(t, "/")
	for name, lines := range map[string][]string{
		"image of another site": {"GET", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"},
		"link of another site":  {"GET", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"},
		"link of this site":     {"GET", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"},
		"form of another site":  {"POST", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Origin: https://evil.test"},
		"form of a sibling":     {"POST", "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Origin: https://x.app.test"},
		"sandboxed form":        {"POST", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Origin: null"},
		"old browser":           {"POST", "Origin: https://evil.test", "Accept: text/html"},
		"HEAD":                  {"HEAD", "Sec-Fetch-Site: cross-site"},
		"PUT":                   {"PUT", "Sec-Fetch-Site: same-origin"},
		"lower case":            {"post", "Sec-Fetch-Site: same-origin"},
	} {
		resp := b.send(t, lines[0], logout, "", lines[1:]...)
		if resp.Status == http.StatusSeeOther || strings.Contains(strings.Join(resp.Header.Values("Set-Cookie"), "\n"), sessionCookie) {
			t.Errorf("%s: got %d, want no logout", name, resp.Status)
		}
		b.checkSession(t)
	}
}

// TestS114LogoutEndsTheSessionFirst: a POST from a page of the site ends the session and then
// redirects to the authorization server. The answer has no Clear-Site-Data, which is not
// documented.
func TestS114LogoutEndsTheSessionFirst(t *testing.T) {
	w := shared(t)
	b := w.browser()
	b.login(t, "/")
	cookie := "Cookie: " + sessionCookie + "=" + b.session()
	resp, err := postLogout(t.Context(), b, w.site)
	if err != nil {
		t.Fatal(err)
	}
	w.checkRefused(t, w.browser().send(t, http.MethodGet, "/x", "", append([]string{cookie}, scriptHeaders...)...))
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Status != http.StatusSeeOther || to.Host+to.Path != strings.TrimPrefix(w.idp.URL, "http://")+"/end_session" {
		t.Fatalf("got %d, want a redirect to the end_session endpoint", resp.Status)
	}
	q := to.Query()
	if !slices.Contains(issuedTokens(w.idp, fakeas.KindID, fakeas.DefaultUser), q.Get("id_token_hint")) ||
		len(q.Get("state")) < 16 || q.Get("post_logout_redirect_uri") != w.site+logoutCallback {
		t.Error("the parameters for the authorization server are incomplete")
	}
	if resp.Header.Get("Cache-Control") != "no-store" || b.session() != "" {
		t.Errorf("got Cache-Control %q, want no-store; the cookie is kept: %v", resp.Header.Get("Cache-Control"), b.session() != "")
	}
}

// TestS114LoggedOutPageIsTheSameForEveryVisitor: the page after a logout has no effect and does
// not show the state that comes back.
func TestS114LoggedOutPageIsTheSameForEveryVisitor(t *testing.T) {
	w := shared(t)
	anonymous, loggedIn := w.browser(), w.browser()
	loggedIn.login(t, "/")
	page := anonymous.nav(t, logoutCallback+"?state=wrong")
	if page.Status != http.StatusOK || page.Header.Get("Set-Cookie") != "" || strings.Contains(string(page.Body), "wrong") {
		t.Errorf("got %v, want a page without the state", page)
	}
	if other := loggedIn.nav(t, logoutCallback+"?state=other"); string(other.Body) != string(page.Body) || other.Header.Get("Set-Cookie") != "" {
		t.Errorf("with a session: got %v, want the same page", other)
	}
	loggedIn.checkSession(t)
}

// TestS114LogoutWorksWithoutTheServer: a logout ends the session although the authorization
// server cannot be reached.
func TestS114LogoutWorksWithoutTheServer(t *testing.T) {
	w := shared(t)
	v := &variant{name: "down"}
	w.addVariants(t, v)
	b := w.browser()
	v.login(t, b, "u")
	value := v.session(b)
	for _, e := range []fakeas.Endpoint{fakeas.EndpointDiscovery, fakeas.EndpointRevoke, fakeas.EndpointToken} {
		v.idp.Fail(fakeas.LoseRequest().At(e).Repeat(-1))
	}
	v.options = "audience other" // this change makes Caddy fetch the metadata again
	w.reloadVariants(t, v)
	resp, err := postLogout(t.Context(), b, v.url)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Status != http.StatusSeeOther || resp.Header.Get("Location") != logoutCallback {
		t.Errorf("got %d, want 303; redirected to the site's own page: %v", resp.Status, resp.Header.Get("Location") == logoutCallback)
	}
	old := w.browser().send(t, http.MethodGet, v.url+"/x", "", append([]string{"Cookie: " + sessionCookie + "=" + value}, scriptHeaders...)...)
	if old.Status != http.StatusUnauthorized {
		t.Errorf("former session: got %v, want 401", old)
	}
}

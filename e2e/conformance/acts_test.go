package conformance

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// newKey makes the server sign with a new key. Unless the old one stays published, it is withdrawn.
func (r *run) newKey(keepOld bool) {
	r.Helper()
	resp, err := http.Get(r.as.URL + "/jwks") // the server generates a key at its first use
	if err != nil {
		r.Fatal(err)
	}
	resp.Body.Close()
	r.as.RotateKey()
	if !keepOld {
		r.as.RetireKeys()
	}
	r.before = r.as.Stats()
}

// loginWithTwoKeys is a login while the server publishes two keys that fit.
func loginWithTwoKeys(r *run) {
	r.newKey(true)
	r.login()
	r.as.RetireKeys()
}

// loginForClaims is a login with scopes that ask for claims.
func loginForClaims(r *run) {
	r.login()
	log := r.as.Log(fakeas.EndpointAuthorize)
	if got := log[len(log)-1].Query.Get("scope"); got != "openid profile email" {
		r.Errorf("got scope %q, want openid profile email", got)
	}
}

// loginWithBasic is a login in which the client authenticates with client_secret_basic.
func loginWithBasic(r *run) {
	r.login()
	log := r.as.Log(fakeas.EndpointToken)
	if got := log[len(log)-1].AuthMethod; got != fakeas.AuthBasic {
		r.Errorf("got client authentication %q, want %q", got, fakeas.AuthBasic)
	}
}

// loginWithBearerHeader is a login in which the access token is sent in the header alone.
func loginWithBearerHeader(r *run) {
	r.login()
	log := r.as.Log(fakeas.EndpointUserInfo)
	last := log[len(log)-1]
	if !strings.HasPrefix(last.Header.Get("Authorization"), "Bearer ") || last.Form.Has("access_token") || last.Query.Has("access_token") {
		r.Errorf("got UserInfo request %s %s with header %q, want the token in Authorization alone", last.Method, last.URI, last.Header["Authorization"])
	}
}

// loginAfterDiscovery is a login that uses the server's metadata and keys.
func loginAfterDiscovery(r *run) {
	r.login()
	stats := r.as.Stats()
	if stats.Requests[fakeas.EndpointDiscovery] == 0 || stats.Requests[fakeas.EndpointJWKS] == 0 {
		r.Errorf("got requests %v, want some for metadata and keys", stats.Requests)
	}
}

// loginAfterNewKey is a second login, after the server has replaced its key.
func loginAfterNewKey(r *run) {
	r.login()
	r.newKey(false)
	r.browser = client.New("", "")
	r.login()
}

// loginWithNewKeyInBetween is a second login. The server replaces its key after it has sent the code.
func loginWithNewKeyInBetween(r *run) {
	r.login()
	r.browser = client.New("", "")
	authorize := r.hop(r.site + "/wanted").Location()
	callback := r.hop(authorize.String()).Location()
	r.newKey(false)
	r.before.Requests[fakeas.EndpointAuthorize]--
	r.check(r.visit(callback.String()))
}

// loginFromThirdParty begins a login with a link of a portal (OpenID Connect Core, section 4).
func loginFromThirdParty(r *run) {
	q := url.Values{"iss": {r.as.URL}, "login_hint": {"bob"}, "target_link_uri": {r.site + "/deep?x=1"}}
	page := r.visit(r.site + "/oauth2/login?" + q.Encode())
	r.check(page)
	if got := page.URL.String(); got != r.site+"/deep?x=1" {
		r.Errorf("got page %s, want target_link_uri", got)
	}
	if got := r.as.Log(fakeas.EndpointAuthorize)[0].Query.Get("login_hint"); got != "bob" {
		r.Errorf("got login_hint %q, want bob", got)
	}
}

// freshPath is a path whose requests need a new token each; refreshOptions configure it.
const (
	freshPath      = "/fresh"
	refreshOptions = "refresh_if_older " + freshPath + " 0s"
)

// refresh logs in and sends a request that needs new tokens.
func refresh(r *run) {
	page := r.visit(r.site + "/wanted")
	r.wantApp(page)
	answer := r.fetch(http.MethodGet, freshPath)
	if n := r.as.Stats().Grants[fakeas.GrantRefresh]; n != 1 {
		r.Errorf("got %d refresh requests, want 1", n)
	}
	if r.module.end != refreshed {
		if next := r.api(); bearer(answer) != "" || next.Status != http.StatusUnauthorized {
			r.Errorf("got %v and then %v, want no token and 401", answer, next)
		}
		return
	}
	r.wantApp(answer)
	if bearer(answer) == bearer(page) {
		r.Error("got the old token after the refresh, want another one")
	}
}

// signOut returns an act: the user logs in and out, and the server returns the browser with the same state, another one or
// none.
func signOut(state string) func(*run) {
	return func(r *run) {
		r.wantApp(r.visit(r.site + "/wanted"))
		r.signOut(state)
	}
}

func (r *run) signOut(state string) {
	r.Helper()
	// The browser stops at the server's redirect, as a user sees no page in between.
	page, err := r.browser.Submit(r.Context(), r.hop(r.site+"/oauth2/logout"))
	if err != nil {
		r.Fatal(err)
	}
	log := r.as.Log(fakeas.EndpointEndSession)
	if len(log) == 0 {
		r.Fatalf("got no request at end_session_endpoint, want one; page %v", page)
	}
	sent := log[len(log)-1]
	for _, name := range []string{"id_token_hint", "post_logout_redirect_uri", "state"} {
		if sent.Query.Get(name) == "" {
			r.Errorf("got no %s in the logout request, want one", name)
		}
	}
	back := *page.URL
	q := back.Query()
	switch state {
	case "other":
		q.Set("state", "another-state")
	case "none":
		q.Del("state")
	}
	back.RawQuery = q.Encode()
	if state != "same" {
		page = r.hop(back.String())
	}
	if page.Status != http.StatusOK || page.URL.Path != "/oauth2/logout/callback" {
		r.Errorf("got %v, want the page after a logout", page)
	}
	if got := r.api(); got.Status != http.StatusUnauthorized {
		r.Errorf("after the logout: got %v, want 401", got)
	}
}

// sid returns the server's name for the session of the app's page.
func (r *run) sid(page *client.Response) string {
	r.Helper()
	for _, issued := range r.as.Tokens() {
		if issued.Value == bearer(page) {
			return issued.Family
		}
	}
	r.Fatalf("got %v, want a page with a token of the server", page)
	return ""
}

// logOutByToken returns an act: the server sends a logout token for the session. After a refused token, the user signs out.
func logOutByToken(edit fakeas.TokenEdit) func(*run) { return logOutByTokenOf("RS256", edit) }

// logOutByTokenOf is logOutByToken with an algorithm for the logout token.
func logOutByTokenOf(alg string, edit fakeas.TokenEdit) func(*run) {
	return func(r *run) {
		page := r.visit(r.site + "/wanted")
		r.wantApp(page)
		r.as.Set(func(k *fakeas.Knobs) { k.SigningAlg = alg })
		token, err := r.as.LogoutToken(fakeas.Logout{ClientID: clientID, Subject: fakeas.DefaultUser, SessionID: r.sid(page), Edit: edit})
		if err != nil {
			r.Fatal(err)
		}
		status, err := r.as.SendLogout(r.Context(), http.DefaultClient, clientID, token)
		if err != nil {
			r.Fatal(err)
		}
		next := r.api()
		if r.module.end == sessionsEnded {
			if status != http.StatusOK || next.Status != http.StatusUnauthorized {
				r.Errorf("got status %d and then %v, want 200 and 401", status, next)
			}
			return
		}
		if status != http.StatusBadRequest {
			r.Errorf("got status %d, want 400", status)
		}
		r.wantApp(next)
		r.signOut("same")
	}
}

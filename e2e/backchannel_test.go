package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/rp"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestBackchannelLogout logs a user out at another application of the same authorization server. The server sends a logout
// token to one of two instances. It ends the user's session at both, with its WebSockets, and no other user's session.
func TestBackchannelLogout(t *testing.T) {
	t.Parallel()
	f := &fleet{
		site: newSite(t), redis: redisserver.Start(t, redisserver.Options{}), app: echo.Start(t, echo.Options{}),
		transport: &http.Transport{DisableCompression: true},
	}
	var err error
	if f.url, err = url.Parse(f.site); err != nil {
		t.Fatal(err)
	}
	// The server needs the logout URI before the instances exist. The balancer forwards it to the last instance.
	balancer := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: f.nodes[len(f.nodes)-1].addr})
	}})
	t.Cleanup(balancer.Close)
	otherApp := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(otherApp.Close)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{
		RedirectURIs:           []string{f.site + "/oauth2/callback", otherApp.URL + "/oauth2/callback"},
		PostLogoutRedirectURIs: []string{otherApp.URL + "/bye"},
		BackchannelLogoutURI:   balancer.URL + "/oauth2/backchannel_logout",
		Clients: []map[string]any{{
			"client_id": "elsewhere", "client_secret": "another-secret-of-more-than-32-characters", "backchannel_logout_uri": otherApp.URL + "/backchannel",
		}},
	})
	f.op = &p.Server
	key := newKey()
	for range 2 {
		f.addNode(t, nodePlan{key: key, store: f.redis.URL(), app: f.app.Addr()})
	}
	t.Cleanup(f.transport.CloseIdleConnections)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	alice, bob := f.loginAtRealServer(ctx, t, "alice"), f.loginAtRealServer(ctx, t, "bob")
	open := f.openConnections(ctx, t, alice, bob)
	other, err := rp.Discover(ctx, p.Issuer, "elsewhere", "another-secret-of-more-than-32-characters", otherApp.URL+"/oauth2/callback", "openid")
	if err != nil {
		t.Fatal(err)
	}
	attempt := other.Authorize()
	page, err := alice.roundRobin.LoginTo(ctx, attempt.URL, other.RedirectURI)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := other.Redeem(ctx, attempt, page.URL.Query())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alice.roundRobin.LoginTo(ctx, other.EndSessionURL(tokens.IDToken, otherApp.URL+"/bye"), otherApp.URL+"/bye"); err != nil {
		t.Fatal(err)
	}
	if stats := p.Stats(t); stats.BackchannelLogouts != 2 || len(stats.BackchannelErrors) != 0 {
		t.Errorf("got %d back-channel logouts and errors %q, want one logout per application", stats.BackchannelLogouts, stats.BackchannelErrors)
	}
	// The instance has deleted the session before its answer to the server.
	alice.wantLoggedOut(ctx, t)
	for i, connections := range open[alice] {
		connections.awaitClosed(t, i)
	}
	for i, connections := range open[bob] {
		connections.wantOpen(t, i)
		if resp, err := bob.at[i].Fetch(ctx, http.MethodGet, f.site+"/api", ""); err != nil || bearer(resp) == "" {
			t.Errorf("the other user at instance %d: got %v and error %v, want the app's answer", i, resp, err)
		}
	}
	f.wantNoErrorLog(t)
	again := f.loginAtRealServer(ctx, t, "alice")
	if resp, err := again.roundRobin.Fetch(ctx, http.MethodGet, f.site+"/api", ""); err != nil || bearer(resp) == "" {
		t.Errorf("after the next login: got %v and error %v, want the app's answer", resp, err)
	}
}

// TestBackchannelLogoutOfUser sends a logout token without a sid: it ends all sessions of the user, at all instances.
func TestBackchannelLogoutOfUser(t *testing.T) {
	t.Parallel()
	key := newKey()
	f := startFleet(t, fleetPlan{keys: []string{key, key}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	first, second, other := f.loginVisitor(t, "alice", 0), f.loginVisitor(t, "alice", 1), f.loginVisitor(t, "bob", 0)
	f.as.AddClient(fakeas.Client{
		ID: f.op.ClientID, Secret: f.op.ClientSecret, RedirectURIs: []string{f.site + "/oauth2/callback"},
		BackchannelLogoutURI: "http://" + f.nodes[1].addr + "/oauth2/backchannel_logout",
	})
	send := func(l fakeas.Logout, want int) {
		t.Helper()
		l.ClientID = f.op.ClientID
		token, err := f.as.LogoutToken(l)
		if err != nil {
			t.Fatal(err)
		}
		if status, err := f.as.SendLogout(ctx, &http.Client{}, l.ClientID, token); err != nil || status != want {
			t.Errorf("logout token %+v: got status %d and error %v, want %d", l, status, err, want)
		}
	}
	for _, defect := range fakeas.LogoutDefects() {
		send(fakeas.Logout{Subject: "alice", Edit: defect.Edit}, http.StatusBadRequest)
	}
	for _, token := range f.as.Tokens() {
		otherUser := map[string]string{"alice": "bob", "bob": "alice"}[token.User]
		send(fakeas.Logout{Subject: otherUser, SessionID: token.Family}, http.StatusOK) // no session has both
	}
	first.askAll(t)
	second.askAll(t)
	other.askAll(t)
	send(fakeas.Logout{Subject: "alice"}, http.StatusOK)
	first.wantLoggedOut(ctx, t)
	second.wantLoggedOut(ctx, t)
	other.askAll(t)
	f.wantNoErrorLog(t)
}

// loginAtRealServer logs a visitor in at a server without forms. Unlike loginVisitor, it cannot check the token, since the
// server is not the fake one.
func (f *fleet) loginAtRealServer(ctx context.Context, t *testing.T, name string) *visitor {
	t.Helper()
	v := f.visitor(name, 0)
	query := url.Values{"login_hint": {name}, "return_to": {"/wanted"}}
	page, err := v.roundRobin.Login(ctx, f.site+"/oauth2/login?"+query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	wantAppPage(t, page, f.site+"/wanted")
	if err := v.checkUser(page); err != nil {
		t.Fatal(err)
	}
	return v
}

// wantLoggedOut waits until each instance answers 401.
func (v *visitor) wantLoggedOut(ctx context.Context, t *testing.T) {
	t.Helper()
	for i, at := range v.at {
		eventually(t, fmt.Sprintf("end of the session at instance %d", i), func() bool {
			resp, err := at.Fetch(ctx, http.MethodGet, v.fleet.site+"/api", "")
			return err == nil && resp.Status == http.StatusUnauthorized
		})
	}
}

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/rp"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestBackchannelLogout signs out of another application of the same authorization server: the server tells one of two
// instances, and the session is over at both, with its WebSockets. Other people's sessions go on.
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
	// The server reaches the last instance: the address is needed before there is one.
	balancer := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: f.nodes[len(f.nodes)-1].addr})
	}})
	t.Cleanup(balancer.Close)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(elsewhere.Close)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{
		RedirectURIs:           []string{f.site + "/oauth2/callback", elsewhere.URL + "/oauth2/callback"},
		PostLogoutRedirectURIs: []string{elsewhere.URL + "/bye"},
		BackchannelLogoutURI:   balancer.URL + "/oauth2/backchannel_logout",
		Clients: []map[string]any{{
			"client_id": "elsewhere", "client_secret": "another-secret-of-more-than-32-characters", "backchannel_logout_uri": elsewhere.URL + "/backchannel",
		}},
	})
	f.op = &p.Server
	key := newKey()
	for range 2 {
		f.start(t, fleetPlan{}, key)
	}
	t.Cleanup(f.transport.CloseIdleConnections)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	alice, bob := f.signIn(ctx, t, "alice"), f.signIn(ctx, t, "bob")
	open := map[*visitor][]vigil{}
	for _, v := range []*visitor{alice, bob} {
		for i := range f.nodes {
			open[v] = append(open[v], v.keepVigil(ctx, t, i))
		}
	}
	eventually(t, "all streams and polls", func() bool {
		polls := 0
		for _, r := range f.app.Requests() {
			if strings.Contains(r.Line, longPoll) {
				polls++
			}
		}
		return polls == 4 && f.app.Streams() == 8
	})
	other, err := rp.Discover(ctx, p.Issuer, "elsewhere", "another-secret-of-more-than-32-characters", elsewhere.URL+"/oauth2/callback", "openid")
	if err != nil {
		t.Fatal(err)
	}
	attempt := other.Authorize()
	page, err := alice.round.LoginTo(ctx, attempt.URL, other.RedirectURI)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := other.Redeem(ctx, attempt, page.URL.Query())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alice.round.LoginTo(ctx, other.EndSessionURL(tokens.IDToken, elsewhere.URL+"/bye"), elsewhere.URL+"/bye"); err != nil {
		t.Fatal(err)
	}
	if stats := p.Stats(t); stats.BackchannelLogouts != 2 || len(stats.BackchannelErrors) != 0 {
		t.Errorf("back-channel logouts: %d, errors %q; want one for each application", stats.BackchannelLogouts, stats.BackchannelErrors)
	}
	// The server's call is answered after the session has been deleted.
	alice.demandOut(ctx, t)
	for i, vigil := range open[alice] {
		vigil.awaitEnd(t, i)
	}
	for i, vigil := range open[bob] {
		vigil.demandOpen(t, i)
		if resp, err := bob.at[i].Fetch(ctx, http.MethodGet, f.site+"/api", ""); err != nil || bearer(resp) == "" {
			t.Errorf("the other user at instance %d: %v, error %v", i, resp, err)
		}
	}
	f.quiet(t)
	again := f.signIn(ctx, t, "alice")
	if resp, err := again.round.Fetch(ctx, http.MethodGet, f.site+"/api", ""); err != nil || bearer(resp) == "" {
		t.Errorf("after the next login: %v, error %v", resp, err)
	}
}

// TestBackchannelLogoutOfUser names nobody's session: all that the user has end, at all instances.
func TestBackchannelLogoutOfUser(t *testing.T) {
	t.Parallel()
	key := newKey()
	f := startFleet(t, fleetPlan{keys: []string{key, key}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	first, second, other := f.welcome(t, "alice", 0), f.welcome(t, "alice", 1), f.welcome(t, "bob", 0)
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
			t.Errorf("the logout was answered with %d, error %v; want %d", status, err, want)
		}
	}
	for _, defect := range fakeas.LogoutDefects() {
		send(fakeas.Logout{Subject: "alice", Edit: defect.Edit}, http.StatusBadRequest)
	}
	for _, token := range f.as.Tokens() {
		another := map[string]string{"alice": "bob", "bob": "alice"}[token.User]
		send(fakeas.Logout{Subject: another, SessionID: token.Family}, http.StatusOK) // no session is both
	}
	first.everywhere(t)
	second.everywhere(t)
	other.everywhere(t)
	send(fakeas.Logout{Subject: "alice"}, http.StatusOK)
	first.demandOut(ctx, t)
	second.demandOut(ctx, t)
	other.everywhere(t)
	f.quiet(t)
}

// signIn is a login at a server that asks nothing.
func (f *fleet) signIn(ctx context.Context, t *testing.T, name string) *visitor {
	t.Helper()
	v := f.visitor(name, 0)
	query := url.Values{"login_hint": {name}, "return_to": {"/wanted"}}
	page, err := v.round.Login(ctx, f.site+"/oauth2/login?"+query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	landed(t, page, f.site+"/wanted")
	if err := v.checkUser(page); err != nil {
		t.Fatal(err)
	}
	return v
}

// demandOut demands that no instance takes the visitor for anybody.
func (v *visitor) demandOut(ctx context.Context, t *testing.T) {
	t.Helper()
	for i, at := range v.at {
		eventually(t, fmt.Sprintf("end of the session at instance %d", i), func() bool {
			resp, err := at.Fetch(ctx, http.MethodGet, v.fleet.site+"/api", "")
			return err == nil && resp.Status == http.StatusUnauthorized
		})
	}
}

package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const (
	clientID     = "app"
	clientSecret = "conformance-client-secret"
)

// A run is one module with its site, server and browser.
type run struct {
	*testing.T
	module  module
	site    string
	as      *fakeas.Server
	browser *client.Client
	// before are the counts of the server at the beginning of the module.
	before fakeas.Stats
}

// newSite returns the origin of a site on a free port, and a server with a client for it.
func newSite(t testing.TB) (string, *fakeas.Server) {
	t.Helper()
	site := fmt.Sprintf("http://localhost:%d", proc.FreePort(t))
	as := fakeas.Start(t, fakeas.Options{Clients: []fakeas.Client{{
		ID: clientID, Secret: clientSecret, RedirectURIs: []string{site + "/oauth2/callback"},
		PostLogoutRedirectURIs: []string{site + "/oauth2/logout/callback"}, BackchannelLogoutURI: site + "/oauth2/backchannel_logout",
	}}})
	return site, as
}

// siteBlock returns the configuration of a site.
func siteBlock(site string, as *fakeas.Server, app *echo.Server, options string) string {
	if !strings.Contains(options, "userinfo") {
		options += "\nuserinfo"
	}
	return fmt.Sprintf("%s {\n\tbind 127.0.0.1\n\toauth_session {\n\t\tissuer %s\n\t\tclient_id %s\n\t\tclient_secret {env.CLIENT_SECRET}\n\t\tstore memory\n%s\n\t}\n\treverse_proxy %s\n}\n",
		site, as.URL, clientID, options, app.Addr())
}

// startCaddy starts one Caddy with the sites.
func startCaddy(t testing.TB, sites string) {
	t.Helper()
	caddyserver.Start(t, caddyserver.Config{Env: []string{"CLIENT_SECRET=" + clientSecret}, Sites: sites})
}

// configure sets the server's knobs for a module.
func configure(as *fakeas.Server, m module) {
	as.Set(func(k *fakeas.Knobs) {
		*k = fakeas.DefaultKnobs()
		k.SigningAlg = "RS256"
		if m.knobs != nil {
			m.knobs(k)
		}
	})
}

// play runs a module to its end.
func (r *run) play() {
	r.Helper()
	configure(r.as, r.module)
	r.browser = client.New("", "")
	r.before = r.as.Stats()
	if r.module.act != nil {
		r.module.act(r)
		return
	}
	r.login()
}

// count returns the requests to an endpoint since the beginning of the module.
func (r *run) count(e fakeas.Endpoint) int {
	return r.as.Stats().Requests[e] - r.before.Requests[e]
}

// login plays one login of a new browser and checks the module's end.
func (r *run) login() {
	r.Helper()
	r.check(r.visit(r.site + "/wanted"))
}

// visit opens a URL and follows redirects and posted responses to the page that the user sees.
func (r *run) visit(rawURL string) *client.Response {
	r.Helper()
	page, err := r.browser.Visit(r.Context(), rawURL)
	return r.follow(page, err)
}

// follow submits the forms of a posted response: that of the server, and that of the callback.
func (r *run) follow(page *client.Response, err error) *client.Response {
	r.Helper()
	for err == nil && page.Status == http.StatusOK && (page.URL.Path == "/authorize" || page.URL.Path == "/oauth2/callback") {
		page, err = r.browser.Submit(r.Context(), page)
	}
	if err != nil {
		r.Fatal(err)
	}
	return page
}

// check compares the page after a login, and the calls to the server, with the expected end.
func (r *run) check(page *client.Response) {
	r.Helper()
	userInfo, authorizations := 1, 1
	switch r.module.end {
	case refused, skippedByUs, errorPageShown:
		userInfo = 0
	case notSent:
		userInfo, authorizations = 0, 0
	}
	if n := r.count(fakeas.EndpointUserInfo); n != userInfo {
		r.Errorf("got %d UserInfo requests, want %d; page %v", n, userInfo, page)
	}
	if n := r.count(fakeas.EndpointAuthorize); n != authorizations {
		r.Errorf("got %d authorization requests, want %d", n, authorizations)
	}
	if r.module.end == loggedIn {
		r.wantApp(page)
		return
	}
	if page.Status < 400 || !strings.HasPrefix(page.URL.String(), r.site+"/") || bearer(page) != "" {
		r.Errorf("got %v, want an error page of the site", page)
	}
	if got := r.api(); got.Status != http.StatusUnauthorized {
		r.Errorf("next request: got %v, want 401", got)
	}
}

// wantApp fails the test unless the page is the app's answer, with a token that the server has issued.
func (r *run) wantApp(page *client.Response) {
	r.Helper()
	if _, ok := r.as.ValidAccessToken(bearer(page)); !ok {
		r.Fatalf("got %v, want the app's answer with a valid token", page)
	}
}

// api sends a request like fetch() in a page of the site.
func (r *run) api() *client.Response { return r.fetch(http.MethodGet, "/api") }

func (r *run) fetch(method, path string) *client.Response {
	r.Helper()
	resp, err := r.browser.Fetch(r.Context(), method, r.site+path, "")
	if err != nil {
		r.Fatal(err)
	}
	return resp
}

// hop opens a URL and follows no redirects.
func (r *run) hop(rawURL string) *client.Response {
	r.Helper()
	resp, err := r.browser.Navigate(r.Context(), rawURL)
	if err != nil {
		r.Fatal(err)
	}
	return resp
}

// bearer returns the token in the app's request, or "" if the answer is not the app's.
func bearer(page *client.Response) string {
	var seen echo.Request
	if page.Status != http.StatusOK || json.Unmarshal(page.Body, &seen) != nil {
		return ""
	}
	return seen.Bearer()
}

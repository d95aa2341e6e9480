package e2e

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// frontchannelScenes is the table of docs/backchannel.md: does a frame of the server's logout page end the session? A page
// of localhost and a site at localhost are one site for a browser, whatever their ports. 127.0.0.1 is another one. A strict
// cookie goes nowhere where a lax one does not go.
var frontchannelScenes = []struct {
	name, server, cookie string
	allowed, blocked     bool // with third-party cookies allowed and blocked
}{
	{"one site, lax", "localhost", "", true, true},
	{"one site, none", "localhost", "cookie {\nsame_site none\n}", true, true},
	{"two sites, lax", "127.0.0.1", "", false, false},
	{"two sites, none", "127.0.0.1", "cookie {\nsame_site none\n}", true, false},
	{"two sites, partitioned", "127.0.0.1", "cookie {\nsame_site none\npartitioned\n}", false, false},
}

// TestFrontchannelLogoutInABrowser loads the logout of each site in a frame of the server's page, in a browser that allows
// third-party cookies and in one that blocks them.
func TestFrontchannelLogoutInABrowser(t *testing.T) {
	t.Parallel()
	app := echo.Start(t, echo.Options{})
	servers := map[string]*logoutPages{"localhost": startLogoutPages(t, "localhost"), "127.0.0.1": startLogoutPages(t, "127.0.0.1")}
	var sites []string
	config := caddyserver.Config{Env: []string{"CLIENT_SECRET=" + frontchannelSecret}}
	for i, scene := range frontchannelScenes {
		site := newSite(t)
		sites = append(sites, site)
		s := op.Server{Issuer: servers[scene.server].URL, ClientID: fmt.Sprintf("client-%d", i)}
		servers[scene.server].AddClient(fakeas.Client{ID: s.ClientID, Secret: frontchannelSecret, RedirectURIs: []string{site + "/oauth2/callback"}})
		config.Sites += block(site, protect(&s, "frontchannel_logout\noptional /open\n"+scene.cookie)+"reverse_proxy "+app.Addr())
	}
	caddyserver.Start(t, config)
	for _, blocks := range []bool{false, true} {
		setting := browser.Setting(browser.AllowThirdPartyCookies)
		if blocks {
			setting = browser.BlockThirdPartyCookies
		}
		b, tab := browser.Start(t, setting)
		for i, scene := range frontchannelScenes {
			t.Run(fmt.Sprintf("%s/blocks %t", scene.name, blocks), func(t *testing.T) {
				want := scene.allowed
				if blocks {
					want = scene.blocked
				}
				b.DeleteCookies(t)
				server := servers[scene.server]
				tab.Open(t, sites[i]+"/wanted")
				if !hasSession(t, tab, sites[i]) {
					t.Fatal("after the login: got no session")
				}
				sid := server.lastSID(t)
				// A page of somebody who knows the sid of another session ends nothing.
				b.NewPage(t).Open(t, server.logoutPage(sites[i], "another"))
				if !hasSession(t, tab, sites[i]) {
					t.Fatal("after a frame with another sid: got no session")
				}
				b.NewPage(t).Open(t, server.logoutPage(sites[i], sid))
				if ended := !hasSession(t, tab, sites[i]); ended != want {
					t.Errorf("session ended: got %t, want %t", ended, want)
				}
			})
		}
	}
}

// hasSession reports whether the app gets the browser's token. It begins no login.
func hasSession(t *testing.T, tab *browser.Page, site string) bool {
	t.Helper()
	tab.Open(t, site+"/open")
	return bearerIn(http.StatusOK, []byte(tab.Text(t))) != ""
}

const frontchannelSecret = "frontchannel-secret-canary"

// logoutPages is an authorization server whose page /logged-out has a frame for a client.
type logoutPages struct{ *fakeas.Server }

// startLogoutPages starts a server that browsers reach by a host of this machine.
func startLogoutPages(t *testing.T, host string) *logoutPages {
	t.Helper()
	var as *fakeas.Server
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/logged-out" {
			as.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!doctype html><title>Signed out</title><iframe src="%s"></iframe>`, html.EscapeString(r.URL.Query().Get("frame")))
	}))
	t.Cleanup(server.Close)
	as = fakeas.New(fakeas.Options{URL: strings.Replace(server.URL, "127.0.0.1", host, 1)})
	t.Cleanup(as.Close) // before the server, whose requests it may hold
	return &logoutPages{as}
}

// logoutPage returns the address of the page that frames the logout of a site. The browser has loaded the frame when it has
// loaded the page.
func (s *logoutPages) logoutPage(site, sid string) string {
	frame := site + "/oauth2/frontchannel_logout?" + url.Values{"iss": {s.URL}, "sid": {sid}}.Encode()
	return s.URL + "/logged-out?" + url.Values{"frame": {frame}}.Encode()
}

// lastSID returns the sid of the last login.
func (s *logoutPages) lastSID(t *testing.T) string {
	t.Helper()
	issued := s.Tokens()
	if len(issued) == 0 {
		t.Fatal("got no login at the server")
	}
	return issued[len(issued)-1].Family
}

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestStartWithoutServer starts Caddy while the authorization server is down: only logins wait for it.
func TestStartWithoutServer(t *testing.T) {
	t.Parallel()
	site, other := newSite(t), newSite(t)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{site + "/oauth2/callback"}})
	p.Down(t)
	app := echo.Start(t, echo.Options{})
	config := protected(site, &p.Server, "", app)
	config.Sites += block(other, "respond other")
	caddyserver.Start(t, config)
	c := client.New(p.User, p.Password)
	if resp := navigate(t, c, other+"/"); resp.Status != http.StatusOK || string(resp.Body) != "other" {
		t.Errorf("the other site: %v", resp)
	}
	resp := navigate(t, c, site+"/")
	if resp.Status != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a navigation: %v with %v, want a page that tries again", resp, resp.Header)
	}
	html := strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") && strings.Contains(string(resp.Body), "<h1>")
	if !html || resp.Header["Set-Cookie"] != nil {
		t.Errorf("a navigation: %v with %v", resp, resp.Header)
	}
	if resp := fetch(t, c, site+"/"); resp.Status != http.StatusUnauthorized {
		t.Errorf("a fetch: %v", resp)
	}
	p.Up(t)
	eventually(t, "login after the outage", func() bool {
		page, err := c.Visit(t.Context(), site+"/wanted")
		if err != nil {
			t.Fatal(err)
		}
		if page.Status == http.StatusServiceUnavailable {
			return false
		}
		wantAppPage(t, page, site+"/wanted")
		return true
	})
}

// TestServerBehindSameCaddy has the authorization server served by the Caddy that protects the app, so that it cannot be
// asked for anything while Caddy starts.
func TestServerBehindSameCaddy(t *testing.T) {
	t.Parallel()
	site, issuer := newSite(t), newSite(t)
	s := &op.Server{Issuer: issuer, ClientID: "app", ClientSecret: "fake-client-secret-canary"}
	as := fakeas.New(fakeas.Options{URL: issuer, Clients: []fakeas.Client{{
		ID: s.ClientID, Secret: s.ClientSecret, RedirectURIs: []string{site + "/oauth2/callback"},
	}}})
	server := httptest.NewServer(as)
	t.Cleanup(func() {
		as.Close()
		server.Close()
	})
	setAccessTokenLifetime(as, shortLife)
	app := echo.Start(t, echo.Options{})
	config := protected(site, s, "", app)
	config.Sites += block(issuer, "reverse_proxy "+server.Listener.Addr().String())
	caddy := caddyserver.Start(t, config)
	c := login(t, s, site+"/wanted")
	c.Reconnect = true
	token := bearer(fetch(t, c, site+"/"))
	// Its metadata are known now; a reload must not begin by asking for them either.
	if err := caddy.Reload(t, config); err != nil {
		t.Fatal(err)
	}
	awaitNewBearer(t, c, site+"/", token)
	again := client.New("", "")
	again.Reconnect = true
	page, err := again.Login(t.Context(), site+"/again")
	if err != nil {
		t.Fatal(err)
	}
	wantAppPage(t, page, site+"/again")
}

// TestNoConnectionBeforeUse has an issuer that counts who comes: neither `caddy validate`, beside a Caddy that holds the
// store, nor start and reload ask it for anything.
func TestNoConnectionBeforeUse(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var came atomic.Int64
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-served
	})
	site := newSite(t)
	s := &op.Server{Issuer: fmt.Sprintf("http://%s", listener.Addr()), ClientID: "app", ClientSecret: "secret"}
	config := protected(site, s, "", echo.Start(t, echo.Options{}))
	caddy := caddyserver.Start(t, config)
	for range 2 {
		if err := caddy.Validate(t, config); err != nil {
			t.Errorf("beside the running Caddy: %v", err)
		}
	}
	if err := caddy.Reload(t, config); err != nil {
		t.Error(err)
	}
	broken := config
	broken.Sites = strings.Replace(broken.Sites, "issuer", "isuer", 1)
	if err := caddy.Validate(t, broken); err == nil || !strings.Contains(err.Error(), "isuer") {
		t.Errorf("a mistake in the configuration: got error %v", err)
	}
	if n := came.Load(); n != 0 {
		t.Errorf("the issuer got %d connections before anybody wanted to log in", n)
	}
	if resp := navigate(t, client.New("", ""), site+"/"); resp.Status != http.StatusServiceUnavailable {
		t.Errorf("a navigation: %v", resp)
	}
	if came.Load() == 0 {
		t.Error("the issuer got no connection when somebody wanted to log in: the count shows nothing")
	}
}

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestStartWithoutServer starts Caddy while the authorization server is down. Other sites work, and logins work once the
// server is up.
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
		t.Errorf("other site: got %v, want its answer", resp)
	}
	resp := navigate(t, c, site+"/")
	if resp.Status != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("navigation: got %v with %v, want 503 with Retry-After", resp, resp.Header)
	}
	html := strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") && strings.Contains(string(resp.Body), "<h1>")
	if !html || resp.Header["Set-Cookie"] != nil {
		t.Errorf("navigation: got %v with %v, want an HTML page and no cookie", resp, resp.Header)
	}
	if resp := fetch(t, c, site+"/"); resp.Status != http.StatusUnauthorized {
		t.Errorf("fetch: got %v, want 401", resp)
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

// TestServerBehindSameCaddy puts the authorization server behind the Caddy that protects the app: it is unreachable while
// Caddy starts.
func TestServerBehindSameCaddy(t *testing.T) {
	t.Parallel()
	site, issuer := newSite(t), newSite(t)
	as, s := startFake(t, site+"/oauth2/callback")
	server := hostOf(as.URL)
	as.URL, s.Issuer = issuer, issuer
	setAccessTokenLifetime(as, shortLife)
	app := echo.Start(t, echo.Options{})
	config := protected(site, s, "", app)
	config.Sites += block(issuer, "reverse_proxy "+server)
	caddy := caddyserver.Start(t, config)
	c := login(t, s, site+"/wanted")
	c.Reconnect = true
	token := bearer(fetch(t, c, site+"/"))
	// Caddy has the metadata now. A reload must not request them before the new configuration serves.
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

// TestValidateOpensNoConnection counts the connections to the issuer: `caddy validate` opens none, also while
// Caddy has the store open.
func TestValidateOpensNoConnection(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var connections atomic.Int64
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-served
	})
	site := newSite(t)
	s := &op.Server{Issuer: fmt.Sprintf("http://%s", listener.Addr()), ClientID: "app", ClientSecret: "secret"}
	validated := protected(site, s, "", echo.Start(t, echo.Options{}))
	down := &op.Server{Issuer: fmt.Sprintf("http://127.0.0.1:%d", proc.FreePort(t)), ClientID: s.ClientID, ClientSecret: s.ClientSecret}
	config := protected(site, down, "", echo.Start(t, echo.Options{}))
	caddy := caddyserver.Start(t, config)
	for range 2 {
		if err := caddy.Validate(t, validated); err != nil {
			t.Errorf("validating while Caddy runs: got error %v, want none", err)
		}
	}
	if err := caddy.Reload(t, config); err != nil {
		t.Error(err)
	}
	broken := validated
	broken.Sites = strings.Replace(broken.Sites, "issuer", "isuer", 1)
	if err := caddy.Validate(t, broken); err == nil || !strings.Contains(err.Error(), "isuer") {
		t.Errorf("validating a broken configuration: got error %v, want one that names the option", err)
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("validating: got %d connections to the issuer, want none", n)
	}
	if resp := navigate(t, client.New("", ""), site+"/"); resp.Status != http.StatusServiceUnavailable {
		t.Errorf("navigation: got %v, want 503", resp)
	}
}

// Package e2e holds the tests of the whole: browser or client, Caddy with the module, authorization server, app.
package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// TestLogin logs in through the proxy at oidc-provider: the app gets a bearer token and none of the proxy's cookies.
func TestLogin(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s\n%s", r.Header.Get("Authorization"), r.Header.Get("Cookie"))
	}))
	t.Cleanup(app.Close)
	site := fmt.Sprintf("http://localhost:%d", proc.FreePort(t))
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{site + "/oauth2/callback"}, Forms: true})
	caddyserver.Start(t, caddyserver.Config{
		Env: []string{"CLIENT_SECRET=" + p.ClientSecret},
		Sites: fmt.Sprintf(`%s {
			bind 127.0.0.1
			oauth_session {
				issuer %s
				client_id %s
				client_secret {env.CLIENT_SECRET}
			}
			reverse_proxy %s
		}`, site, p.Issuer, p.ClientID, app.Listener.Addr()),
	})
	browser := client.New(p.User, p.Password)
	page, err := browser.Login(t.Context(), site+"/wanted?q=1")
	if err != nil {
		t.Fatal(err)
	}
	authorization, cookies, _ := strings.Cut(string(page.Body), "\n")
	if page.Status != http.StatusOK || page.URL.RequestURI() != "/wanted?q=1" || !strings.HasPrefix(authorization, "Bearer ") {
		t.Errorf("the login ended with %v", page)
	}
	if strings.Contains(cookies, "oauth_") {
		t.Errorf("the app saw the cookies %s", cookies)
	}
}

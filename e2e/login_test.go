// Package e2e contains the tests of all parts together: browser, Caddy with the module, authorization server and app.
package e2e

import (
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestLogin logs in at oidc-provider, with its forms. The app gets a bearer token, but none of the proxy's cookies.
func TestLogin(t *testing.T) {
	t.Parallel()
	site, app := newSite(t), echo.Start(t, echo.Options{})
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{site + "/oauth2/callback"}, Forms: true})
	caddyserver.Start(t, protected(site, &p.Server, "", app))
	login(t, &p.Server, site+"/wanted?q=1")
	requests := app.Requests()
	if len(requests) != 1 || requests[0].Line != "GET /wanted?q=1 HTTP/1.1" {
		t.Fatalf("the app got the requests %+v, want one for the page", requests)
	}
	if cookies := strings.Join(requests[0].Values("Cookie"), "; "); strings.Contains(cookies, "oauth_") {
		t.Errorf("the app got the cookies %s, want none of the proxy", cookies)
	}
}

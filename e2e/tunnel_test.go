package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestNoTunnelToTheApp asks for an upgrade to HTTP/2, or to another protocol except WebSocket, on paths that need no session.
// If the app accepted it, it would answer requests for protected paths on that connection.
func TestNoTunnelToTheApp(t *testing.T) {
	t.Parallel()
	for name, directive := range map[string]string{"outside the matcher": "oauth_session /private/* {\n", "optional": "oauth_session {\noptional\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			site := newSite(t)
			_, s := startFake(t, site+"/oauth2/callback")
			app := echo.Start(t, echo.Options{})
			directives := strings.Replace(protect(s, ""), "oauth_session {\n", directive, 1) + "reverse_proxy " + app.Addr()
			caddyserver.Start(t, caddyserver.Config{Env: secret(s), Sites: block(site, directives)})
			for _, fields := range []string{
				"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
				"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
				"Connection: Upgrade\r\nUpgrade: h2c, websocket",
				"Connection: Upgrade\r\nUpgrade: TLS/1.0",
				"Connection: Keep-Alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nTE: gzip",
			} {
				addr := hostOf(site)
				resp, err := client.Raw(t.Context(), strings.Replace(addr, "localhost", "127.0.0.1", 1), "GET /open HTTP/1.1\r\nHost: "+addr+"\r\n"+fields+"\r\n\r\n")
				if err != nil {
					t.Fatal(err)
				}
				var seen echo.Request
				if err := json.Unmarshal(resp.Body, &seen); err != nil {
					t.Fatalf("%q: got %v, want the app's answer", fields, resp)
				}
				for _, name := range []string{"Connection", "Upgrade", "HTTP2-Settings", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "TE"} {
					if got := seen.Values(name); got != nil {
						t.Errorf("%q: the app got %s %q, want none", fields, name, got)
					}
				}
			}
		})
	}
}

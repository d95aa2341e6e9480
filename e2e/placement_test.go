package e2e

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestPaths uses sites that are a part of a host, and endpoints below another path.
func TestPaths(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		prefix string // of the endpoints
		wanted string
		seen   string // the target in the app's request
		around func(protected string) string
	}{
		{"path_prefix", "/-/auth", "/wanted?q=1", "/wanted?q=1", func(p string) string { return p }},
		{"handle_path", "/app/oauth2", "/app/wanted?q=1", "/wanted?q=1", func(p string) string {
			return "handle_path /app/* {\n" + p + "}\nrespond elsewhere"
		}},
		{"uri strip_prefix before", "/app/oauth2", "/app/wanted?q=1", "/wanted?q=1", func(p string) string {
			return "route {\nuri strip_prefix /app\n" + p + "}"
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			site := newSite(t)
			_, s := startFake(t, site+tc.prefix+"/callback")
			app := echo.Start(t, echo.Options{})
			directives := protect(s, "path_prefix "+tc.prefix) + "reverse_proxy " + app.Addr() + "\n"
			caddyserver.Start(t, caddyserver.Config{Env: secret(s), Sites: block(site, tc.around(directives))})
			logInAndOut(t, client.New("", ""), site, tc.prefix, tc.wanted)
			lines := map[string]bool{}
			for _, r := range app.Requests() {
				lines[r.Line] = true
			}
			if len(lines) != 1 || !lines["GET "+tc.seen+" HTTP/1.1"] {
				t.Errorf("the app got the requests %v, want those of %s only", lines, tc.seen)
			}
		})
	}
}

// TestBehindTLS puts a TLS-terminating proxy in front of Caddy.
func TestBehindTLS(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		forward bool // the proxy in front sends X-Forwarded-*
		config  func(c *caddyserver.Config, origin string)
	}{
		{"base_url", false, func(c *caddyserver.Config, origin string) {
			c.Sites = strings.Replace(c.Sites, "issuer", "base_url "+origin+"\nissuer", 1)
		}},
		{"base_url and X-Forwarded", true, func(c *caddyserver.Config, origin string) {
			c.Sites = strings.Replace(c.Sites, "issuer", "base_url "+origin+"\nissuer", 1)
		}},
		{"trusted_proxies", true, func(c *caddyserver.Config, _ string) {
			c.Global = "servers {\n\ttrusted_proxies static 127.0.0.1/32\n}"
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			inner := newSite(t)
			origin, authorities := terminateTLS(t, inner, tc.forward)
			_, s := startFake(t, origin+"/oauth2/callback")
			app := echo.Start(t, echo.Options{})
			config := protected(inner, s, "", app)
			tc.config(&config, origin)
			caddyserver.Start(t, config)
			c := client.New("", "")
			c.Trust(authorities)
			logInAndOut(t, c, origin, "/oauth2", "/wanted?q=1")
		})
	}
}

// TestForwardedByStrangers sends X-Forwarded-* to a Caddy without trusted proxies: the redirect URI does not use them.
func TestForwardedByStrangers(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	_, s := startFake(t, site+"/oauth2/callback")
	caddyserver.Start(t, protected(site, s, "", echo.Start(t, echo.Options{})))
	c := client.New("", "")
	c.Header = http.Header{
		"X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"evil.example"}, "Forwarded": {"host=evil.example;proto=https"},
	}
	to := navigate(t, c, site+"/").Location()
	if to == nil || to.Query().Get("redirect_uri") != site+"/oauth2/callback" {
		t.Errorf("got location %v, want the redirect URI of the site", to)
	}
}

// logInAndOut logs in, uses the session and logs out at a site with its endpoints below prefix.
func logInAndOut(t *testing.T, c *client.Client, origin, prefix, wanted string) {
	t.Helper()
	page, err := c.Login(t.Context(), origin+wanted)
	if err != nil {
		t.Fatal(err)
	}
	wantAppPage(t, page, origin+wanted)
	if resp := fetch(t, c, origin+prefix+"/session"); !strings.Contains(string(resp.Body), `"authenticated":true`) {
		t.Errorf("session endpoint: got %v, want an authenticated session", resp)
	}
	u, err := url.Parse(origin)
	if err != nil {
		t.Fatal(err)
	}
	if c.Jar.Cookie(u, sessionCookie) == nil {
		t.Errorf("got cookies %v for the origin, want %s among them", c.Jar.Cookies(u), sessionCookie)
	}
	button := navigate(t, c, origin+prefix+"/logout")
	end, err := c.Submit(t.Context(), button)
	if err != nil {
		t.Fatal(err)
	}
	if c.Jar.Cookie(u, sessionCookie) != nil {
		t.Errorf("logout: got %v and a session cookie, want none", end)
	}
	if resp := fetch(t, c, origin+wanted); resp.Status != http.StatusUnauthorized {
		t.Errorf("fetch after the logout: got %v, want 401", resp)
	}
}

// terminateTLS starts a TLS-terminating proxy in front of the address. It returns the proxy's origin and the authority of its
// certificate.
func terminateTLS(t *testing.T, inner string, forward bool) (origin string, authorities *x509.CertPool) {
	t.Helper()
	target, err := url.Parse(inner)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		if forward {
			r.SetXForwarded()
		}
	}})
	t.Cleanup(server.Close)
	authorities = x509.NewCertPool()
	authorities.AddCert(server.Certificate())
	return server.URL, authorities
}

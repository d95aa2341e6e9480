package fleet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// oauth2Proxy is OAuth2 Proxy, https://oauth2-proxy.github.io/oauth2-proxy.
var oauth2Proxy = Peer{Name: "oauth2-proxy", cookie: "_oauth2_proxy", ready: "/ready", configure: configureOAuth2Proxy}

// configureOAuth2Proxy asks for what the module does: PKCE, a nonce, and the access
// token in the Authorization header. To put it there takes the structured ("alpha")
// configuration; the flag --pass-authorization-header would send the ID token. It
// has no setting for how many idle connections to the app are kept, which is two.
func configureOAuth2Proxy(ctx context.Context, f *Fleet, s *Subject, dir string) (*exec.Cmd, error) {
	file := filepath.Join(dir, "alpha.yaml")
	config := fmt.Sprintf(`server:
  BindAddress: 127.0.0.1:%s
metricsServer:
  BindAddress: unix://%s
upstreamConfig:
  upstreams:
    - id: app
      path: /
      uri: http://%s
injectRequestHeaders:
  - name: Authorization
    values:
      - claim: access_token
        prefix: "Bearer "
providers:
  - id: issuer
    provider: oidc
    clientID: %s
    clientSecret: ${CLIENT_SECRET}
    code_challenge_method: S256
    oidcConfig:
      issuerURL: %s
      audienceClaims: [aud]
      emailClaim: email
`, port(s.Host), s.admin, f.app.Addr(), clientID, f.issuer.URL)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, s.peer.exe,
		"--alpha-config="+file,
		"--redirect-url=http://"+s.Host+"/oauth2/callback",
		"--email-domain=*",
		"--skip-provider-button",
		"--session-store-type=redis",
		fmt.Sprintf("--redis-connection-url=%s?db=%d", f.redis.url(), s.database),
		// It looks at the age of a session only, not at when the token expires.
		"--cookie-refresh="+s.refreshAfter.String(),
		"--request-logging=false", "--auth-logging=false",
	)
	cmd.Env = []string{"CLIENT_SECRET=" + clientSecret, "OAUTH2_PROXY_COOKIE_SECRET=" + text(32)}
	return cmd, nil
}

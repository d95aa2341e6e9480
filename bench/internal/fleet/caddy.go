package fleet

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/stores"
	"github.com/oauth-session/caddy-oauth-session/e2e/build"
)

// Build builds the Caddy of all subjects, with the module in it. Plain Caddy is the same program with
// another configuration.
func Build(ctx context.Context) string {
	program := build.GoProgram{Name: "caddy", Dir: "../e2e/caddy", Flags: []string{"-trimpath", "-tags=nobadger,nomysql,nopgx"}}
	return check.Value(program.Always(ctx, "-bench"))
}

// caddyfile configures a Caddy with the sites of subjects. All connections to the app are kept: with
// Caddy's default of 32, loads with more requests at a time would measure the opening of connections.
// Logs are off, because an outage would write hundreds of lines per second.
func (f *Fleet) caddyfile(admin string, subjects ...*Subject) string {
	var global, sites strings.Builder
	for _, s := range subjects {
		_, port, _ := strings.Cut(s.HostH2C, ":")
		fmt.Fprintf(&global, "\tservers 127.0.0.1:%s {\n\t\tprotocols h1 h2c\n\t}\n", port)
		for _, host := range []string{s.Host, s.HostH2C} {
			fmt.Fprintf(&sites, `http://%s {
	bind 127.0.0.1
	%s
	reverse_proxy %s {
		transport http {
			keepalive_idle_conns_per_host 1024
		}
	}
}
`, host, login(s), f.app)
		}
	}
	return fmt.Sprintf("{\n\tadmin unix/%s\n\tskip_install_trust\n\tauto_https off\n\tlog {\n\t\tlevel PANIC\n\t}\n%s}\n%s", admin, &global, &sites)
}

// login is the part of a site that differs between subjects.
func login(s *Subject) string {
	if s.Name == PlainHeader {
		return `request_header Authorization "Bearer ` + strings.Repeat("x", stores.AccessTokenSize) + `"`
	}
	if !s.LogsIn() {
		return ""
	}
	store := "bolt {\n\t\t\tpath " + s.store + "\n\t\t}"
	if s.Name == Redis {
		store = "redis " + s.store
	}
	return fmt.Sprintf("oauth_session {\n\t\tissuer %s\n\t\tclient_id %s\n\t\tclient_secret {env.CLIENT_SECRET}\n\t\tkey {env.SESSION_KEY}\n\t\tstore %s\n\t}",
		s.issuer.URL, stores.ClientID, store)
}

// WithNeighbours starts one Caddy with two sites and calls a function with them. Each site has its own
// authorization server, and both have their sessions in one file. There are no sessions yet.
func WithNeighbours(ctx context.Context, exe string, use func(f *Fleet, failing, healthy *Subject)) {
	f := newFleet(exe)
	defer f.Close()
	failing, healthy := &Subject{Name: "failing", store: f.file()}, &Subject{Name: "healthy", store: f.file()}
	f.startIssuer(failing)
	f.startIssuer(healthy)
	failing.config = f.caddyfile(f.dir+"/admin.sock", failing, healthy)
	f.run(ctx, failing)
	use(f, failing, healthy)
}

// Outage stops the authorization server of the subject.
func (s *Subject) Outage() { check.OK(s.issuer.http.Close()) }

// PeerName is the program of the other login proxy: OAuth2 Proxy, https://oauth2-proxy.github.io/oauth2-proxy.
const PeerName = "oauth2-proxy"

// A Peer is an installed OAuth2 Proxy. It has its sessions in Redis.
type Peer struct {
	Version string // from the Go toolchain
	exe     string
}

// FindPeer looks for OAuth2 Proxy in peers/bin of this module, where make bench-peers builds it, and in
// PATH. It returns nil if OAuth2 Proxy is not installed.
func FindPeer() *Peer {
	module := check.Value(build.ModuleDir())
	for _, name := range []string{filepath.Join(module, "peers", "bin", PeerName), PeerName} {
		if exe, err := exec.LookPath(name); err == nil {
			return &Peer{Version: check.Value(buildinfo.ReadFile(exe)).Main.Version, exe: exe}
		}
	}
	return nil
}

// peerConfig asks for the same as the module does: PKCE, a nonce, and the access token in the
// Authorization header. The header needs the structured ("alpha") configuration, because the flag
// --pass-authorization-header sends the ID token. OAuth2 Proxy keeps two idle connections to the app
// and has no setting for that.
func (f *Fleet) peerConfig(s *Subject) string {
	return fmt.Sprintf(`server:
  BindAddress: %s
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
`, loopback(s.Host), s.admin, f.app, stores.ClientID, s.issuer.URL)
}

func (f *Fleet) peerCommand(ctx context.Context, s *Subject, config string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.peer.exe,
		"--alpha-config="+config,
		"--redirect-url=http://"+s.Host+"/oauth2/callback",
		"--email-domain=*",
		"--skip-provider-button",
		"--session-store-type=redis",
		"--redis-connection-url="+f.Redis.URL()+"?db=1", // the module has database 0
		"--cookie-refresh=1h",                           // an age that no session reaches
		"--request-logging=false", "--auth-logging=false",
	)
	cmd.Env = []string{"OAUTH2_PROXY_COOKIE_SECRET=" + strings.Repeat("0123456789abcdef", 2)}
	return cmd
}

package op

import (
	"os/exec"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/build"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

var zitadelProgram = build.GoProgram{Name: "zitadel-op", Dir: "zitadel-op"}

// Zitadel starts the example server of zitadel/oidc. It refuses a spent refresh token; the successor stays valid. A
// refresh revokes the former access token. The issuer ends in a slash. Zero lifetime means 5 minutes.
func Zitadel(t testing.TB, redirectURI string, accessTokenLifetime time.Duration) *Server {
	t.Helper()
	exe, err := zitadelProgram.Once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if accessTokenLifetime == 0 {
		accessTokenLifetime = 5 * time.Minute
	}
	s := &Server{ClientID: "app", ClientSecret: "zitadel-op-secret", User: "test-user2", Password: "verysecure"}
	s.Process = proc.Start(t, "zitadel-op", exec.Command(exe,
		"-client-id", s.ClientID,
		"-client-secret", s.ClientSecret,
		"-redirect-uri", redirectURI,
		"-access-token-lifetime", accessTokenLifetime.String(),
	))
	s.Issuer = s.Process.AwaitLine(t, "ready ")
	return s
}

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestOnlyARunningConfigurationCreatesKeyAndStore uses a configuration in every way except running it: no command creates
// files. A command of root would create files that the service's user cannot read.
func TestOnlyARunningConfigurationCreatesKeyAndStore(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	_, s := startFake(t, site+"/oauth2/callback")
	app := echo.Start(t, echo.Options{})
	config := protected(site, s, "", app)
	caddy := caddyserver.Start(t, caddyserver.Config{Env: secret(s), Sites: block(newSite(t), "respond ok")})
	broken := config
	broken.Sites += "\n" + block(newSite(t), protect(s, "trusted_ca /nonexistent/ca.pem"))
	if err := caddy.Validate(t, config); err != nil {
		t.Error(err)
	}
	if err := caddy.Validate(t, broken); err == nil {
		t.Error("validating a broken configuration: got no error, want one")
	}
	if err := caddy.Reload(t, broken); err == nil {
		t.Error("loading a broken configuration: got no error, want one")
	}
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte(config.Sites), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"adapt", "--validate", "--adapter", "caddyfile", "--config", file}, {"list-modules"}, {"oauth-session", "keygen"},
	} {
		if _, err := caddy.Command(t, args...); err != nil {
			t.Error(err)
		}
	}
	dir := filepath.Join(caddy.DataDir, "oauth_session")
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Fatalf("%s: got error %v, want no such directory", dir, err)
	}
	if err := caddy.Reload(t, config); err != nil {
		t.Fatal(err)
	}
	login(t, s, site+"/")
	for _, name := range []string{"key", "sessions.db"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

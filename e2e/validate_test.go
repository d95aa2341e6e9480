package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestOnlyAStartMakesKeyAndStore looks at a configuration in every way that does not run it. The next one runs as the
// service's user, for whom files of root would be out of reach.
func TestOnlyAStartMakesKeyAndStore(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	_, s := startFake(t, site+"/oauth2/callback")
	app := echo.Start(t, echo.Options{})
	ours := protected(site, s, "", app)
	caddy := caddyserver.Start(t, caddyserver.Config{Env: secret(s), Sites: block(newSite(t), "respond ok")})
	broken := ours
	broken.Sites += "\n" + block(newSite(t), protect(s, "trusted_ca /nonexistent/ca.pem"))
	if err := caddy.Validate(t, ours); err != nil {
		t.Error(err)
	}
	if err := caddy.Validate(t, broken); err == nil {
		t.Error("a broken configuration is valid")
	}
	if err := caddy.Reload(t, broken); err == nil {
		t.Error("a broken configuration was loaded")
	}
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte(ours.Sites), 0o600); err != nil {
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
		t.Fatalf("%s is there (%v)", dir, err)
	}
	if err := caddy.Reload(t, ours); err != nil {
		t.Fatal(err)
	}
	login(t, s, site+"/")
	for _, name := range []string{"key", "sessions.db"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

package caddymodule

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// By default, key and store are files in Caddy's data directory. Only Caddy's user can
// read them, and sessions survive a restart.
func TestDefaultFilesArePrivateAndSurviveRestart(t *testing.T) {
	w := newWorld(t)
	text := "http://localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nclient_secret {env.SECRET}\n}\nreverse_proxy {$APP}\n}"
	w.load(text)
	b := newBrowser(t, w.origin)
	b.login("/")
	dir := filepath.Join(w.data, "oauth_session")
	for name, want := range map[string]fs.FileMode{"": fs.ModeDir | 0o700, "key": 0o600, "sessions.db": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if info.Mode() != want {
			t.Errorf("oauth_session/%s: got mode %v, want %v", name, info.Mode(), want)
		}
	}
	before, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	w.load(text)
	after, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil || string(before) != string(after) {
		t.Errorf("got another key after a restart, error %v", err)
	}
	if a := b.open("/"); a.status != http.StatusOK {
		t.Errorf("after a restart: got status %d, want 200 with the old session", a.status)
	}
}

// A new first key keeps all sessions. Removing the old key ends its sessions.
func TestSessionsLastUntilTheirKeyIsRemoved(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"OLD_KEY", "NEW_KEY"} {
		t.Setenv(name, seal.NewKey().Encode())
	}
	w.load(site("key {env.OLD_KEY}", ""))
	b := newBrowser(t, w.origin)
	b.login("/")
	w.load(site("key {env.NEW_KEY} {env.OLD_KEY}", ""))
	if a := b.open("/"); a.status != http.StatusOK {
		t.Errorf("with the new key first: got status %d, want 200", a.status)
	}
	w.load(site("key {env.NEW_KEY}", ""))
	if a := b.open("/"); a.status != http.StatusFound {
		t.Errorf("without the old key: got status %d, want a login", a.status)
	}
	if _, err := os.Stat(filepath.Join(w.data, "oauth_session", "key")); !os.IsNotExist(err) {
		t.Errorf("got error %v of a default key file, want no such file", err)
	}
}

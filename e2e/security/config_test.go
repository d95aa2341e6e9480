package security

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// restart stops the only instance and starts it again with other keys.
func (w *world) restart(t *testing.T, keys ...string) {
	t.Helper()
	w.instances[0].Stop(t)
	w.writeKeys(t, keys...)
	w.instances[0].Restart(t)
	w.inspectAtEnd(t)
}

// TestS58KeyRotationKeepsSessions: sessions survive a change of the server key. A removed
// key opens no session.
func TestS58KeyRotationKeepsSessions(t *testing.T) {
	first, second := newKey(), newKey()
	w := newWorld(t, plan{keys: []string{first}})
	w.announceLifetime(2)
	used := w.browser()
	used.login(t, "/")
	w.announceLifetime(3600)
	unused := w.browser()
	unused.login(t, "/")

	w.restart(t, second, first)
	used, unused = used.at(0), unused.at(0)
	refreshes := w.refreshes()
	eventually(t, "refresh", func() bool {
		used.checkSession(t)
		return w.refreshes() > refreshes
	})
	// The refresh writes the record with the new key, after the answer.
	eventually(t, "refreshed session", func() bool {
		resp := used.xhr(t, http.MethodPost, refresh)
		return resp.Status == http.StatusOK && strings.Contains(string(resp.Body), `"token_expires_in":3`)
	})

	w.restart(t, second)
	used, unused = used.at(0), unused.at(0)
	used.checkSession(t)
	w.checkRefused(t, unused.xhr(t, http.MethodGet, "/x"))
	w.checkRefused(t, unused.nav(t, "/x"))
}

// Parts of the configurations under test.
const (
	secretValue  = "hunter2-hunter2-hunter2"
	issuerLine   = "issuer https://idp.example.com"
	clientIDLine = "client_id app"
)

// validKey encodes 32 bytes.
var validKey = base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdefghijklmnopqrstuv"))

// siteWith returns a Caddyfile of one site with the given lines in its directive.
func siteWith(lines ...string) string {
	return "http://localhost:1 {\noauth_session {\n" + strings.Join(lines, "\n") + "\n}\n}\n"
}

// unsafeConfigurations are lines of a directive that Caddy must refuse.
var unsafeConfigurations = []struct {
	name  string
	lines []string
	want  string // a part of the error text
}{
	{"empty key", []string{issuerLine, clientIDLine, `key ""`}, "key"},
	{"key from nowhere", []string{issuerLine, clientIDLine, "key {env.NO_SUCH_VARIABLE}"}, "key"},
	{"missing key file", []string{issuerLine, clientIDLine, "key {file./no/such/file}"}, "key"},
	{"well-known word", []string{issuerLine, clientIDLine, "key changeme"}, "key"},
	{"short key", []string{issuerLine, clientIDLine, "key " + validKey[:42]}, "key"},
	{"31 bytes", []string{issuerLine, clientIDLine, "key " + base64.RawURLEncoding.EncodeToString(make([]byte, 31))}, "key"},
	{"33 bytes", []string{issuerLine, clientIDLine, "key " + validKey + "A"}, "key"},
	{"32 equal bytes", []string{issuerLine, clientIDLine, "key " + strings.Repeat("A", 43)}, "key"},
	{"good key and a short one", []string{issuerLine, clientIDLine, "key " + validKey + " " + secretValue}, "key"},
	{"shared store without a key", []string{issuerLine, clientIDLine, "store redis"}, "key"},
	{"http issuer", []string{"issuer http://idp.example.com", clientIDLine}, "issuer"},
	{"issuer with user", []string{"issuer https://user:" + secretValue + "@idp.example.com", clientIDLine}, "issuer"},
	{"issuer with query", []string{"issuer https://idp.example.com/?x=" + secretValue, clientIDLine}, "issuer"},
	{"other scheme", []string{"issuer file:///etc", clientIDLine}, "issuer"},
	{"http endpoint", []string{issuerLine, clientIDLine, "token_endpoint http://idp.example.com/token"}, "token_endpoint"},
	{"http base_url", []string{issuerLine, clientIDLine, "base_url http://app.example.com"}, "base_url"},
	{"base_url with path", []string{issuerLine, clientIDLine, "base_url https://app.example.com/x"}, "base_url"},
	{"no client", []string{issuerLine}, "client_id"},
	{"empty secret", []string{issuerLine, clientIDLine, `client_secret ""`}, "client_secret"},
	{"secret from nowhere", []string{issuerLine, clientIDLine, "client_secret {env.NO_SUCH_VARIABLE}"}, "client_secret"},
	{"method without a secret", []string{issuerLine, clientIDLine, "token_endpoint_auth_method client_secret_basic"}, "client_secret"},
	{"unknown option", []string{issuerLine, clientIDLine, "client_secrets " + secretValue}, "client_secrets"},
	{"option twice", []string{issuerLine, clientIDLine, "client_secret " + secretValue, "client_secret " + secretValue}, "client_secret"},
	{"insecure cookie", []string{issuerLine, clientIDLine, "cookie {\nsecure false\n}"}, "secure"},
	{"cookie without a prefix", []string{issuerLine, clientIDLine, "cookie {\nname session\n}"}, "cookie"},
	{"cookie of a domain under __Host-", []string{issuerLine, clientIDLine, "cookie {\nname __Host-x\ndomain example.com\n}"}, "cookie"},
	{"unknown same_site", []string{issuerLine, clientIDLine, "cookie {\nsame_site off\n}"}, "same_site"},
	{"token in a hop-by-hop header", []string{issuerLine, clientIDLine, `header Connection "{token}"`}, "header"},
	{"path_prefix with a pattern", []string{issuerLine, clientIDLine, "path_prefix /{x}"}, "path_prefix"},
	{"trusted_origins of everybody", []string{issuerLine, clientIDLine, "trusted_origins *"}, "trusted_origins"},
}

// TestS59UnsafeConfigurationIsRefused: Caddy does not start with an unsafe configuration.
// The error names the option and does not show its value.
func TestS59UnsafeConfigurationIsRefused(t *testing.T) {
	w := shared(t)
	// Without a `log` block Caddy prints errors to standard error.
	validate := func(t *testing.T, text string) error {
		t.Helper()
		file := filepath.Join(t.TempDir(), "Caddyfile")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := w.instances[0].Command(t, "validate", "--config", file)
		return err
	}
	if err := validate(t, siteWith(issuerLine, clientIDLine, "client_secret "+secretValue, "key "+validKey)); err != nil {
		t.Fatalf("valid configuration: %v", err)
	}
	for _, tc := range unsafeConfigurations {
		t.Run(tc.name, func(t *testing.T) {
			err := validate(t, siteWith(tc.lines...))
			if err == nil {
				t.Fatal("Caddy accepts the configuration")
			}
			_, text, _ := strings.Cut(err.Error(), "\n") // the first line is the command
			if !strings.Contains(text, tc.want) {
				t.Errorf("the error does not name %s: %s", tc.want, text)
			}
			for _, value := range []string{secretValue, "changeme", validKey[:42], strings.Repeat("A", 30)} {
				if strings.Contains(text, value) {
					t.Errorf("the error shows the value %.8s…: %s", value, text)
				}
			}
		})
	}
}

// TestS59StoreThatOthersCanWriteIsRefused: Caddy does not start with a store in a directory that
// other users can write.
func TestS59StoreThatOthersCanWriteIsRefused(t *testing.T) {
	w := shared(t)
	dir := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	// Caddy opens the store when it starts a configuration, not when it validates one
	// (docs/decisions/0003). The reload fails, so the world keeps its own store.
	config := w.instances[0].config
	more := config
	more.Sites += strings.ReplaceAll(siteWith(issuerLine, clientIDLine, "store bolt {\npath "+filepath.Join(dir, "sessions.db")+"\n}"), "localhost:1", fmt.Sprintf("localhost:%d", proc.FreePort(t)))
	err := w.instances[0].Reload(t, more)
	if err == nil {
		t.Error("Caddy accepts a directory that others can write")
		if err := w.instances[0].Reload(t, config); err != nil {
			t.Fatal(err)
		}
	} else if !strings.Contains(err.Error(), "store") || !strings.Contains(err.Error(), "written by group or others") {
		t.Errorf("got error %v, want one about the store's directory", err)
	}
}

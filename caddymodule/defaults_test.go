package caddymodule

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/session/bolt"
)

// Adding or removing an explicit default keeps all sessions and the cached metadata of
// the authorization server.
func TestExplicitDefaultKeepsSessions(t *testing.T) {
	bare := func(lines string) string {
		return "http://localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nclient_secret {env.SECRET}\n" + lines + "\n}\nreverse_proxy {$APP}\n}\n"
	}
	for _, tc := range []struct{ name, short, long string }{
		{"cookie name", bare(""), bare("cookie {\nname __Host-oauth_session\n}")},
		{"cookie block without name", bare(""), bare("cookie {\nsame_site lax\n}")},
		{"cookie name beside another cookie option", bare("cookie {\nsame_site lax\n}"), bare("cookie {\nname __Host-oauth_session\nsame_site lax\n}")},
		{"cookie name with a domain", bare("cookie {\ndomain localhost\n}"), bare("cookie {\ndomain localhost\nname __Secure-oauth_session\n}")},
		{"cookie name in the global option", bare(""), "{\noauth_session {\ncookie {\nname __Host-oauth_session\n}\n}\n}\n" + bare("")},
		{"store", bare(""), bare("store bolt")},
		{"store path", bare(""), bare("store bolt {\npath {$DATA}/oauth_session/sessions.db\n}")},
		{"scope", bare(""), bare("scope openid")},
		{"path_prefix", bare(""), bare("path_prefix /oauth2")},
		{"base_url", bare(""), bare("base_url http://localhost:{$PORT}")},
		{"times", bare(""), bare("idle_timeout 8h\nmax_lifetime 24h\nrefresh_timeout 10s")},
		{"stream_token_expiry", bare(""), bare("stream_token_expiry keep")},
		{"authorization", bare(""), bare("authorization replace")},
		{"key", bare(""), bare("key {file.{$DATA}/oauth_session/key}")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.load(tc.short)
			b := newBrowser(t, w.origin)
			b.login("/")
			want := poolReferences()
			for _, text := range []string{tc.long, tc.short} {
				w.load(text)
				if a := b.open("/"); a.status != http.StatusOK {
					t.Errorf("got status %d after the reload, want 200, with:\n%s", a.status, text)
				}
				if diff := cmp.Diff(want, poolReferences()); diff != "" {
					t.Errorf("pool references (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// The cookie name is part of the site, so a session is not valid under another name.
func TestNewCookieNameRequiresLogin(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	b := newBrowser(t, w.origin)
	b.login("/")
	w.load(site("cookie {\nname __Host-other\n}", ""))
	b.cookies["__Host-other"] = b.cookies["__Host-oauth_session"]
	if a := b.open("/"); a.status != http.StatusFound {
		t.Errorf("got status %d, want a login", a.status)
	}
}

func TestExplicitRedisDefaultsKeepStoreID(t *testing.T) {
	id := func(block string) string {
		isolate(t)
		s := provisionRedis(t, block)
		return s.StoreID()
	}
	want := id("redis")
	for _, block := range []string{
		"redis redis://127.0.0.1:6379", "redis {\nprefix oauth_session\n}", "redis redis://127.0.0.1:6379 {\nprefix oauth_session\n}",
	} {
		if got := id(block); got != want {
			t.Errorf("%s: got store ID %s, want %s", block, got, want)
		}
	}
	for _, block := range []string{"redis redis://127.0.0.1:6380", "redis {\nprefix other\n}", "redis {\nusername u\n}"} {
		if got := id(block); got == want {
			t.Errorf("%s: got the store ID of the default, want another", block)
		}
	}
}

// Links and relative paths to one file open one store.
func TestPathSpellingsShareOneFileStore(t *testing.T) {
	for _, exists := range []bool{false, true} {
		w := newWorld(t)
		dir := t.TempDir()
		t.Chdir(dir)
		createLinks(t, dir, exists)
		spellings := []string{
			filepath.Join(dir, "real/s.db"), "real/s.db", "./real/../real//s.db", "link/s.db", "real/dangling.db",
			filepath.Join(dir, "link/../link/dangling.db"), "chain.db", "link/up.db",
		}
		if exists {
			spellings = append(spellings, "hard.db")
		}
		var text strings.Builder
		for i, path := range spellings {
			name := string(rune('a'+i)) + ".localhost"
			w.register("app-"+name, "http://"+name+":"+w.port)
			text.WriteString("http://" + name + ":{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app-" + name +
				"\nclient_secret {env.SECRET}\nstore bolt {\npath " + path + "\n}\n}\nreverse_proxy {$APP}\n}\n")
		}
		w.load(text.String())
		for i := range spellings {
			newBrowser(t, "http://"+string(rune('a'+i))+".localhost:"+w.port).login("/")
		}
		// A reload with another spelling of the path keeps the sessions.
		oneSite := func(path string) string {
			return "http://a.localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app-a.localhost\nclient_secret {env.SECRET}\nstore bolt {\npath " + path + "\n}\n}\nreverse_proxy {$APP}\n}\n"
		}
		b := newBrowser(t, "http://a.localhost:"+w.port)
		w.load(oneSite(spellings[0]))
		b.login("/")
		for _, path := range spellings {
			w.load(oneSite(path))
			if a := b.open("/"); a.status != http.StatusOK {
				t.Errorf("%s: got status %d, want 200", path, a.status)
			}
		}
	}
}

// createLinks creates links to real/s.db, and the file itself if exists is set.
func createLinks(t *testing.T, dir string, exists bool) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.Mkdir(filepath.Join(dir, "real"), 0o700))
	check(os.Mkdir(filepath.Join(dir, "deep"), 0o700))
	check(os.Symlink("../real", filepath.Join(dir, "deep", "link")))
	check(os.Symlink("deep/link", filepath.Join(dir, "link")))
	check(os.Symlink("s.db", filepath.Join(dir, "real", "dangling.db")))
	check(os.Symlink("../real/s.db", filepath.Join(dir, "real", "up.db")))
	check(os.Symlink("link/dangling.db", filepath.Join(dir, "chain.db")))
	if !exists {
		return
	}
	file := filepath.Join(dir, "real", "s.db")
	store, err := bolt.Open(file)
	check(err)
	check(store.Close())
	check(os.Link(file, filepath.Join(dir, "hard.db")))
}

func provisionRedis(t *testing.T, text string) *RedisStore {
	t.Helper()
	s := new(RedisStore)
	if err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	if err := s.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

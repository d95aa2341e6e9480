package caddymodule

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// poolReferences counts the references to each store and client in the pool.
func poolReferences() map[any]int {
	references := map[any]int{}
	var keys []any
	pool.Range(func(key, _ any) bool {
		keys = append(keys, key)
		return true
	})
	for _, key := range keys {
		if n, ok := pool.References(key); ok {
			references[key] = n
		}
	}
	return references
}

func poolSize() int { return len(poolReferences()) }

// A reload keeps sessions and pending logins in memory, and the metadata of the
// authorization server. A failed reload changes nothing.
func TestReloadKeepsSessionsAndPendingLogins(t *testing.T) {
	w := newWorld(t)
	text := func(options string) string { return site(options, "") }
	w.load(text(""))
	b := newBrowser(t, w.origin)
	b.login("/")
	pending := newBrowser(t, w.origin)
	callback := pending.startLogin("/wanted")
	want := poolReferences()
	if len(want) != 2 { // the store and the client
		t.Fatalf("got pool %v, want a store and a client", want)
	}

	for i := range 20 {
		w.load(text([]string{"idle_timeout 1h", "idle_timeout 2h"}[i%2]))
	}
	if diff := cmp.Diff(want, poolReferences()); diff != "" {
		t.Errorf("references after 20 reloads (-want +got):\n%s", diff)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, takenPort, _ := net.SplitHostPort(taken.Addr().String())
	for name, bad := range map[string]string{
		"in provisioning":        text("trusted_ca /nonexistent/ca.pem"),
		"at the end of it":       text("cookie {\nname wrong\n}"),
		"in another handler":     site("", "@never path /never\noauth_session @never {\nissuer {$ISSUER}\nclient_id other\ntrusted_ca /nonexistent/ca.pem\n}"),
		"in another app's start": text("") + "http://localhost:" + takenPort + " {\nrespond no\n}\n",
		"in the module's start":  text("") + "http://b.localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id b\nstore bolt {\npath " + w.data + "\n}\n}\n}\n",
	} {
		for range 3 {
			if err := w.tryLoad(bad); err == nil {
				t.Fatalf("failure %s: got no error", name)
			}
		}
		if diff := cmp.Diff(want, poolReferences()); diff != "" {
			t.Errorf("references after failures %s (-want +got):\n%s", name, diff)
		}
	}

	if a := b.open("/"); a.status != http.StatusOK {
		t.Errorf("session: got status %d, want 200", a.status)
	}
	if a := pending.visit(callback); a.status != http.StatusOK || a.url != w.origin+"/wanted" {
		t.Errorf("pending login: got status %d at %s, want 200 at /wanted", a.status, a.url)
	}
	if n := w.as.Stats().Requests[fakeas.EndpointDiscovery]; n != 1 {
		t.Errorf("got %d requests for metadata, want 1", n)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if left := poolReferences(); len(left) != 0 {
		t.Errorf("after the stop: got pool %v, want none", left)
	}
}

// The new configuration takes over the open file of the old one. The file is closed when
// no configuration uses it.
func TestReloadHandsOverFileStore(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "sessions.db")
	bolted := "http://localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nclient_secret {env.SECRET}\nstore bolt {\npath " + path + "\n}\n}\nreverse_proxy {$APP}\n}"
	w.load(bolted)
	b := newBrowser(t, w.origin)
	b.login("/")
	for range 5 {
		w.load(bolted)
	}
	if a := b.open("/"); a.status != http.StatusOK {
		t.Errorf("after reloads: got status %d, want 200", a.status)
	}
	w.load(site("", "")) // uses another store
	if a := b.open("/"); a.status != http.StatusFound {
		t.Errorf("with another store: got status %d, want a login", a.status)
	}
	w.load(bolted)
	if a := b.open("/"); a.status != http.StatusOK {
		t.Errorf("with the file again: got status %d, want 200", a.status)
	}
}

// A running refresh completes although its configuration ends, because the server
// returns the new tokens only once.
func TestRefreshSurvivesReload(t *testing.T) {
	w := newWorld(t)
	w.as.Set(func(k *fakeas.Knobs) { k.LoginAnswer.Set = map[string]any{"expires_in": 0.000001} })
	w.load(site("", ""))
	b := newBrowser(t, w.origin)
	b.open(b.startLogin("/"))
	gate := fakeas.NewGate()
	w.as.Fail(fakeas.Hold(gate).For(fakeas.GrantRefresh))
	hangUp := b.openInBackground("/")
	select {
	case <-gate.Arrived():
	case <-time.After(patience):
		t.Fatal("got no refresh at the authorization server")
	}
	// Caddy waits for requests before it ends their configuration, so cancel the waiting request first.
	hangUp()
	w.load(site("idle_timeout 1h", ""))
	gate.Open()
	refreshed := ""
	for _, token := range w.as.Tokens() {
		if token.Kind == fakeas.KindAccess {
			refreshed = token.Value // the last one
		}
	}
	if a := b.open("/"); a.status != http.StatusOK || a.echo(t).Bearer() != refreshed {
		t.Errorf("after the reload: got status %d, want 200 with the refreshed token:\n%s", a.status, a.body)
	}
	stats := w.as.Stats()
	if n := stats.Presented; len(n) != 1 || stats.Reuses > 0 {
		t.Errorf("got refresh tokens %v presented, %d of them again; want one, once", n, stats.Reuses)
	}
}

// The pool keys clients by their secret, so a reload with a new secret uses it while the
// old configuration is still running.
func TestReloadUsesNewClientSecret(t *testing.T) {
	w := newWorld(t)
	t.Setenv("WRONG", "CS_wrong")
	w.load(strings.Replace(site("", ""), "{env.SECRET}", "{env.WRONG}", 1))
	if a := newBrowser(t, w.origin).visit("/"); a.status != http.StatusBadGateway {
		t.Fatalf("with the wrong secret: got status %d, want 502", a.status)
	}
	w.load(site("", ""))
	newBrowser(t, w.origin).login("/")
}

package caddymodule

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session/bolt"
)

// listenAndCount listens on an address and counts its connections.
func listenAndCount(t *testing.T) (url string, count func() int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return "http://" + l.Addr().String(), n.Load
}

// `caddy validate` may run next to a running Caddy, so it opens no store and no
// connection.
func TestValidateOpensNoStoreOrConnection(t *testing.T) {
	w := newWorld(t)
	url, connections := listenAndCount(t)
	t.Setenv("ISSUER", url)
	path := filepath.Join(t.TempDir(), "held.db")
	held, err := bolt.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	fresh := filepath.Join(t.TempDir(), "fresh.db")
	for name, store := range map[string]string{"a store in use": path, "a missing store": fresh} {
		text := "http://localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nuserinfo\nstore bolt {\npath " + store + "\n}\n}\n}"
		if err := w.validate(text); err != nil {
			t.Errorf("%s: got error %v, want none", name, err)
		}
	}
	if _, err := os.Stat(fresh); !os.IsNotExist(err) {
		t.Errorf("got error %v of the store, want no such file", err)
	}
	if n := poolSize(); n != 0 {
		t.Errorf("got %d entries in the pool, want none", n)
	}
	if n := connections(); n != 0 {
		t.Errorf("got %d connections, want none", n)
	}
}

// The start reports an unusable store, so the first request does not fail.
func TestUnusableStorePreventsStart(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("no database ", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"a directory":        dir,
		"another file":       garbage,
		"below a plain file": filepath.Join(garbage, "sessions.db"),
	} {
		err := w.tryLoad("http://localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nstore bolt {\npath " + path + "\n}\n}\n}")
		if err == nil || !strings.Contains(err.Error(), "store") {
			t.Errorf("%s: got error %v, want one with the store", name, err)
		}
		if n := poolSize(); n != 0 {
			t.Errorf("%s: got %d entries in the pool, want none", name, n)
		}
	}
}

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

// listenAndCount is an address that counts who connects.
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

// `caddy validate` runs beside a Caddy at work: it opens neither its store nor
// a connection, and a start needs no network either.
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
	for name, store := range map[string]string{"a store in use": path, "a store that is not there yet": fresh} {
		text := "http://localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nuserinfo\nstore bolt {\npath " + store + "\n}\n}\n}"
		if err := w.validate(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(fresh); !os.IsNotExist(err) {
		t.Errorf("validate made the store (%v)", err)
	}
	if n := poolSize(); n != 0 {
		t.Errorf("%d things are left in the pool", n)
	}
	w.load("http://localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nstore memory\n}\nrespond ok\n}")
	if n := connections(); n != 0 {
		t.Errorf("%d connections, want none", n)
	}
}

// A store that cannot be used is found at the start, not by the first visitor.
func TestUnusableStorePreventsStart(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"a directory":        dir,
		"another file":       garbage,
		"below a plain file": filepath.Join(garbage, "sessions.db"),
	} {
		err := w.tryLoad("http://localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nstore bolt {\npath " + path + "\n}\n}\n}")
		if err == nil || !strings.Contains(err.Error(), "store") {
			t.Errorf("%s: error is %v, want one that names the store", name, err)
		}
		if n := poolSize(); n != 0 {
			t.Errorf("%s: %d things are left in the pool", name, n)
		}
	}
}

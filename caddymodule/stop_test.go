package caddymodule

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/memory"
)

// manySites is a Caddyfile with many sites on one shared store, in one server.
func manySites(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "http://s%d.localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nclient_secret {env.SECRET}\nstore test_notes\nkey %s\n}\n}\n", i, keyA.Encode())
	}
	return text.String()
}

// Each site waits a second for a store that does not answer, and all do so together.
func TestManySitesStopTogetherWhileTheStoreIsFrozen(t *testing.T) {
	const sites = 40
	for name, stop := range map[string]func(w *world) error{
		"stop":                       func(*world) error { return caddy.Stop() },
		"reload with the same sites": func(w *world) error { return caddy.Load(w.config(manySites(sites)), true) },
		"reload with other sites":    func(w *world) error { return caddy.Load(w.config(manySites(1)), true) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			announcements.reset()
			w.load(manySites(sites))
			for end := time.Now().Add(patience); len(announcements.all()) < sites; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("got %d announcements, want %d", len(announcements.all()), sites)
				}
			}
			announcements.frozen.Store(true)
			defer announcements.frozen.Store(false)
			begun := time.Now()
			if err := stop(w); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > sites*time.Second/4 {
				t.Errorf("stopping took %v, want the time of one site", took)
			}
		})
	}
}

// namedStore is a store module of its own for each name.
type namedStore string

func (s namedStore) StoreID() string                 { return string(s) }
func (namedStore) Shared() bool                      { return false }
func (namedStore) OpenStore() (session.Store, error) { return memory.New(), nil }

// Refreshes run at the same time, so many stores need no more time than one.
func TestStoresCloseWithinOneDeadline(t *testing.T) {
	var app App
	var vaults []*pooledVault
	for _, name := range []namedStore{"a", "b"} {
		var p pooled
		vault, err := p.vault(name)
		if err != nil {
			t.Fatal(err)
		}
		vaults = append(vaults, vault)
		if err := p.release(app.stopBy()); err != nil {
			t.Error(err)
		}
	}
	if a, b := *vaults[0].closeBy.Load(), *vaults[1].closeBy.Load(); !a.Equal(b) {
		t.Errorf("got deadlines %v and %v, want one", a, b)
	}
}

package caddymodule

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
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

// A gatedStore closes when all stores of its gate are closing.
type gatedStore struct {
	namedStore
	session.Store
	gate *closingGate
}

type closingGate struct {
	left atomic.Int32
	all  chan struct{}
}

func (s gatedStore) OpenStore() (session.Store, error) { return s, nil }

func (s gatedStore) Close() error {
	if s.gate.left.Add(-1) == 0 {
		close(s.gate.all)
	}
	select {
	case <-s.gate.all:
		return nil
	case <-time.After(patience):
		return errors.New("the other store is not closing")
	}
}

// Each store may have to wait for a server that does not answer.
func TestStoresCloseAtTheSameTime(t *testing.T) {
	var app App
	gate := &closingGate{all: make(chan struct{})}
	handlers := make([]pooled, 3) // the first two share a store
	gate.left.Store(2)
	for i, name := range []namedStore{"gated a", "gated a", "gated b"} {
		vault, err := handlers[i].vault(gatedStore{name, memory.New(), gate})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vault.store.get(t.Context()); err != nil {
			t.Fatal(err)
		}
		app.use(vault)
	}
	for i := range handlers {
		app.closeStores()
		if err := handlers[i].release(app.stopBy()); err != nil {
			t.Error(err)
		}
	}
}

// A store that the next configuration uses goes on.
func TestStoreOfAnotherConfigurationStaysOpen(t *testing.T) {
	var old, next App
	var of [2]pooled
	for i, app := range []*App{&old, &next} {
		vault, err := of[i].vault(namedStore("kept"))
		if err != nil {
			t.Fatal(err)
		}
		app.use(vault)
	}
	old.closeStores()
	if err := of[0].release(old.stopBy()); err != nil {
		t.Error(err)
	}
	for v := range next.vaults {
		if v.closed != nil {
			t.Error("got the store closing at the end of the old configuration, want it open")
		}
	}
	next.closeStores()
	if err := of[1].release(next.stopBy()); err != nil {
		t.Error(err)
	}
}

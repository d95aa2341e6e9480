// Package example is a small complete store. It keeps sessions in the memory of the
// process, so they end with it.
package storetest_test

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/oauth-session/caddy-oauth-session/caddymodule"
	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/storetest"
)

func init() { caddy.RegisterModule(Module{}) }

// Module is the configuration of the store.
type Module struct {
	// Name separates stores of this kind. By default, all sites share one.
	Name string `json:"name,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.oauth_session.stores.example",
		New: func() caddy.Module { return new(Module) },
	}
}

// UnmarshalCaddyfile reads `store example [<name>]`.
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name of the store
	d.Args(&m.Name)
	if d.NextArg() || d.NextBlock(0) {
		return d.Errf("unexpected '%s': write store example [<name>]", d.Val())
	}
	return nil
}

// StoreID implements caddymodule.StoreModule.
func (m *Module) StoreID() string { return "example:" + m.Name }

// Shared implements caddymodule.StoreModule.
func (*Module) Shared() bool { return false }

// OpenStore implements caddymodule.StoreModule.
func (*Module) OpenStore() (session.Store, error) {
	return &Store{items: map[session.ID]session.Item{}}, nil
}

// Store is a session.Store. One lock makes each method one step.
type Store struct {
	mu    sync.RWMutex
	items map[session.ID]session.Item
}

// View implements session.Store. A stored value never changes, so f reads it without
// the lock.
func (s *Store) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.RLock()
	item, ok := s.items[id]
	s.mu.RUnlock()
	if !ok || !time.Now().Before(item.Expires) {
		return session.ErrNotFound
	}
	return f(item)
}

// Create implements session.Store. It also removes expired items.
func (s *Store) Create(ctx context.Context, id session.ID, item session.Item) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, old := range s.items {
		if !time.Now().Before(old.Expires) {
			delete(s.items, id)
		}
	}
	if _, ok := s.items[id]; ok {
		return session.ErrConflict
	}
	item.Value, item.Tags, item.Label = bytes.Clone(item.Value), slices.Clone(item.Tags), bytes.Clone(item.Label)
	s.items[id] = item
	return nil
}

// Replace implements session.Store.
func (s *Store) Replace(ctx context.Context, id session.ID, item session.Item) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.items[id]
	if !ok || !time.Now().Before(old.Expires) || old.Version+1 != item.Version {
		return session.ErrConflict
	}
	item.Value, item.Tags, item.Label = bytes.Clone(item.Value), slices.Clone(item.Tags), bytes.Clone(item.Label)
	s.items[id] = item
	return nil
}

// Delete implements session.Store.
func (s *Store) Delete(ctx context.Context, id session.ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.items, id)
	return nil
}

// Tagged implements session.Store. It reads every item, so it suits small numbers of
// items only.
func (s *Store) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var ids []session.ID
	for id, item := range s.items {
		if slices.Contains(item.Tags, tag) && len(ids) < session.MaxTagged {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// List implements session.Store. It reads every item, so it suits small numbers of items
// only.
func (s *Store) List(ctx context.Context, after session.ID, limit int) ([]session.ID, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var ids []session.ID
	for id, item := range s.items {
		if len(item.Label) > 0 && bytes.Compare(id[:], after[:]) > 0 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b session.ID) int { return bytes.Compare(a[:], b[:]) })
	return ids[:min(len(ids), limit)], nil
}

// Labels implements session.Store.
func (s *Store) Labels(ctx context.Context, ids []session.ID) ([]session.Labelled, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []session.Labelled
	for _, id := range ids {
		if item, ok := s.items[id]; ok && time.Now().Before(item.Expires) {
			found = append(found, session.Labelled{ID: id, Label: bytes.Clone(item.Label)})
		}
	}
	return found, nil
}

// TestStore goes into a _test.go file next to the store.
func TestStore(t *testing.T) {
	open := func(t *testing.T) session.Store {
		s, err := new(Module).OpenStore()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	storetest.Run(t, open)
	t.Run("fake time", func(t *testing.T) { storetest.RunFakeTime(t, open) })
}

// Interface guards
var (
	_ caddymodule.StoreModule = (*Module)(nil)
	_ caddyfile.Unmarshaler   = (*Module)(nil)
)

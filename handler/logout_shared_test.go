package handler

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/memory"
)

// sharedStore is a store that other instances use. It publishes no changes, and
// refuses deletions while it is full.
type sharedStore struct {
	session.SharedStore // what is not needed here
	*memory.Store
	full bool
}

func (s *sharedStore) Watch(func([]session.ID)) {}

func (s *sharedStore) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	return s.Store.View(ctx, id, f)
}

func (s *sharedStore) ViewCurrent(ctx context.Context, id session.ID, f func(session.Item) error) error {
	return s.Store.View(ctx, id, f)
}

func (s *sharedStore) Create(ctx context.Context, id session.ID, item session.Item) error {
	return s.Store.Create(ctx, id, item)
}

func (s *sharedStore) Replace(ctx context.Context, id session.ID, item session.Item) error {
	return s.Store.Replace(ctx, id, item)
}

func (s *sharedStore) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	return s.Store.Tagged(ctx, tag)
}

func (s *sharedStore) List(ctx context.Context, after session.ID, limit int) ([]session.ID, error) {
	return s.Store.List(ctx, after, limit)
}

func (s *sharedStore) Labels(ctx context.Context, ids []session.ID) ([]session.Labelled, error) {
	return s.Store.Labels(ctx, ids)
}

func (s *sharedStore) Delete(ctx context.Context, id session.ID) error {
	if s.full {
		return errors.New("the store is full")
	}
	return s.Store.Delete(ctx, id)
}

func (s *sharedStore) DeleteAt(ctx context.Context, id session.ID, _ uint64, _ session.Holder) error {
	return s.Delete(ctx, id)
}

// TestLogoutFailsIfOtherInstancesMissIt: the session goes on there, so the page
// must not confirm the logout, and the browser keeps the cookie to repeat it.
func TestLogoutFailsIfOtherInstancesMissIt(t *testing.T) {
	store := &sharedStore{Store: memory.New()}
	t.Cleanup(func() { _ = store.Close() })
	vault := keeper.NewVault(store)
	t.Cleanup(func() { _ = vault.Close(context.Background()) })
	g := newRig(t, func(s *setup) { s.session.Vault = vault })
	b := g.loggedIn()
	cookie := b.jar.get(sessionCookie).Value
	lines := append(slices.Clone(formPost), "Cookie: "+sessionCookie+"="+cookie)

	store.full = true
	a := g.do(g.request("POST", "/oauth2/logout", lines...))
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || a.header["Set-Cookie"] != nil {
		t.Errorf("got status %d, want 503, %v", a.status, a.header)
	}
	if !strings.Contains(a.body, "not signed out") || !strings.Contains(a.body, `action="/oauth2/logout"`) {
		t.Errorf("got page without the failure and a button to repeat:\n%s", a.body)
	}
	store.full = false
	if a := g.do(g.request("POST", "/oauth2/logout", lines...)); a.status != http.StatusSeeOther || a.header["Set-Cookie"] == nil {
		t.Errorf("tried again: got status %d, want 303, %v", a.status, a.header)
	}
}

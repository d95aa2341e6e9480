package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/memory"
)

// switchedStore is a store module whose server is there or not.
type switchedStore struct {
	up     bool
	shared bool
}

func (*switchedStore) StoreID() string { return "switched" }
func (s *switchedStore) Shared() bool  { return s.shared }
func (s *switchedStore) OpenStore() (session.Store, error) {
	if !s.up {
		return nil, errors.New("connection refused")
	}
	return memory.New(), nil
}

func askReady(t *testing.T) (status int, states []storeState) {
	t.Helper()
	w := httptest.NewRecorder()
	if err := serveReady(w, httptest.NewRequest(http.MethodGet, "/oauth_session/ready", nil)); err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Ready  bool         `json:"ready"`
		Stores []storeState `json:"stores"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if answer.Ready != (w.Code == http.StatusOK) {
		t.Errorf("status %d and ready %v", w.Code, answer.Ready)
	}
	return w.Code, answer.Stores
}

// TestReady: readiness follows the store, and names what is wrong.
func TestReady(t *testing.T) {
	if status, states := askReady(t); status != http.StatusOK || len(states) != 0 {
		t.Fatalf("with no store: %d, %+v", status, states)
	}
	module := &switchedStore{}
	var p pooled
	vault, err := p.vault(module)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.release(time.Now().Add(destructTimeout)); err != nil {
			t.Error(err)
		}
	})
	status, states := askReady(t)
	if status != http.StatusServiceUnavailable || len(states) != 1 || states[0].Ready || states[0].Error == "" || states[0].Store != "switched" {
		t.Errorf("with the store away: %d, %+v", status, states)
	}
	module.up = true
	vault.store.mu.Lock()
	vault.store.retryAt = vault.store.retryAt.Add(-reopenEvery)
	vault.store.mu.Unlock()
	if status, states := askReady(t); status != http.StatusOK || len(states) != 1 || !states[0].Ready || states[0].Error != "" {
		t.Errorf("with the store back: %d, %+v", status, states)
	}
	if err := serveReady(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/oauth_session/ready", nil)); err == nil {
		t.Error("POST is answered")
	}
}

// TestSharedStoreHasToBeOne: a module that says so must open one.
func TestSharedStoreHasToBeOne(t *testing.T) {
	s := &lazyStore{open: (&switchedStore{up: true}).OpenStore, shared: true}
	shared := lazySharedStore{s}
	shared.Watch(func([]session.ID) {})
	if _, err := shared.Acquire(context.Background(), session.ID{}, 1, session.Holder{}, session.Lease{}); err == nil {
		t.Error("a store for one process passes as one for several")
	}
}

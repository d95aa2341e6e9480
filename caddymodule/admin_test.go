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

// toggledStore is a store module that opens only while up is set.
type toggledStore struct {
	up     bool
	shared bool
}

func (*toggledStore) StoreID() string { return "toggled" }
func (s *toggledStore) Shared() bool  { return s.shared }
func (s *toggledStore) OpenStore() (session.Store, error) {
	if !s.up {
		return nil, errors.New("connection refused")
	}
	return memory.New(), nil
}

func getReadiness(t *testing.T) (status int, states []storeState) {
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
		t.Errorf("got status %d with ready %v", w.Code, answer.Ready)
	}
	return w.Code, answer.Stores
}

// The readiness endpoint names the store and its error.
func TestReadinessFollowsStore(t *testing.T) {
	if status, states := getReadiness(t); status != http.StatusOK || len(states) != 0 {
		t.Fatalf("without a store: got %d, %+v; want 200 and no states", status, states)
	}
	module := &toggledStore{}
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
	status, states := getReadiness(t)
	if status != http.StatusServiceUnavailable || len(states) != 1 || states[0].Ready || states[0].Error == "" || states[0].Store != "toggled" {
		t.Errorf("store down: got %d, %+v; want 503 and the error", status, states)
	}
	module.up = true
	vault.store.mu.Lock()
	vault.store.retryAt = vault.store.retryAt.Add(-reopenEvery)
	vault.store.mu.Unlock()
	if status, states := getReadiness(t); status != http.StatusOK || len(states) != 1 || !states[0].Ready || states[0].Error != "" {
		t.Errorf("store up again: got %d, %+v; want 200 and no error", status, states)
	}
	if err := serveReady(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/oauth_session/ready", nil)); err == nil {
		t.Error("POST: got no error")
	}
}

func TestStoreDeclaredSharedMustOpenSharedStore(t *testing.T) {
	s := &lazyStore{open: (&toggledStore{up: true}).OpenStore, shared: true}
	shared := lazySharedStore{s}
	shared.Watch(func([]session.ID) {})
	if _, err := shared.Acquire(context.Background(), session.ID{}, 1, session.Holder{}, session.Lease{}); err == nil {
		t.Error("got no error for a store that cannot be shared")
	}
}

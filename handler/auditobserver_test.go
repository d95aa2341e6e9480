package handler

import (
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestEachTamperedSessionIsAudited: IDs that differ in digits only are different sessions.
func TestEachTamperedSessionIsAudited(t *testing.T) {
	found := map[session.ID]int{}
	observe := NewAuditObserver(func(e AuditEvent) { found[e.Session]++ })
	for range 2 {
		for i := range byte(9) {
			observe(keeper.Event{Kind: keeper.EventUnreadable, ID: session.ID{i + 1}, Err: &seal.UnreadableError{Part: seal.PartHot}})
		}
	}
	if len(found) != 9 {
		t.Errorf("got events of %d sessions, want 9", len(found))
	}
	for id, n := range found {
		if n != 1 {
			t.Errorf("session %s: got %d events, want one", id, n)
		}
	}
}

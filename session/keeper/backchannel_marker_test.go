package keeper

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestMarkerKeepsTheLatestLogout, in whatever order the logouts arrive.
func TestMarkerKeepsTheLatestLogout(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		earlier, later := r.newLogout("alice", ""), r.newLogout("alice", "")
		later.IssuedAt = later.IssuedAt.Add(10 * time.Second)
		r.serverLogout(r.keeper, later, 0)
		r.serverLogout(r.keeper, earlier, 0)
		_, user, tokens := r.server.login()
		user.Subject, user.IssuedAt = "alice", later.IssuedAt
		if _, _, err := r.keeper.Create(t.Context(), user, tokens); err == nil {
			t.Error("Create: got no error for tokens from before the later logout")
		}
	})
}

// TestLoginFailsWhileMarkersCannotBeRead, because the server may have logged the user out.
func TestLoginFailsWhileMarkersCannotBeRead(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.store.fail(opView)
		_, user, tokens := r.server.login()
		_, _, err := r.keeper.Create(t.Context(), user, tokens)
		var unavailable *UnavailableError
		if !errors.As(err, &unavailable) {
			t.Errorf("Create: got error %v, want an *UnavailableError", err)
		}
		synctest.Wait()
		if n := len(r.store.items); n != 0 {
			t.Errorf("got %d items in the store, want none", n)
		}
	})
}

// TestLogoutReadsMarkersPastCopies: an instance without notifications sees the markers of the
// others.
func TestLogoutReadsMarkersPastCopies(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		r.users[0].missesPushes = true
		for i := range 6 {
			r.serverLogout(r.keepers[i%2], r.newLogout("alice", ""), 0)
		}
	})
}

// TestMarkerExpiredByThisClockOnlyIsReplaced: the marker of an earlier logout may have
// expired by this instance's clock and not yet by the store's.
func TestMarkerExpiredByThisClockOnlyIsReplaced(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.serverLogout(r.keeper, r.newLogout("alice", ""), 0)
		tries := 0
		r.store.setFault(func(op storeOp) (f storeFault) {
			switch op {
			case opView:
				f.err = session.ErrNotFound
			case opCreate:
				tries++
			}
			return f
		})
		r.serverLogout(r.keeper, r.newLogout("alice", ""), 0)
		if tries > 10 {
			t.Errorf("got %d tries to write a marker, want 10 at most", tries)
		}
	})
}

// TestUnreadableMarkerFailsTheLoginAndIsReported, because the time of the logout is unknown.
func TestUnreadableMarkerFailsTheLoginAndIsReported(t *testing.T) {
	for name, value := range map[string][]byte{"empty": {}, "short": {1, 2, 3}, "long": make([]byte, 9), "record": make([]byte, 400)} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.serverLogout(r.keeper, r.newLogout("alice", ""), 0)
				time.Sleep(2 * time.Second)
				r.loginAs(r.keeper, "alice", "1")
				id := markerID(r.config.Site.LogoutTargets("", "alice")[0].Tag)
				item, ok := r.store.item(id)
				if !ok {
					t.Fatal("got no marker in the store")
				}
				item.Value = value
				r.store.put(id, item)
				_, user, tokens := r.server.login()
				user.Subject, user.SID, user.IssuedAt = "alice", "2", time.Now()
				if _, _, err := r.keeper.Create(t.Context(), user, tokens); err == nil {
					t.Error("Create: got no error with an unreadable marker")
				}
				r.wantUnreadable(seal.PartLogoutMarker, 1)
				// The next logout replaces the marker.
				r.serverLogout(r.keeper, r.newLogout("alice", ""), 1)
				time.Sleep(2 * time.Second)
				r.loginAs(r.keeper, "alice", "3")
			})
		})
	}
}

package keeper

import (
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestLogoutFindsSessionsUnderOldAndNewKeys: a session has the tags of the key it was
// written with. Its next write gives it the tags of the new key.
func TestLogoutFindsSessionsUnderOldAndNewKeys(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		setKeys := func(keys ...byte) {
			var all []seal.Key
			for _, n := range keys {
				all = append(all, testKey(n))
			}
			ring, err := seal.NewKeyRing(all...)
			if err != nil {
				t.Fatal(err)
			}
			r.config.Site.SetKeys(ring)
		}
		old, moved := r.loginAs(r.keeper, "alice", "1"), r.loginAs(r.keeper, "alice", "2")
		before, _ := r.store.item(r.id(moved))
		setKeys(2, 1)
		time.Sleep(2 * maxUseInterval)
		r.fresh(moved) // writes the use, and the tags
		time.Sleep(time.Second)
		after, _ := r.store.item(r.id(moved))
		if len(before.Tags) != 2 || len(after.Tags) != 2 || before.Tags[0] == after.Tags[0] || before.Tags[1] == after.Tags[1] {
			t.Errorf("got tags %x under the new key, want two others than %x", after.Tags, before.Tags)
		}
		r.serverLogout(r.keeper, r.newLogout("", "1"), 1) // has the tags of the old key
		r.wantGone(old)
		setKeys(2)
		r.serverLogout(r.keeper, r.newLogout("alice", ""), 1)
		r.wantGone(moved)
	})
}

// TestLogoutFindsTheNewSID: a refreshed ID token may have another sid.
func TestLogoutFindsTheNewSID(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret := r.loginAs(r.keeper, "alice", "1")
		rec := r.stored(secret)
		rec.sid = "2"
		if err := r.keeper.write(t.Context(), seal.Ref{ID: r.id(secret), Secret: secret}, rec); err != nil {
			t.Fatal(err)
		}
		r.serverLogout(r.keeper, r.newLogout("", "2"), 1)
		r.wantGone(secret)
	})
}

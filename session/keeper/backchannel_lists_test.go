package keeper

import (
	"context"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// taggedStore is a store whose answers to Tagged a test replaces.
type taggedStore struct {
	*fakeStore
	list func(tag session.Tag, ids []session.ID) []session.ID
}

func (s *taggedStore) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	ids, err := s.fakeStore.Tagged(ctx, tag)
	return s.list(tag, ids), err
}

// TestLogoutWithSubjectSparesOtherUsersOfTheSID: a browser's session at the server may have
// had several users, and only one of them logs out.
func TestLogoutWithSubjectSparesOtherUsersOfTheSID(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		alice, bob := r.loginAs(r.keeper, "alice", "1"), r.loginAs(r.keeper, "bob", "1")
		r.serverLogout(r.keeper, r.newLogout("bob", "1"), 1)
		r.wantGone(bob)
		r.fresh(alice)
		time.Sleep(time.Second)
		r.loginAs(r.keeper, "alice", "1") // a login of alice is not affected either
		r.serverLogout(r.keeper, r.newLogout("", "1"), 2)
		r.wantGone(alice)
	})
}

// TestLogoutTrustsTheSIDIfTheListOfTheUserIsFull: a full list of the user does not show
// whether it contains the session.
func TestLogoutTrustsTheSIDIfTheListOfTheUserIsFull(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		full := make([]session.ID, session.MaxTagged)
		for i := range full {
			full[i] = session.ID{0xFF, byte(i >> 8), byte(i)}
		}
		robot := r.config.Site.LogoutTargets("", "robot")[0].Tag
		r.vault.store = &taggedStore{r.store, func(tag session.Tag, ids []session.ID) []session.ID {
			if tag == robot {
				return full
			}
			return ids
		}}
		secret := r.loginAs(r.keeper, "robot", "1")
		r.serverLogout(r.keeper, r.newLogout("robot", "1"), 1)
		r.wantGone(secret)
	})
}

// TestLogoutSearchesAgainAfterAFullList until no session is left.
func TestLogoutSearchesAgainAfterAFullList(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		first, second := r.loginAs(r.keeper, "robot", ""), r.loginAs(r.keeper, "robot", "")
		r.vault.store = &taggedStore{r.store, func(_ session.Tag, ids []session.ID) []session.ID {
			if len(ids) < 2 {
				return ids
			}
			full := make([]session.ID, session.MaxTagged)
			for i := range full {
				full[i] = session.ID{0xFF, byte(i >> 8), byte(i)}
			}
			full[0] = r.id(first)
			return full
		}}
		r.serverLogout(r.keeper, r.newLogout("robot", ""), 2)
		r.wantGone(first)
		r.wantGone(second)
	})
}

// TestLogoutDoesNotModifyListsOfTheStore, which may be the store's own memory.
func TestLogoutDoesNotModifyListsOfTheStore(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.loginAs(r.keeper, "alice", "1")
		r.loginAs(r.keeper, "bob", "1")
		lists := map[session.Tag][]session.ID{}
		r.vault.store = &taggedStore{r.store, func(tag session.Tag, ids []session.ID) []session.ID {
			lists[tag] = ids
			return ids
		}}
		sid := r.config.Site.LogoutTargets("1", "")[0].Tag
		r.serverLogout(r.keeper, r.newLogout("bob", "1"), 1)
		if ids := lists[sid]; len(ids) != 2 || ids[0] == ids[1] {
			t.Errorf("got list %v, want it unmodified", ids)
		}
	})
}

// TestLogoutFindsASessionThatChangesKeys during the search: it is written under the new key.
func TestLogoutFindsASessionThatChangesKeys(t *testing.T) {
	for _, tt := range []struct{ sub, sid string }{{"alice", ""}, {"", "1"}, {"alice", "1"}} {
		for moves := 1; moves <= 4; moves++ {
			inBubble(t, func(t *testing.T, r *rig) {
				secret := r.loginAs(r.keeper, "alice", "1")
				other := r.loginAs(r.keeper, "bob", "1")
				ring, err := seal.NewKeyRing(testKey(2), testKey(1))
				if err != nil {
					t.Fatal(err)
				}
				r.config.Site.SetKeys(ring)
				searches := 0
				r.vault.store = &taggedStore{r.store, func(_ session.Tag, ids []session.ID) []session.ID {
					searches++
					if _, there := r.store.item(r.id(secret)); searches == moves && there {
						if err := r.keeper.write(t.Context(), seal.Ref{ID: r.id(secret), Secret: secret}, r.stored(secret)); err != nil {
							t.Error(err)
						}
					}
					return ids
				}}
				n, err := r.keeper.EndByServerLogout(t.Context(), r.newLogout(tt.sub, tt.sid))
				if err != nil || n == 0 {
					t.Errorf("rewritten during search %d of %d: got %d, %v, want one session or more", moves, searches, n, err)
				}
				r.vault.store = r.store
				r.wantGone(secret)
				if tt.sub != "" {
					r.fresh(other)
				}
			})
		}
	}
}

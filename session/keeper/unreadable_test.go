package keeper

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// wantUnreadable checks that EventUnreadable was reported at least n times since the last
// call, always with this part; n = 0 means never.
func (r *rig) wantUnreadable(part seal.Part, n int) {
	r.t.Helper()
	r.events.mu.Lock()
	defer r.events.mu.Unlock()
	reported := 0
	for _, e := range r.events.all {
		if e.Kind != EventUnreadable {
			continue
		}
		reported++
		if e.Part() != part || e.ID == (session.ID{}) || !errors.Is(e.Err, seal.ErrUnreadable) {
			r.t.Errorf("got part %q, error %v and ID %v, want part %q", e.Part(), e.Err, e.ID, part)
		}
	}
	if reported < n || n == 0 && reported > 0 {
		r.t.Errorf("got %d events of an unreadable item, want %d", reported, n)
	}
	r.events.all = nil
}

// TestUnreadableItemIsNoSessionAndIsReported with the part that failed its check.
func TestUnreadableItemIsNoSessionAndIsReported(t *testing.T) {
	flip := func(at int) func(r *rig, item session.Item) session.Item {
		return func(_ *rig, item session.Item) session.Item {
			item.Value[(at+len(item.Value))%len(item.Value)] ^= 1
			return item
		}
	}
	set := func(value []byte) func(r *rig, item session.Item) session.Item {
		return func(_ *rig, item session.Item) session.Item { item.Value = value; return item }
	}
	tests := []struct {
		name  string
		part  seal.Part
		alter func(r *rig, item session.Item) session.Item
		// cold is set if only refreshes and logouts read the part.
		cold bool
	}{
		{"empty", seal.PartFormat, set(nil), false},
		{"a marker", seal.PartFormat, set(make([]byte, 8)), false},
		{"garbage", seal.PartFormat, set(bytes.Repeat([]byte("x"), 500)), false},
		{"too long", seal.PartFormat, set(make([]byte, maxSealed+1)), false},
		{"format of a later release", seal.PartFormat, flip(2), false},
		{"another key", seal.PartKey, flip(4), false},
		{"another version in the head", seal.PartVersion, flip(4 + keyIDSize), false},
		{"another commitment", seal.PartCommitment, flip(headSize - 1), false},
		{"another length", seal.PartFormat, flip(headSize), false},
		{"hot part altered", seal.PartHot, flip(headSize + 4 + 20), false},
		{"cold part altered", seal.PartCold, flip(-1), true},
		{"cold part cut", seal.PartCold, func(_ *rig, item session.Item) session.Item {
			item.Value = item.Value[:len(item.Value)-1]
			return item
		}, true},
		{"another version of the item", seal.PartVersion, func(_ *rig, item session.Item) session.Item { item.Version += 3; return item }, false},
		{"an old record as a new version", seal.PartVersion, func(r *rig, item session.Item) session.Item {
			item.Version++
			return item
		}, false},
		{"the record of another session", seal.PartCommitment, func(r *rig, item session.Item) session.Item {
			other, _ := r.login()
			swapped, _ := r.store.item(r.id(other))
			item.Value = swapped.Value
			return item
		}, false},
		{"the hot part of another session", seal.PartHot, func(r *rig, item session.Item) session.Item {
			other, _ := r.login()
			swapped, _ := r.store.item(r.id(other))
			copy(item.Value[headSize+4:headSize+4+50], swapped.Value[headSize+4:])
			return item
		}, false},
		{"the cold part of another session", seal.PartCold, func(r *rig, item session.Item) session.Item {
			other, _ := r.login()
			swapped, _ := r.store.item(r.id(other))
			copy(item.Value[len(item.Value)-50:], swapped.Value[len(swapped.Value)-50:])
			return item
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secret, _ := r.login()
				id := r.id(secret)
				item, _ := r.store.item(id)
				r.store.put(id, tt.alter(r, item))
				time.Sleep(time.Minute)
				steps := map[string]func() error{
					"Fresh": func() error { _, err := r.keeper.Fresh(t.Context(), secret); return err },
					"Peek":  func() error { _, err := r.keeper.Peek(t.Context(), secret); return err },
					"FreshSince": func() error {
						_, err := r.keeper.FreshSince(t.Context(), secret, time.Now())
						return err
					},
					"End": func() error { _, err := r.keeper.End(t.Context(), secret, EndLogout); return err },
				}
				for name, step := range steps {
					r.events.all = nil
					err := step()
					if tt.cold && (name == "Fresh" || name == "Peek") {
						if err != nil {
							t.Errorf("%s: got error %v, want none", name, err)
						}
						r.wantUnreadable(tt.part, 0)
						continue
					}
					if !errors.Is(err, ErrNoSession) {
						t.Errorf("%s: got error %v, want ErrNoSession", name, err)
					}
					r.wantUnreadable(tt.part, 1)
				}
			})
		})
	}
}

// TestRemovedKeyIsNamed in the event, because the operator may have removed it too early.
func TestRemovedKeyIsNamed(t *testing.T) {
	for _, cached := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			secret, _ := r.login()
			if cached {
				r.fresh(secret)
			}
			r.config.Site.SetKeys(mustRing(t, testKey(2)))
			if err := r.wantError(secret); !errors.Is(err, ErrNoSession) {
				t.Errorf("Fresh: got error %v, want ErrNoSession", err)
			}
			name := testKey(1).ID()
			for _, e := range r.events.all {
				if e.Kind == EventUnreadable && !strings.Contains(e.Err.Error(), name) {
					t.Errorf("got event error %v, want it to name the key %s", e.Err, name)
				}
			}
			r.wantUnreadable(seal.PartKey, 1)
		})
	}
}

// TestMissingItemsAreNotReported as unreadable: neither for made-up cookies nor for ended
// sessions.
func TestMissingItemsAreNotReported(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		ended, _ := r.login()
		idle, _ := r.login()
		if _, err := r.keeper.End(t.Context(), ended, EndLogout); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			for _, secret := range []seal.Secret{seal.NewSecret(), {}, ended} {
				if err := r.wantError(secret); !errors.Is(err, ErrNoSession) {
					t.Errorf("Fresh: got error %v, want ErrNoSession", err)
				}
			}
			time.Sleep(25 * time.Hour)
		}
		if err := r.wantError(idle); !errors.Is(err, ErrNoSession) {
			t.Errorf("Fresh: got error %v, want ErrNoSession", err)
		}
		r.store.fail()
		if err := r.wantError(seal.NewSecret()); !errors.As(err, new(*UnavailableError)) {
			t.Errorf("Fresh: got error %v, want an *UnavailableError", err)
		}
		r.wantUnreadable("", 0)
	})
}

// TestUnwrittenTokensOutliveAnUnreadableItem: the session goes on with the tokens in memory,
// and the item is reported.
func TestUnwrittenTokensOutliveAnUnreadableItem(t *testing.T) {
	inBubbleWithInstances(t, 1, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		time.Sleep(time.Minute)
		r.users[0].setFault(func(op sharedOp) (f storeFault) { return failIf(op == sharedReplace) })
		if _, err := r.keepers[0].FreshSince(t.Context(), secret, time.Now()); err != nil {
			t.Fatal(err)
		}
		item, _ := r.store.item(r.id(secret))
		item.Value[headSize-1] ^= 1
		r.store.put(r.id(secret), item)
		r.users[0].dropCopies()
		r.freshAt(0, secret)
		r.wantUnreadable(seal.PartCommitment, 1)
	})
}

// TestDamagedItemIsNoSessionAndIsReported: the store itself cannot read the item.
func TestDamagedItemIsNoSessionAndIsReported(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.store.setFault(func(op storeOp) (f storeFault) {
			if op == opView {
				f.err = session.ErrDamaged
			}
			return f
		})
		if err := r.wantError(secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("Fresh: got error %v, want ErrNoSession", err)
		}
		r.wantUnreadable(seal.PartItem, 1)
		if _, err := r.keeper.End(t.Context(), secret, EndLogout); !errors.Is(err, ErrNoSession) {
			t.Errorf("End: got error %v, want ErrNoSession", err)
		}
		r.wantUnreadable(seal.PartItem, 1)
	})
}

package keeper

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// member logs in as one of several sessions of a user.
func (r *rig) member(k *Keeper, sub, sid string) seal.Secret {
	r.t.Helper()
	_, who, tokens := r.server.login()
	who.Subject, who.SID, who.IssuedAt = sub, sid, time.Now()
	secret, _, err := k.Create(r.t.Context(), who, tokens)
	if err != nil {
		r.t.Fatalf("creating session: %v", err)
	}
	return secret
}

// logoutOf is a message of the server, each time another one.
func (r *rig) logoutOf(sub, sid string) Logout {
	r.messages++
	now := time.Now()
	return Logout{Subject: sub, SID: sid, IssuedAt: now, Token: fmt.Sprint("token", r.messages), Until: now.Add(5 * time.Minute)}
}

func (r *rig) logOut(k *Keeper, l Logout, want int) {
	r.t.Helper()
	if n, err := k.EndByServerLogout(r.t.Context(), l); n != want || err != nil {
		r.t.Errorf("EndByServerLogout: %d, %v; want %d", n, err, want)
	}
}

func TestServerLogsOut(t *testing.T) {
	type member struct{ sub, sid string }
	all := []member{{"alice", "1"}, {"alice", "2"}, {"alice", ""}, {"bob", "3"}, {"bob", ""}, {"", "4"}, {"", ""}}
	tests := []struct {
		name     string
		sub, sid string
		ends     []member
	}{
		{"session", "", "1", []member{{"alice", "1"}}},
		{"session of nobody known", "", "4", []member{{"", "4"}}},
		{"user", "alice", "", []member{{"alice", "1"}, {"alice", "2"}, {"alice", ""}}},
		{"session and user", "bob", "3", []member{{"bob", "3"}, {"bob", ""}}},
		{"unknown session of a user", "alice", "9", []member{{"alice", ""}}},
		{"session of one user, and another user", "bob", "1", []member{{"bob", ""}}},
		{"the other way round", "alice", "3", []member{{"alice", ""}}},
		{"session of one user, and an unknown user", "carol", "1", nil},
		{"session of nobody known, and a user", "alice", "4", []member{{"alice", ""}}},
		{"unknown session", "", "9", nil},
		{"unknown user", "carol", "", nil},
		{"session named as a user", "1", "", nil},
		{"user named as a session", "", "alice", nil},
		{"nobody", "", "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secrets, live := map[member]seal.Secret{}, map[member]context.Context{}
				for _, m := range all {
					secrets[m] = r.member(r.keeper, m.sub, m.sid)
					ctx, attached := attach(r.keeper, t.Context(), r.fresh(secrets[m]))
					defer attached.Detach()
					live[m] = ctx
				}
				r.logOut(r.keeper, r.logoutOf(tt.sub, tt.sid), len(tt.ends))
				over := map[member]bool{}
				for _, m := range tt.ends {
					over[m] = true
					r.gone(secrets[m])
				}
				for _, m := range all {
					if ended := live[m].Err() != nil; ended != over[m] {
						t.Errorf("%v: its request has ended: %v", m, ended)
					}
					if !over[m] {
						r.fresh(secrets[m])
					}
				}
				if n := r.events.count(EventEnded); n != len(tt.ends) {
					t.Errorf("%d ends were told, want %d", n, len(tt.ends))
				}
				// The list may be out of date; nothing ends twice.
				r.logOut(r.keeper, r.logoutOf(tt.sub, tt.sid), 0)
			})
		})
	}
}

// TestServerLogsOutOfOneSite: sites may share store, keys and server.
func TestServerLogsOutOfOneSite(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		here := r.member(r.keeper, "alice", "1")
		ring, err := seal.NewKeyRing(testKey(1))
		if err != nil {
			t.Fatal(err)
		}
		config := r.config
		config.Site = seal.NewSite(ring, "https://as.example.com", "client", "other cookie")
		other := mustKeeper(config)
		there := r.member(other, "alice", "1")
		r.logOut(r.keeper, r.logoutOf("alice", ""), 1)
		r.gone(here)
		if _, err := other.Fresh(t.Context(), there); err != nil {
			t.Errorf("the session of the other site: %v", err)
		}
	})
}

func TestServerLogsOutOnlyOncePerMessage(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		r.member(r.keepers[0], "alice", "1")
		message := r.logoutOf("alice", "")
		r.logOut(r.keepers[0], message, 1)
		time.Sleep(time.Minute)
		again := r.member(r.keepers[1], "alice", "2")
		for _, k := range r.keepers {
			if n, err := k.EndByServerLogout(t.Context(), message); n != 0 || !errors.Is(err, ErrReplayed) {
				t.Errorf("the same message again: %d, %v", n, err)
			}
		}
		r.freshAt(0, again)
		// It is not remembered for ever.
		time.Sleep(5 * time.Minute)
		r.logOut(r.keepers[0], message, 1)
	})
}

// TestServerLogsOutOfAllInstances also where they have seen nothing of the
// session but a request that is still open.
func TestServerLogsOutOfAllInstances(t *testing.T) {
	inBubbleWithInstances(t, 3, func(t *testing.T, r *instances) {
		secret, other := r.member(r.keepers[0], "alice", "1"), r.member(r.keepers[0], "bob", "2")
		var live []context.Context
		for i, k := range r.keepers {
			ctx, attached := attach(k, t.Context(), r.freshAt(i, secret))
			defer attached.Detach()
			live = append(live, ctx)
			ctx, attached = attach(k, t.Context(), r.freshAt(i, other))
			defer attached.Detach()
			live = append(live, ctx)
		}
		r.logOut(r.keepers[2], r.logoutOf("", "1"), 1)
		synctest.Wait()
		for i, ctx := range live {
			if ended, want := ctx.Err() != nil, i%2 == 0; ended != want {
				t.Errorf("request %d has ended: %v, want %v", i, ended, want)
			}
		}
		for i, k := range r.keepers {
			if _, err := k.Fresh(t.Context(), secret); !errors.Is(err, ErrNoSession) {
				t.Errorf("at instance %d: %v", i, err)
			}
			r.freshAt(i, other)
		}
	})
}

// TestServerLogsOutDuringRefresh: whatever point it has reached, at another
// instance, it brings nothing back, and its tokens are given back.
func TestServerLogsOutDuringRefresh(t *testing.T) {
	for _, after := range []time.Duration{500 * time.Millisecond, 1200 * time.Millisecond, 2500 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
				r.server.set(func() { r.server.latency, r.server.identifyDelay, r.server.idTokens = time.Second, 2*time.Second, true })
				r.users[0].setFault(func(op sharedOp) (f storeFault) {
					if op == sharedReplace {
						f.before, f.after = 300*time.Millisecond, 300*time.Millisecond
					}
					return f
				})
				secret := r.member(r.keepers[0], "alice", "1")
				r.due()
				r.freshAt(0, secret)
				time.Sleep(after)
				r.logOut(r.keepers[1], r.logoutOf("alice", ""), 1)
				time.Sleep(time.Minute)
				r.gone(secret)
				r.wantNoLease(secret)
				if n := r.server.calls(); n != 1 {
					t.Errorf("%d refresh requests", n)
				}
				r.server.mu.Lock()
				defer r.server.mu.Unlock()
				if len(r.server.discarded) != 1 {
					t.Errorf("given back: %q, want the one token", r.server.discarded)
				}
			})
		})
	}
}

// TestServerLogsOutDuringLogin: a login that was under way counts as well,
// whoever is faster.
func TestServerLogsOutDuringLogin(t *testing.T) {
	for _, tt := range []struct {
		name     string
		sub, sid string
		issued   time.Duration // the tokens, after the logout
		ends     bool
	}{
		{"user, before", "alice", "", -time.Second, true},
		{"user, same second", "alice", "", 0, true},
		{"user, after", "alice", "", time.Second, false},
		{"session, before", "", "1", -time.Second, true},
		{"session and user, before", "alice", "1", -time.Second, true},
		{"session and user, after", "alice", "1", time.Second, false},
		{"session, and another user", "bob", "1", -time.Second, false},
		{"other session", "", "2", -time.Second, false},
		{"other session of the user", "alice", "2", -time.Second, false},
		{"other user", "bob", "", -time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
				message := r.logoutOf(tt.sub, tt.sid)
				create := func() error {
					_, who, tokens := r.server.login()
					who.Subject, who.SID, who.IssuedAt = "alice", "1", message.IssuedAt.Add(tt.issued)
					_, _, err := r.keepers[0].Create(t.Context(), who, tokens)
					return err
				}
				// The item is written after the search and before anything else of Create.
				r.users[0].setFault(func(op sharedOp) (f storeFault) {
					if op == sharedCreate {
						f.before = time.Second
					}
					return f
				})
				created := make(chan error, 1)
				go func() { created <- create() }()
				synctest.Wait()
				r.logOut(r.keepers[1], message, 0)
				err := <-created
				var unavailable *UnavailableError
				if tt.ends != errors.As(err, &unavailable) || !tt.ends && err != nil {
					t.Errorf("Create: %v, want an *UnavailableError: %v", err, tt.ends)
				}
				kept := 0
				r.state.mu.Lock()
				for _, item := range r.state.items {
					if len(item.Tags) > 0 {
						kept++
					}
				}
				r.state.mu.Unlock()
				if ended := kept == 0; ended != tt.ends {
					t.Errorf("%d sessions are kept", kept)
				}
				// It does not last.
				time.Sleep(markerRetention)
				if err := create(); err != nil {
					t.Errorf("long after: %v", err)
				}
			})
		})
	}
}

// TestLatestLogoutCounts, in whatever order messages come.
func TestLatestLogoutCounts(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		earlier, later := r.logoutOf("alice", ""), r.logoutOf("alice", "")
		later.IssuedAt = later.IssuedAt.Add(10 * time.Second)
		r.logOut(r.keeper, later, 0)
		r.logOut(r.keeper, earlier, 0)
		_, who, tokens := r.server.login()
		who.Subject, who.IssuedAt = "alice", later.IssuedAt
		if _, _, err := r.keeper.Create(t.Context(), who, tokens); err == nil {
			t.Error("tokens from before the later logout became a session")
		}
	})
}

// TestServerLogsOutWhileStoreFails: the server is told to try again, and is
// heard then. What was found is over here all the same.
func TestServerLogsOutWhileStoreFails(t *testing.T) {
	for name, fails := range map[string][]storeOp{
		"everything": nil, "reading": {opView}, "searching": {opTagged}, "writing": {opCreate, opReplace, opDelete}, "deleting": {opDelete},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secret := r.member(r.keeper, "alice", "1")
				message := r.logoutOf("alice", "")
				r.store.failing(fails...)
				for range 2 {
					_, err := r.keeper.EndByServerLogout(t.Context(), message)
					var unavailable *UnavailableError
					if !errors.As(err, &unavailable) || !errors.Is(err, errStoreDown) {
						t.Fatalf("EndByServerLogout: %v", err)
					}
				}
				if name == "deleting" {
					if err := r.refuse(secret); !errors.Is(err, ErrNoSession) {
						t.Errorf("Fresh: %v", err)
					}
				}
				r.store.healthy()
				if _, err := r.keeper.EndByServerLogout(t.Context(), message); err != nil {
					t.Errorf("the same message again: %v", err)
				}
				r.gone(secret)
				if _, err := r.keeper.EndByServerLogout(t.Context(), message); !errors.Is(err, ErrReplayed) {
					t.Errorf("and once more: %v", err)
				}
			})
		})
	}
}

// TestLoginWhileLogoutsCannotBeRead: nobody gets a session of which it is not
// known whether it is over.
func TestLoginWhileLogoutsCannotBeRead(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.store.failing(opView)
		_, who, tokens := r.server.login()
		_, _, err := r.keeper.Create(t.Context(), who, tokens)
		var unavailable *UnavailableError
		if !errors.As(err, &unavailable) {
			t.Errorf("Create: %v", err)
		}
		synctest.Wait()
		if n := len(r.store.items); n != 0 {
			t.Errorf("%d items are left", n)
		}
	})
}

// TestServerLogsOutByAnOldList: what is gone does not end again.
func TestServerLogsOutByAnOldList(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.store.stale = []session.ID{{1}, {2}}
		secret := r.member(r.keeper, "alice", "1")
		r.logOut(r.keeper, r.logoutOf("", "1"), 1)
		r.gone(secret)
		if n := r.events.count(EventEnded); n != 1 {
			t.Errorf("%d ends were told", n)
		}
	})
}

// TestServerLogsOutPastOldCopies: an instance that no pushes reach still knows
// what the others have noted.
func TestServerLogsOutPastOldCopies(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		r.users[0].missesPushes = true
		for i := range 6 {
			r.logOut(r.keepers[i%2], r.logoutOf("alice", ""), 0)
		}
	})
}

// TestServerLogsOutOfManySessions at once, more than are ended at a time.
func TestServerLogsOutOfManySessions(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const many = 5 * maxConcurrentEnds
		for range many {
			r.member(r.keeper, "robot", "")
		}
		r.logOut(r.keeper, r.logoutOf("robot", ""), many)
	})
}

// TestLogoutOfARenamedSession: a refresh gives the session another `sid`, and
// the server logs that out before the refresh is done.
func TestLogoutOfARenamedSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.idTokens = true
		r.server.identifyDelay = 2 * time.Second
		secret := r.member(r.keeper, "alice", "old")
		r.due()
		issued := time.Now()
		r.server.identify = func(current Identity, _ Tokens) (Identity, error) {
			current.SID, current.IssuedAt = "new", issued
			return current, nil
		}
		r.fresh(secret) // begins the refresh
		time.Sleep(time.Second)
		r.logOut(r.keeper, r.logoutOf("", "new"), 0)
		time.Sleep(5 * time.Second)
		r.gone(secret)
	})
}

// TestLogoutAfterALostDeletion: a store that fails over can lose a deletion it
// has acknowledged. Whoever logs out once more must not be told that all is done.
func TestLogoutAfterALostDeletion(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret := r.member(r.keeper, "alice", "1")
		item, _ := r.store.item(r.id(secret))
		r.logOut(r.keeper, r.logoutOf("alice", ""), 1)
		r.store.mu.Lock()
		r.store.items[r.id(secret)] = item
		r.store.mu.Unlock()
		r.logOut(r.keeper, r.logoutOf("alice", ""), 1)
		time.Sleep(2 * endRetention) // as long as this process knows better
		r.gone(secret)
	})
}

// TestMarkThatIsOverHere: the mark of an earlier logout may be over by this
// instance's clock and not yet by the store's.
func TestMarkThatIsOverHere(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.logOut(r.keeper, r.logoutOf("alice", ""), 0)
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
		r.logOut(r.keeper, r.logoutOf("alice", ""), 0)
		if tries > 10 {
			t.Errorf("%d tries to write a mark", tries)
		}
	})
}

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

// loginAs creates a session with the given sub and sid and returns its secret.
func (r *rig) loginAs(k *Keeper, sub, sid string) seal.Secret {
	r.t.Helper()
	_, user, tokens := r.server.login()
	user.Subject, user.SID, user.IssuedAt = sub, sid, time.Now()
	secret, _, err := k.Create(r.t.Context(), user, tokens)
	if err != nil {
		r.t.Fatalf("creating session: %v", err)
	}
	return secret
}

// newLogout returns a new logout token of the server.
func (r *rig) newLogout(sub, sid string) Logout {
	r.logoutTokens++
	now := time.Now()
	return Logout{Subject: sub, SID: sid, IssuedAt: now, Token: fmt.Sprint("token", r.logoutTokens), Until: now.Add(5 * time.Minute)}
}

// serverLogout carries out a logout of the server and checks how many sessions it ends.
func (r *rig) serverLogout(k *Keeper, l Logout, want int) {
	r.t.Helper()
	if n, err := k.EndByServerLogout(r.t.Context(), l); n != want || err != nil {
		r.t.Errorf("EndByServerLogout: got %d, %v, want %d", n, err, want)
	}
}

// TestLogoutEndsTheSessionsItNames, by sid, sub or both, and no others.
func TestLogoutEndsTheSessionsItNames(t *testing.T) {
	type member struct{ sub, sid string }
	all := []member{{"alice", "1"}, {"alice", "2"}, {"alice", ""}, {"bob", "3"}, {"bob", ""}, {"", "4"}, {"", ""}}
	tests := []struct {
		name     string
		sub, sid string
		ends     []member
	}{
		{"session", "", "1", []member{{"alice", "1"}}},
		{"session without a subject", "", "4", []member{{"", "4"}}},
		{"user", "alice", "", []member{{"alice", "1"}, {"alice", "2"}, {"alice", ""}}},
		{"session and user", "bob", "3", []member{{"bob", "3"}, {"bob", ""}}},
		{"unknown session of a user", "alice", "9", []member{{"alice", ""}}},
		{"session of one user, and another user", "bob", "1", []member{{"bob", ""}}},
		{"user, and the session of another user", "alice", "3", []member{{"alice", ""}}},
		{"session of one user, and an unknown user", "carol", "1", nil},
		{"session without a subject, and a user", "alice", "4", []member{{"alice", ""}}},
		{"unknown session", "", "9", nil},
		{"unknown user", "carol", "", nil},
		{"session named as a user", "1", "", nil},
		{"user named as a session", "", "alice", nil},
		{"neither", "", "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secrets, live := map[member]seal.Secret{}, map[member]context.Context{}
				for _, m := range all {
					secrets[m] = r.loginAs(r.keeper, m.sub, m.sid)
					ctx, attached := attach(r.keeper, t.Context(), r.fresh(secrets[m]))
					defer attached.Detach()
					live[m] = ctx
				}
				r.serverLogout(r.keeper, r.newLogout(tt.sub, tt.sid), len(tt.ends))
				wantEnded := map[member]bool{}
				for _, m := range tt.ends {
					wantEnded[m] = true
					r.wantGone(secrets[m])
				}
				for _, m := range all {
					if ended := live[m].Err() != nil; ended != wantEnded[m] {
						t.Errorf("%v: got a request that has ended: %v, want %v", m, ended, wantEnded[m])
					}
					if !wantEnded[m] {
						r.fresh(secrets[m])
					}
				}
				if n := r.events.count(EventEnded); n != len(tt.ends) {
					t.Errorf("got %d events of an end, want %d", n, len(tt.ends))
				}
				// The store may still list the sessions; none ends twice.
				r.serverLogout(r.keeper, r.newLogout(tt.sub, tt.sid), 0)
			})
		})
	}
}

// TestLogoutEndsSessionsOfItsOwnSiteOnly: sites may share store, keys and server.
func TestLogoutEndsSessionsOfItsOwnSiteOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		here := r.loginAs(r.keeper, "alice", "1")
		ring, err := seal.NewKeyRing(testKey(1))
		if err != nil {
			t.Fatal(err)
		}
		config := r.config
		config.Site = seal.NewSite(ring, "https://as.example.com", "client", "other cookie")
		other := mustKeeper(config)
		there := r.loginAs(other, "alice", "1")
		r.serverLogout(r.keeper, r.newLogout("alice", ""), 1)
		r.wantGone(here)
		if _, err := other.Fresh(t.Context(), there); err != nil {
			t.Errorf("Fresh at the other site: got error %v, want none", err)
		}
	})
}

func TestLogoutTokenIsAcceptedOnceOverAllInstances(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		r.loginAs(r.keepers[0], "alice", "1")
		message := r.newLogout("alice", "")
		r.serverLogout(r.keepers[0], message, 1)
		time.Sleep(time.Minute)
		again := r.loginAs(r.keepers[1], "alice", "2")
		for _, k := range r.keepers {
			if n, err := k.EndByServerLogout(t.Context(), message); n != 0 || !errors.Is(err, ErrReplayed) {
				t.Errorf("the same token again: got %d, %v, want 0, ErrReplayed", n, err)
			}
		}
		r.freshAt(0, again)
		// The token is not remembered for ever.
		time.Sleep(5 * time.Minute)
		r.serverLogout(r.keepers[0], message, 1)
	})
}

// TestLogoutEndsRequestsAtAllInstances of the session, and no others.
func TestLogoutEndsRequestsAtAllInstances(t *testing.T) {
	inBubbleWithInstances(t, 3, func(t *testing.T, r *instances) {
		secret, other := r.loginAs(r.keepers[0], "alice", "1"), r.loginAs(r.keepers[0], "bob", "2")
		var live []context.Context
		for i, k := range r.keepers {
			ctx, attached := attach(k, t.Context(), r.freshAt(i, secret))
			defer attached.Detach()
			live = append(live, ctx)
			ctx, attached = attach(k, t.Context(), r.freshAt(i, other))
			defer attached.Detach()
			live = append(live, ctx)
		}
		r.serverLogout(r.keepers[2], r.newLogout("", "1"), 1)
		synctest.Wait()
		for i, ctx := range live {
			if ended, want := ctx.Err() != nil, i%2 == 0; ended != want {
				t.Errorf("request %d: got ended %v, want %v", i, ended, want)
			}
		}
		for i, k := range r.keepers {
			if _, err := k.Fresh(t.Context(), secret); !errors.Is(err, ErrNoSession) {
				t.Errorf("Fresh at instance %d: got error %v, want ErrNoSession", i, err)
			}
			r.freshAt(i, other)
		}
	})
}

// TestLogoutDuringARefreshRevokesItsTokens, at every step of a refresh at another instance,
// and the session does not return.
func TestLogoutDuringARefreshRevokesItsTokens(t *testing.T) {
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
				secret := r.loginAs(r.keepers[0], "alice", "1")
				r.waitUntilDue()
				r.freshAt(0, secret)
				time.Sleep(after)
				r.serverLogout(r.keepers[1], r.newLogout("alice", ""), 1)
				time.Sleep(time.Minute)
				r.wantGone(secret)
				r.wantNoLease(secret)
				if n := r.server.calls(); n != 1 {
					t.Errorf("got %d refresh requests, want 1", n)
				}
				r.server.mu.Lock()
				defer r.server.mu.Unlock()
				if len(r.server.discarded) != 1 {
					t.Errorf("got discarded tokens %q, want one", r.server.discarded)
				}
			})
		})
	}
}

// TestLogoutDuringALoginEndsIt if the server issued the tokens before the logout.
func TestLogoutDuringALoginEndsIt(t *testing.T) {
	for _, tt := range []struct {
		name     string
		sub, sid string
		issued   time.Duration // time of the tokens after the logout
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
				message := r.newLogout(tt.sub, tt.sid)
				create := func() error {
					_, user, tokens := r.server.login()
					user.Subject, user.SID, user.IssuedAt = "alice", "1", message.IssuedAt.Add(tt.issued)
					_, _, err := r.keepers[0].Create(t.Context(), user, tokens)
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
				r.serverLogout(r.keepers[1], message, 0)
				err := <-created
				var unavailable *UnavailableError
				if tt.ends != errors.As(err, &unavailable) || !tt.ends && err != nil {
					t.Errorf("Create: got error %v, want an *UnavailableError: %v", err, tt.ends)
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
					t.Errorf("got %d sessions in the store, want none: %v", kept, tt.ends)
				}
				// The marker expires.
				time.Sleep(markerRetention)
				if err := create(); err != nil {
					t.Errorf("Create after markerRetention: got error %v, want none", err)
				}
			})
		})
	}
}

// TestFailedLogoutCanBeRepeated: the server gets an error while the store fails, and its next
// try succeeds. Sessions that were found have ended in this process.
func TestFailedLogoutCanBeRepeated(t *testing.T) {
	for name, fails := range map[string][]storeOp{
		"everything": nil, "reading": {opView}, "searching": {opTagged}, "writing": {opCreate, opReplace, opDelete}, "deleting": {opDelete},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secret := r.loginAs(r.keeper, "alice", "1")
				message := r.newLogout("alice", "")
				r.store.fail(fails...)
				for range 2 {
					_, err := r.keeper.EndByServerLogout(t.Context(), message)
					var unavailable *UnavailableError
					if !errors.As(err, &unavailable) || !errors.Is(err, errStoreDown) {
						t.Fatalf("EndByServerLogout: got error %v, want an *UnavailableError", err)
					}
				}
				if name == "deleting" {
					if err := r.wantError(secret); !errors.Is(err, ErrNoSession) {
						t.Errorf("Fresh: got error %v, want ErrNoSession", err)
					}
				}
				r.store.clearFaults()
				if _, err := r.keeper.EndByServerLogout(t.Context(), message); err != nil {
					t.Errorf("try with a working store: got error %v, want none", err)
				}
				r.wantGone(secret)
				if _, err := r.keeper.EndByServerLogout(t.Context(), message); !errors.Is(err, ErrReplayed) {
					t.Errorf("try after a success: got error %v, want ErrReplayed", err)
				}
			})
		})
	}
}

// TestLogoutIgnoresListedItemsThatAreGone.
func TestLogoutIgnoresListedItemsThatAreGone(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.store.stale = []session.ID{{1}, {2}}
		secret := r.loginAs(r.keeper, "alice", "1")
		r.serverLogout(r.keeper, r.newLogout("", "1"), 1)
		r.wantGone(secret)
		if n := r.events.count(EventEnded); n != 1 {
			t.Errorf("got %d events of an end, want 1", n)
		}
	})
}

// TestLogoutEndsMoreSessionsThanMaxConcurrentEnds.
func TestLogoutEndsMoreSessionsThanMaxConcurrentEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const many = 5 * maxConcurrentEnds
		for range many {
			r.loginAs(r.keeper, "robot", "")
		}
		r.serverLogout(r.keeper, r.newLogout("robot", ""), many)
	})
}

// TestLogoutOfANewSIDDuringItsRefreshEndsTheSession: a refresh gives the session another sid,
// and the server logs that sid out before the refresh is committed.
func TestLogoutOfANewSIDDuringItsRefreshEndsTheSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.idTokens = true
		r.server.identifyDelay = 2 * time.Second
		secret := r.loginAs(r.keeper, "alice", "old")
		r.waitUntilDue()
		issued := time.Now()
		r.server.identify = func(current Identity, _ Tokens) (Identity, error) {
			current.SID, current.IssuedAt = "new", issued
			return current, nil
		}
		r.fresh(secret) // begins the refresh
		time.Sleep(time.Second)
		r.serverLogout(r.keeper, r.newLogout("", "new"), 0)
		time.Sleep(5 * time.Second)
		r.wantGone(secret)
	})
}

// TestRepeatedLogoutDeletesAgain: a failover of the store can lose a deletion that it has
// acknowledged. The next logout must not report that no session existed.
func TestRepeatedLogoutDeletesAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret := r.loginAs(r.keeper, "alice", "1")
		item, _ := r.store.item(r.id(secret))
		r.serverLogout(r.keeper, r.newLogout("alice", ""), 1)
		r.store.mu.Lock()
		r.store.items[r.id(secret)] = item
		r.store.mu.Unlock()
		r.serverLogout(r.keeper, r.newLogout("alice", ""), 1)
		time.Sleep(2 * endRetention) // until this process has forgotten the end
		r.wantGone(secret)
	})
}

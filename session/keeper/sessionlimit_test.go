package keeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// wantAlive checks which of some sessions a keeper still has.
func wantAlive(t *testing.T, k *Keeper, secrets []seal.Secret, want ...int) {
	t.Helper()
	alive := map[int]bool{}
	for _, i := range want {
		alive[i] = true
	}
	for i, secret := range secrets {
		_, err := k.Peek(t.Context(), secret)
		if err != nil && !errors.Is(err, ErrNoSession) {
			t.Errorf("session %d: got error %v", i, err)
		}
		if got := err == nil; got != alive[i] {
			t.Errorf("session %d: got alive %v, want %v", i, got, alive[i])
		}
	}
}

// TestOldestSessionsBeyondTheLimitEnd, with their requests, and learn the reason. Other
// users are not affected.
func TestOldestSessionsBeyondTheLimitEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		k := r.reconfigure(func(c *Config) { c.SessionLimit = 2 })
		bob := r.loginFrom(k, "bob", "")
		nobody := []seal.Secret{r.loginFrom(k, "", ""), r.loginFrom(k, "", ""), r.loginFrom(k, "", "")}
		var secrets []seal.Secret
		for range 2 {
			secrets = append(secrets, r.loginFrom(k, "alice", ""))
			time.Sleep(time.Minute)
		}
		live, attached := attach(k, t.Context(), r.fresh(secrets[0]))
		defer attached.Detach()
		wantAlive(t, k, secrets, 0, 1)
		secrets = append(secrets, r.loginFrom(k, "alice", ""))
		wantAlive(t, k, secrets, 1, 2)
		if !errors.Is(context.Cause(live), ErrNoSession) {
			t.Errorf("request of the ended session: got cause %v, want ErrNoSession", context.Cause(live))
		}
		if got := k.TakeEndNotice(t.Context(), secrets[0]); got != EndSessionLimit {
			t.Errorf("notice: got %q, want %q", got, EndSessionLimit)
		}
		// A use does not make a session younger.
		r.fresh(secrets[1])
		secrets = append(secrets, r.loginFrom(k, "alice", ""))
		wantAlive(t, k, secrets, 2, 3)
		wantAlive(t, k, append(nobody, bob), 0, 1, 2, 3)
		r.wantReasons(EndSessionLimit, 2)
	})
}

// TestLowerLimitTakesEffectAtTheNextLogin: a configuration with a limit counts sessions of
// one without.
func TestLowerLimitTakesEffectAtTheNextLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		var secrets []seal.Secret
		for range 5 {
			secrets = append(secrets, r.loginFrom(r.keeper, "alice", ""))
			time.Sleep(time.Minute)
		}
		k := r.reconfigure(func(c *Config) { c.SessionLimit = 2 })
		wantAlive(t, k, secrets, 0, 1, 2, 3, 4)
		secrets = append(secrets, r.loginFrom(k, "alice", ""))
		wantAlive(t, k, secrets, 4, 5)
	})
}

// TestReplacedSessionDoesNotCount: a browser that logs in again does not end the session of
// another browser.
func TestReplacedSessionDoesNotCount(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		k := r.reconfigure(func(c *Config) { c.SessionLimit = 2 })
		other := r.loginFrom(k, "alice", "other")
		time.Sleep(time.Minute)
		mine := r.loginFrom(k, "alice", "mine")
		time.Sleep(time.Minute)
		_, user, tokens := r.server.login()
		user.Subject, user.Replaces = "alice", mine
		again, _, err := k.Create(t.Context(), user, tokens)
		if err != nil {
			t.Fatal(err)
		}
		if ended, err := k.End(t.Context(), mine, EndReplaced); err != nil || ended.RefreshToken == "" {
			t.Errorf("End of the replaced session: got %+v, %v, want its tokens, to revoke them", ended, err)
		}
		wantAlive(t, k, []seal.Secret{other, mine, again}, 0, 2)
	})
}

// TestSlowClockEndsNoNewSession: the clocks of instances differ, and the session of the
// latest login stays.
func TestSlowClockEndsNoNewSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		k := r.reconfigure(func(c *Config) { c.SessionLimit = 1 })
		secrets := []seal.Secret{r.loginFrom(k, "alice", "")}
		// An instance whose clock is an hour fast has written the first session.
		id := r.id(secrets[0])
		rec := r.stored(secrets[0])
		rec.created, rec.order = rec.created.Add(time.Hour), milliseconds(rec.created.Add(time.Hour))
		label, err := sealLabel(r.config.Site, id, rec)
		if err != nil {
			t.Fatal(err)
		}
		item, _ := r.store.item(id)
		item.Label = label
		r.store.put(id, item)
		for range 3 {
			secrets = append(secrets, r.loginFrom(k, "alice", ""))
			wantAlive(t, k, secrets, len(secrets)-1)
		}
	})
}

// TestLoginsAtOnceKeepTheLimit: of logins of a user at the same time, at one instance or
// several, exactly as many sessions stay as the limit allows, and not fewer.
func TestLoginsAtOnceKeepTheLimit(t *testing.T) {
	for _, tt := range []struct{ limit, logins int }{{1, 2}, {1, 5}, {3, 8}} {
		for round := range 20 {
			t.Run(fmt.Sprintf("%d of %d/%d", tt.limit, tt.logins, round), func(t *testing.T) {
				inBubbleWithInstances(t, 3, func(t *testing.T, r *instances) {
					for i := range r.keepers {
						r.keepers[i].SessionLimit = tt.limit
						r.users[i].setFault(func(sharedOp) storeFault {
							// The steps of the logins overlap in many ways.
							return storeFault{before: time.Duration((round*7+i*3)%5) * time.Millisecond}
						})
					}
					secrets := make([]seal.Secret, tt.logins)
					var all sync.WaitGroup
					for i := range secrets {
						all.Go(func() {
							time.Sleep(time.Duration(i*round%4) * time.Millisecond)
							secrets[i] = r.loginFrom(r.keepers[i%len(r.keepers)], "alice", "")
						})
					}
					all.Wait()
					synctest.Wait()
					for i := range r.keepers {
						r.users[i].setFault(nil)
					}
					page, _, err := Sites{r.keepers[0]}.ListUser(t.Context(), "alice", session.ID{}, 100)
					if err != nil || len(page) != tt.limit {
						t.Errorf("got %d sessions and error %v, want %d", len(page), err, tt.limit)
					}
				})
			})
		}
	}
}

// TestLoginFailsIfTheLimitCannotBeKept: the store does not answer, so the number of
// sessions is not known.
func TestLoginFailsIfTheLimitCannotBeKept(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		k := r.reconfigure(func(c *Config) { c.SessionLimit = 1 })
		first := r.loginFrom(k, "alice", "")
		for _, nth := range []int{1, 2} { // before the write of the session, and after it
			r.store.faultOnce(opTagged, nth, storeFault{err: errStoreDown})
			_, user, tokens := r.server.login()
			user.Subject = "alice"
			var unavailable *UnavailableError
			if _, _, err := k.Create(t.Context(), user, tokens); !errors.As(err, &unavailable) {
				t.Errorf("Create: got error %v, want an *UnavailableError", err)
			}
			r.store.clearFaults()
			synctest.Wait()
			page, _, err := Sites{k}.ListUser(t.Context(), "alice", session.ID{}, 10)
			if err != nil {
				t.Fatal(err)
			}
			r.wantListed(page, r.id(first))
		}
	})
}

// TestLoginWithoutALimitLooksForNoOtherSessions: the option costs a login nothing if it is
// not used.
func TestLoginWithoutALimitLooksForNoOtherSessions(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.loginFrom(r.keeper, "alice", "")
		if tagged, listed := r.store.completed(opTagged), r.store.completed(opList); tagged+listed != 0 {
			t.Errorf("got %d reads of indexes and %d of labels, want none", tagged, listed)
		}
	})
}

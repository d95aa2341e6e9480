package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// loginAttempt returns an attempt that begins now.
func loginAttempt(name string) LoginAttempt {
	return LoginAttempt{Cookie: name + strings.Repeat("c", 200), Code: "code", End: time.Now().Add(10 * time.Minute)}
}

// redeemer counts redemptions, each of which takes a while.
type redeemer struct {
	secret seal.Secret
	takes  time.Duration
	n      atomic.Int64
}

func (c *redeemer) redeem(context.Context) (Redemption, error) {
	c.n.Add(1)
	time.Sleep(c.takes)
	return Redemption{Secret: c.secret}, nil
}

var errCode = errors.New("the code was refused")

// refuseCode is a redemption that fails. spent says that the server may have accepted the
// code.
func refuseCode(spent bool) func(context.Context) (Redemption, error) {
	return func(context.Context) (Redemption, error) { return Redemption{Spent: spent}, errCode }
}

// liveItems counts the items that have not expired.
func (s *fakeStore) liveItems() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, item := range s.items {
		if time.Now().Before(item.Expires) {
			n++
		}
	}
	return n
}

// TestLoginIsRedeemedOnceOverAllInstances, and every call returns the secret.
func TestLoginIsRedeemedOnceOverAllInstances(t *testing.T) {
	for _, takes := range []time.Duration{0, 70 * time.Millisecond, 12 * time.Second} {
		t.Run(takes.String(), func(t *testing.T) {
			inBubbleWithInstances(t, 3, func(t *testing.T, r *instances) {
				a, c := loginAttempt("a"), &redeemer{secret: seal.NewSecret(), takes: takes}
				var owners atomic.Int64
				check := func(k *Keeper) {
					secret, own, err := k.RedeemLogin(t.Context(), a, c.redeem)
					if err != nil || secret != c.secret {
						t.Errorf("got the secret: %v, and error %v, want the secret", secret == c.secret, err)
					}
					if own {
						owners.Add(1)
					}
				}
				var all sync.WaitGroup
				for i := range 30 {
					all.Go(func() { check(r.keepers[i%3]) })
				}
				all.Wait()
				// After loginResultAge only the store has the result.
				for _, after := range []time.Duration{0, 2 * time.Minute, 7 * time.Minute} {
					time.Sleep(after)
					for _, k := range r.keepers {
						check(k)
					}
				}
				check(r.add())
				if c.n.Load() != 1 || owners.Load() != 1 {
					t.Errorf("got %d redemptions by %d callers, want 1 by 1", c.n.Load(), owners.Load())
				}
				time.Sleep(5 * time.Minute)
				if n := r.state.liveItems(); n != 0 {
					t.Errorf("got %d claims after the end of the attempt, want none", n)
				}
			})
		})
	}
}

// TestClaimOfACrashedInstanceIsNeverRedeemed, because the instance may have sent the code.
func TestClaimOfACrashedInstanceIsNeverRedeemed(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		a, c := loginAttempt("a"), &redeemer{secret: seal.NewSecret(), takes: time.Second}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _, _ = r.keepers[0].RedeemLogin(context.Background(), a, c.redeem)
		}()
		time.Sleep(500 * time.Millisecond)
		r.kill(0)
		<-done
		begun := time.Now()
		for range 2 {
			if _, own, err := r.keepers[1].RedeemLogin(t.Context(), a, c.redeem); own || !errors.Is(err, ErrLoginOver) {
				t.Errorf("got own %v, error %v, want ErrLoginOver", own, err)
			}
		}
		if waited := time.Since(begun); waited > loginWait+time.Second {
			t.Errorf("two calls took %v, want %v at most", waited, loginWait+time.Second)
		}
		if c.n.Load() != 1 {
			t.Errorf("got %d redemptions, want 1", c.n.Load())
		}
	})
}

// TestFailedLoginLeavesAClaimOnlyIfItsCodeIsSpent: otherwise another instance may redeem it.
func TestFailedLoginLeavesAClaimOnlyIfItsCodeIsSpent(t *testing.T) {
	for _, spent := range []bool{false, true} {
		t.Run(fmt.Sprint(spent), func(t *testing.T) {
			inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
				a := loginAttempt("a")
				if _, own, err := r.keepers[0].RedeemLogin(t.Context(), a, refuseCode(spent)); !own || !errors.Is(err, errCode) {
					t.Fatalf("got own %v, error %v, want true, %v", own, err, errCode)
				}
				if n, want := r.state.liveItems(), map[bool]int{false: 0, true: 1}[spent]; n != want {
					t.Errorf("got %d claims, want %d", n, want)
				}
				for range 3 { // without a wait
					begun := time.Now()
					if _, own, err := r.keepers[0].RedeemLogin(t.Context(), a, refuseCode(spent)); own || !errors.Is(err, ErrLoginOver) || time.Since(begun) > 0 {
						t.Errorf("same instance: got own %v, error %v after %v, want ErrLoginOver at once", own, err, time.Since(begun))
					}
				}
				if _, own, _ := r.keepers[1].RedeemLogin(t.Context(), a, refuseCode(spent)); own == spent {
					t.Errorf("other instance: got own %v, want %v", own, !spent)
				}
			})
		})
	}
}

// TestSpentClaimsAreBounded: callbacks with made-up codes must not fill the store while the
// authorization server does not answer.
func TestSpentClaimsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for i := range 2 * maxLoginsSpent {
			_, _, _ = r.keeper.RedeemLogin(t.Context(), loginAttempt(fmt.Sprint(i)), refuseCode(true))
		}
		if n := r.store.liveItems(); n != maxLoginsSpent {
			t.Errorf("got %d claims, want %d", n, maxLoginsSpent)
		}
		time.Sleep(12 * time.Minute)
		_, _, _ = r.keeper.RedeemLogin(t.Context(), loginAttempt("later"), refuseCode(true))
		if n := r.store.liveItems(); n != 1 {
			t.Errorf("got %d claims after the end of the attempts, want 1", n)
		}
	})
}

// TestLoginsInMemoryAreBounded, both finished and running ones.
func TestLoginsInMemoryAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for i := range maxLoginsKept + 100 {
			_, _, _ = r.keeper.RedeemLogin(t.Context(), loginAttempt(fmt.Sprint(i)), refuseCode(false))
		}
		if n := len(r.vault.logins.all); n > maxLoginsKept+1 {
			t.Errorf("got %d logins in memory, want %d at most", n, maxLoginsKept+1)
		}
		c := &redeemer{takes: time.Second}
		var busy atomic.Int64
		var all sync.WaitGroup
		for i := range 2 * maxLoginsRunning {
			all.Go(func() {
				_, _, err := r.keeper.RedeemLogin(t.Context(), loginAttempt(fmt.Sprint("b", i)), c.redeem)
				if errors.Is(err, ErrManyLogins) && isUnavailable(err) {
					busy.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if c.n.Load() != maxLoginsRunning || busy.Load() != maxLoginsRunning {
			t.Errorf("got %d redeemed and %d refused, want %d of each", c.n.Load(), busy.Load(), maxLoginsRunning)
		}
	})
}

// TestNoCodeIsSentWithoutAClaim: while the store fails, the keeper sends no code. The attempt
// can be redeemed later.
func TestNoCodeIsSentWithoutAClaim(t *testing.T) {
	for name, fault := range map[string]storeFault{
		"down": {err: errStoreDown}, "answer lost": {err: errStoreDown, done: true}, "frozen": {freeze: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
				a, c := loginAttempt("a"), &redeemer{secret: seal.NewSecret()}
				r.users[0].setFault(func(op sharedOp) (f storeFault) {
					if op == sharedCreate {
						f = fault
					}
					return f
				})
				if _, own, err := r.keepers[0].RedeemLogin(t.Context(), a, c.redeem); own || !isUnavailable(err) || c.n.Load() != 0 {
					t.Errorf("got own %v, error %v and %d redemptions, want an *UnavailableError and none", own, err, c.n.Load())
				}
				synctest.Wait()
				r.users[0].clearFaults()
				if secret, _, err := r.keepers[0].RedeemLogin(t.Context(), a, c.redeem); err != nil || secret != c.secret {
					t.Errorf("with a working store: got error %v, want the secret", err)
				}
			})
		})
	}
}

// TestUnwrittenResultCausesNoSecondRedemption: the store fails after redeem has created the
// session, before the result is written.
func TestUnwrittenResultCausesNoSecondRedemption(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		a, c := loginAttempt("a"), &redeemer{secret: seal.NewSecret()}
		r.users[0].setFault(func(op sharedOp) (f storeFault) {
			if op == sharedReplace {
				f.err = errStoreDown
			}
			return f
		})
		if secret, own, err := r.keepers[0].RedeemLogin(t.Context(), a, c.redeem); !own || err != nil || secret != c.secret {
			t.Errorf("got own %v, error %v, want true and no error", own, err)
		}
		if _, own, err := r.keepers[1].RedeemLogin(t.Context(), a, c.redeem); own || !errors.Is(err, ErrLoginOver) {
			t.Errorf("other instance: got own %v, error %v, want ErrLoginOver", own, err)
		}
		if c.n.Load() != 1 {
			t.Errorf("got %d redemptions, want 1", c.n.Load())
		}
	})
}

// TestResultOfALoginOpensWithItsCookieOnly: neither the store and the site's keys nor another
// cookie or another claim are enough.
func TestResultOfALoginOpensWithItsCookieOnly(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		a, c := loginAttempt("a"), &redeemer{secret: seal.NewSecret()}
		if _, _, err := r.keepers[0].RedeemLogin(t.Context(), a, c.redeem); err != nil {
			t.Fatal(err)
		}
		claim := r.keepers[0].loginClaim(a)
		item, ok := r.state.item(claim.ref.ID)
		if !ok || bytes.Contains(item.Value, c.secret[:8]) || bytes.Contains(item.Value, claim.ref.Secret[:8]) || len(item.Tags) != 0 {
			t.Errorf("got a claim: %v, want one without secrets and tags", ok)
		}
		if id := r.id(c.secret); bytes.Equal(claim.ref.ID[:], id[:]) {
			t.Error("got the ID of the session for the claim, want another")
		}
		other := loginAttempt("b")
		r.state.put(r.keepers[1].loginClaim(other).ref.ID, item)
		for i := range item.Value {
			altered := cloneItem(item)
			altered.Value[i] ^= 1
			r.state.put(claim.ref.ID, altered)
			if _, err := r.keepers[1].awaitClaim(t.Context(), claim); !errors.Is(err, ErrLoginOver) {
				t.Fatalf("byte %d altered: got error %v, want ErrLoginOver", i, err)
			}
		}
		if _, own, err := r.keepers[1].RedeemLogin(t.Context(), other, c.redeem); own || !errors.Is(err, ErrLoginOver) {
			t.Errorf("result of another attempt: got own %v, error %v, want ErrLoginOver", own, err)
		}
	})
}

// TestResultOfALoginNeedsItsCode: an attacker who plants the cookie of an attempt in a user's
// browser must not get the session of that user.
func TestResultOfALoginNeedsItsCode(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		a, c := loginAttempt("a"), &redeemer{secret: seal.NewSecret(), takes: time.Second}
		other := a
		other.Code = "another"
		var all sync.WaitGroup
		all.Go(func() {
			if _, _, err := r.keepers[0].RedeemLogin(t.Context(), a, c.redeem); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Millisecond)
		try := func() {
			for i, k := range r.keepers {
				if secret, own, err := k.RedeemLogin(t.Context(), other, c.redeem); own || !errors.Is(err, ErrLoginOver) || secret != (seal.Secret{}) {
					t.Errorf("instance %d with another code: got own %v, error %v, want ErrLoginOver", i, own, err)
				}
			}
		}
		try()
		all.Wait()
		try()
		if c.n.Load() != 1 {
			t.Errorf("got %d redemptions, want 1", c.n.Load())
		}
	})
}

// TestCanKeepReportsAFailingStore: reads suffice until a write of a login has failed.
func TestCanKeepReportsAFailingStore(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		wantCanKeep := func(when string, want bool) {
			t.Helper()
			begun := time.Now()
			if err := r.keeper.CanKeep(t.Context()); (err == nil) != want || !want && !isUnavailable(err) || time.Since(begun) > storeProbeTimeout {
				t.Errorf("%s: got error %v after %v, want success: %v", when, err, time.Since(begun), want)
			}
		}
		wantCanKeep("healthy", true)
		if n := r.store.completed(opCreate) + r.store.completed(opDelete); n != 0 {
			t.Errorf("got %d writes, want none", n)
		}
		r.store.fail()
		wantCanKeep("down", false)
		r.store.setFault(func(storeOp) storeFault { return storeFault{freeze: true} })
		wantCanKeep("frozen", false)
		r.store.fail(opCreate, opReplace)
		wantCanKeep("takes no writes, before the first write", true)
		_, _, _ = r.keeper.RedeemLogin(t.Context(), loginAttempt("a"), refuseCode(false))
		wantCanKeep("takes no writes, after a failed write", false)
		wantCanKeep("takes no writes, after a failed write", false)
		r.store.clearFaults()
		wantCanKeep("healthy again", true)
		if n := r.store.liveItems(); n != 0 {
			t.Errorf("got %d items, want none", n)
		}
		r.store.fail(opCreate)
		_, user, tokens := r.server.login()
		if _, _, err := r.keeper.Create(t.Context(), user, tokens); err == nil {
			t.Fatal("Create: got no error from a failing store")
		}
		wantCanKeep("after a failed Create", false)
	})
}

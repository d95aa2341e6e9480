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

// loginAttempt is an attempt that has just begun.
func loginAttempt(name string) LoginAttempt {
	return LoginAttempt{Cookie: name + strings.Repeat("c", 200), Code: "code", End: time.Now().Add(10 * time.Minute)}
}

// codes counts redemptions, each of which takes a while.
type codes struct {
	secret seal.Secret
	takes  time.Duration
	n      atomic.Int64
}

func (c *codes) redeem(context.Context) (Redemption, error) {
	c.n.Add(1)
	time.Sleep(c.takes)
	return Redemption{Secret: c.secret}, nil
}

var errCode = errors.New("the code was refused")

func refuse(spent bool) func(context.Context) (Redemption, error) {
	return func(context.Context) (Redemption, error) { return Redemption{Spent: spent}, errCode }
}

func (s *fakeStore) claims() int {
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

func TestLoginIsRedeemedOnceOverAllInstances(t *testing.T) {
	for _, takes := range []time.Duration{0, 70 * time.Millisecond, 12 * time.Second} {
		t.Run(takes.String(), func(t *testing.T) {
			inBubbleWithInstances(t, 3, func(t *testing.T, r *instances) {
				a, c := loginAttempt("a"), &codes{secret: seal.NewSecret(), takes: takes}
				var owners atomic.Int64
				check := func(k *Keeper) {
					secret, own, err := k.RedeemLogin(t.Context(), a, c.redeem)
					if err != nil || secret != c.secret {
						t.Errorf("the result is another, with error %v", err)
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
				// Later the memory of the process has forgotten, and the store has not.
				for _, after := range []time.Duration{0, 2 * time.Minute, 7 * time.Minute} {
					time.Sleep(after)
					for _, k := range r.keepers {
						check(k)
					}
				}
				check(r.add())
				if c.n.Load() != 1 || owners.Load() != 1 {
					t.Errorf("%d codes were sent, by %d callers", c.n.Load(), owners.Load())
				}
				time.Sleep(5 * time.Minute)
				if n := r.state.claims(); n != 0 {
					t.Errorf("%d claims are left when the attempt is over", n)
				}
			})
		})
	}
}

// TestClaimOfACrashedInstanceIsNeverRedeemed: nobody knows whether it had sent
// the code.
func TestClaimOfACrashedInstanceIsNeverRedeemed(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		a, c := loginAttempt("a"), &codes{secret: seal.NewSecret(), takes: time.Second}
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
				t.Errorf("own %v, error %v, want ErrLoginOver", own, err)
			}
		}
		if waited := time.Since(begun); waited > loginWait+time.Second {
			t.Errorf("that took %v", waited)
		}
		if c.n.Load() != 1 {
			t.Errorf("%d codes were sent", c.n.Load())
		}
	})
}

func TestFailedLoginLeavesNothingUnlessItsCodeIsSpent(t *testing.T) {
	for _, spent := range []bool{false, true} {
		t.Run(fmt.Sprint(spent), func(t *testing.T) {
			inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
				a := loginAttempt("a")
				if _, own, err := r.keepers[0].RedeemLogin(t.Context(), a, refuse(spent)); !own || !errors.Is(err, errCode) {
					t.Fatalf("own %v, error %v", own, err)
				}
				if n := r.state.claims(); n != map[bool]int{false: 0, true: 1}[spent] {
					t.Errorf("%d claims are left", n)
				}
				for range 3 { // and nobody waits for what is over
					begun := time.Now()
					if _, own, err := r.keepers[0].RedeemLogin(t.Context(), a, refuse(spent)); own || !errors.Is(err, ErrLoginOver) || time.Since(begun) > 0 {
						t.Errorf("here: own %v after %v, error %v", own, time.Since(begun), err)
					}
				}
				if _, own, _ := r.keepers[1].RedeemLogin(t.Context(), a, refuse(spent)); own == spent {
					t.Errorf("elsewhere: redeemed is %v", own)
				}
			})
		})
	}
}

// TestSpentClaimsAreBounded: a server that answers nobody must not let callbacks
// with made-up codes fill the store.
func TestSpentClaimsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for i := range 2 * maxLoginsSpent {
			_, _, _ = r.keeper.RedeemLogin(t.Context(), loginAttempt(fmt.Sprint(i)), refuse(true))
		}
		if n := r.store.claims(); n != maxLoginsSpent {
			t.Errorf("%d claims are left", n)
		}
		time.Sleep(12 * time.Minute)
		_, _, _ = r.keeper.RedeemLogin(t.Context(), loginAttempt("later"), refuse(true))
		if n := r.store.claims(); n != 1 {
			t.Errorf("%d claims are left later", n)
		}
	})
}

func TestRememberedLoginsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for i := range maxLoginsKept + 100 {
			_, _, _ = r.keeper.RedeemLogin(t.Context(), loginAttempt(fmt.Sprint(i)), refuse(false))
		}
		if n := len(r.vault.logins.all); n > maxLoginsKept+1 {
			t.Errorf("%d are remembered", n)
		}
		c := &codes{takes: time.Second}
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
			t.Errorf("%d were redeemed, %d refused", c.n.Load(), busy.Load())
		}
	})
}

// TestNoCodeIsSentWithoutAClaim: a store that fails is no reason to send a code,
// nor to give the attempt up.
func TestNoCodeIsSentWithoutAClaim(t *testing.T) {
	for name, fault := range map[string]storeFault{
		"down": {err: errStoreDown}, "answer lost": {err: errStoreDown, landed: true}, "frozen": {freeze: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
				a, c := loginAttempt("a"), &codes{secret: seal.NewSecret()}
				r.users[0].setFault(func(op sharedOp) (f storeFault) {
					if op == sharedCreate {
						f = fault
					}
					return f
				})
				if _, own, err := r.keepers[0].RedeemLogin(t.Context(), a, c.redeem); own || !isUnavailable(err) || c.n.Load() != 0 {
					t.Errorf("own %v, error %v, %d codes sent", own, err, c.n.Load())
				}
				synctest.Wait()
				r.users[0].healthy()
				if secret, _, err := r.keepers[0].RedeemLogin(t.Context(), a, c.redeem); err != nil || secret != c.secret {
					t.Errorf("when the store is back: %v", err)
				}
			})
		})
	}
}

// TestUnwrittenResultIsNoSecondRedemption: the store fails between the session
// and the result.
func TestUnwrittenResultIsNoSecondRedemption(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		a, c := loginAttempt("a"), &codes{secret: seal.NewSecret()}
		r.users[0].setFault(func(op sharedOp) (f storeFault) {
			if op == sharedReplace {
				f.err = errStoreDown
			}
			return f
		})
		if secret, own, err := r.keepers[0].RedeemLogin(t.Context(), a, c.redeem); !own || err != nil || secret != c.secret {
			t.Errorf("own %v, error %v", own, err)
		}
		if _, own, err := r.keepers[1].RedeemLogin(t.Context(), a, c.redeem); own || !errors.Is(err, ErrLoginOver) {
			t.Errorf("elsewhere: own %v, error %v", own, err)
		}
		if c.n.Load() != 1 {
			t.Errorf("%d codes were sent", c.n.Load())
		}
	})
}

// TestResultOfALoginOpensWithItsCookieOnly: the store and the server's keys are
// not enough, and neither are other cookies or other claims.
func TestResultOfALoginOpensWithItsCookieOnly(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		a, c := loginAttempt("a"), &codes{secret: seal.NewSecret()}
		if _, _, err := r.keepers[0].RedeemLogin(t.Context(), a, c.redeem); err != nil {
			t.Fatal(err)
		}
		claim := r.keepers[0].loginClaim(a)
		item, ok := r.state.item(claim.ref.ID)
		if !ok || bytes.Contains(item.Value, c.secret[:8]) || bytes.Contains(item.Value, claim.ref.Secret[:8]) || len(item.Tags) != 0 {
			t.Errorf("the claim is there: %v, and holds what it must not", ok)
		}
		if id := r.id(c.secret); bytes.Equal(claim.ref.ID[:], id[:]) {
			t.Error("the claim is the session's item")
		}
		other := loginAttempt("b")
		r.state.put(r.keepers[1].loginClaim(other).ref.ID, item)
		for i := range item.Value {
			altered := cloneItem(item)
			altered.Value[i] ^= 1
			r.state.put(claim.ref.ID, altered)
			if _, err := r.keepers[1].awaitClaim(t.Context(), claim); !errors.Is(err, ErrLoginOver) {
				t.Fatalf("byte %d altered: %v", i, err)
			}
		}
		if _, own, err := r.keepers[1].RedeemLogin(t.Context(), other, c.redeem); own || !errors.Is(err, ErrLoginOver) {
			t.Errorf("under another attempt: own %v, %v", own, err)
		}
	})
}

// TestResultOfALoginNeedsItsCode: whoever began an attempt and planted its cookie
// in another's browser must not get that one's session.
func TestResultOfALoginNeedsItsCode(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		a, c := loginAttempt("a"), &codes{secret: seal.NewSecret(), takes: time.Second}
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
					t.Errorf("at instance %d: own %v, %v", i, own, err)
				}
			}
		}
		try()
		all.Wait()
		try()
		if c.n.Load() != 1 {
			t.Errorf("%d codes were sent", c.n.Load())
		}
	})
}

// TestLookBeforeALogin: what cannot be kept is not worth beginning.
func TestLookBeforeALogin(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		ok := func(when string, want bool) {
			t.Helper()
			begun := time.Now()
			if err := r.keeper.CanKeep(t.Context()); (err == nil) != want || !want && !isUnavailable(err) || time.Since(begun) > storeProbeTimeout {
				t.Errorf("%s: %v after %v", when, err, time.Since(begun))
			}
		}
		ok("healthy", true)
		if n := r.store.done(opCreate) + r.store.done(opDelete); n != 0 {
			t.Errorf("%d writes", n)
		}
		r.store.failing()
		ok("down", false)
		r.store.setFault(func(storeOp) storeFault { return storeFault{freeze: true} })
		ok("frozen", false)
		r.store.failing(opCreate, opReplace)
		ok("nobody knows yet that it takes no writes", true)
		_, _, _ = r.keeper.RedeemLogin(t.Context(), loginAttempt("a"), refuse(false))
		ok("takes no writes", false)
		ok("takes no writes", false)
		r.store.healthy()
		ok("healthy again", true)
		if n := r.store.claims(); n != 0 {
			t.Errorf("%d items are left", n)
		}
		r.store.failing(opCreate)
		_, who, tokens := r.server.login()
		if _, _, err := r.keeper.Create(t.Context(), who, tokens); err == nil {
			t.Fatal("a session was kept")
		}
		ok("no session could be kept", false)
	})
}

package keeper

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestOneRefreshOverInstances: however many instances find the token expired, the refresh
// token is sent once.
func TestOneRefreshOverInstances(t *testing.T) {
	inBubbleWithInstances(t, 3, func(t *testing.T, r *instances) {
		secret, f := r.login()
		for n := range 5 {
			r.waitUntilExpired()
			r.freshEverywhere(20, secret)
			r.wantCalls(n + 1)
			r.wantNoLease(secret)
			r.wantStored(secret, f)
		}
		for n := range 3 {
			r.waitUntilDue()
			r.freshEverywhere(1, secret) // no request waits, and one instance refreshes in the background
			time.Sleep(5 * time.Second)
			r.wantCalls(5 + n + 1)
		}
	})
}

// TestSlowRefreshKeepsTheLease: while the holder renews its lease, no other instance
// sends the token.
func TestSlowRefreshKeepsTheLease(t *testing.T) {
	inBubbleWithInstances(t, 3, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.server.set(func() { r.server.latency = 9 * time.Second })
		r.waitUntilExpired()
		if waited := durationOf(func() { r.freshEverywhere(3, secret) }); waited > 9*time.Second {
			t.Errorf("waited %v, want 9s at most: the push of the new tokens must be enough", waited)
		}
		r.wantCalls(1)
		r.wantStored(secret, f)
	})
}

// TestExpiredLeaseIsTakenOver: the holder dies before the server gets its request.
func TestExpiredLeaseIsTakenOver(t *testing.T) {
	inBubbleWithInstances(t, 3, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.waitUntilExpired()
		r.server.set(func() { r.server.latency = 2 * time.Second })
		go func() { _, _ = r.keepers[0].Fresh(context.Background(), secret) }()
		time.Sleep(time.Second)
		r.kill(0)
		r.server.set(func() { r.server.latency = 0 })
		waited := durationOf(func() { r.freshAt(1, secret) })
		if waited < leaseTimeout || waited > leaseTimeout+2*renewInterval {
			t.Errorf("taken over after %v, want %v to %v", waited, leaseTimeout, leaseTimeout+2*renewInterval)
		}
		r.freshAt(2, secret)
		if f.redemptions != 1 {
			t.Errorf("%d redemptions, want 1", f.redemptions)
		}
		r.wantStored(secret, f)
		r.wantNoLease(secret)
	})
}

// TestLateCommitOfFormerHolderIsRefused: a holder that was stopped finds that another
// instance has refreshed the session, and serves those tokens.
func TestLateCommitOfFormerHolderIsRefused(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		r.server.doesNotRotate = true // with rotation the session would be lost
		secret, f := r.login()
		r.waitUntilExpired()
		frozen := make(chan struct{})
		r.server.set(func() {
			r.server.behave = func(n int) behaviour {
				if n == 1 {
					return behaviour{after: 20 * time.Second}
				}
				return behaviour{}
			}
		})
		go func() {
			defer close(frozen)
			_, _ = r.keepers[0].Fresh(context.Background(), secret)
		}()
		time.Sleep(time.Second)
		r.users[0].setFault(func(sharedOp) storeFault { return storeFault{freeze: true} })
		r.processes[0].stalled.Store(true)
		newer := r.freshAt(1, secret).AccessToken
		time.Sleep(15 * time.Second)
		r.users[0].clearFaults()
		<-frozen
		time.Sleep(30 * time.Second)
		for i := range 2 {
			if got := r.freshAt(i, secret).AccessToken; got != newer {
				t.Errorf("instance %d serves %s, want %s", i, got, newer)
			}
		}
		r.wantCalls(2)
		r.wantStored(secret, f)
	})
}

func TestUnconfirmedLeaseSendsNothing(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.waitUntilExpired()
		r.users[0].setFault(func(op sharedOp) storeFault {
			if op == sharedAcquire { // the answer is late
				return storeFault{after: leaseTimeout * 2 / 3}
			}
			return storeFault{freeze: op == sharedBeat}
		})
		_, err := r.keepers[0].Fresh(t.Context(), secret)
		if !errors.As(err, new(*UnavailableError)) {
			t.Errorf("Fresh: %v, want an *UnavailableError", err)
		}
		r.wantCalls(0)
		r.users[0].clearFaults()
		r.freshEverywhere(5, secret)
		r.wantCalls(1)
		r.wantStored(secret, f)
	})
}

// unwrittenAt0 lets instance 0 redeem and not commit.
func (r *instances) unwrittenAt0() (secret seal.Secret, f *family) {
	r.t.Helper()
	secret, f = r.login()
	r.waitUntilExpired()
	r.users[0].setFault(func(op sharedOp) (f storeFault) {
		if op == sharedReplace {
			f.err = errStoreDown
		}
		return f
	})
	r.freshAt(0, secret)
	r.wantCalls(1)
	return secret, f
}

// TestLeaseIsHeldUntilCommit: while an instance cannot write the tokens that it has
// redeemed, no other instance sends the old refresh token.
func TestLeaseIsHeldUntilCommit(t *testing.T) {
	inBubbleWithInstances(t, 3, func(t *testing.T, r *instances) {
		secret, f := r.unwrittenAt0()
		for range 5 {
			time.Sleep(20 * time.Second)
			r.freshAt(0, secret)
			for _, k := range r.keepers[1:] {
				if _, err := k.Fresh(t.Context(), secret); !errors.As(err, new(*UnavailableError)) {
					t.Errorf("Fresh: %v, want an *UnavailableError", err)
				}
			}
		}
		r.waitUntilExpired() // the token of the first instance has expired, too
		if _, err := r.keepers[0].Fresh(t.Context(), secret); !errors.As(err, new(*UnavailableError)) {
			t.Errorf("Fresh: %v, want an *UnavailableError", err)
		}
		r.wantCalls(1)
		r.users[0].clearFaults()
		time.Sleep(2 * writeRetryMax)
		r.freshEverywhere(3, secret)
		r.wantCalls(2)
		r.wantStored(secret, f)
		r.wantNoLease(secret)
	})
}

// TestOutageLongerThanLeaseTimeoutLosesNoTokens: the store goes away after the redemption
// and before the commit.
func TestOutageLongerThanLeaseTimeoutLosesNoTokens(t *testing.T) {
	inBubbleWithInstances(t, 3, func(t *testing.T, r *instances) {
		secret, f := r.unwrittenAt0()
		for _, u := range r.users {
			u.disconnect()
		}
		time.Sleep(30 * time.Second)
		for i := range r.keepers {
			if _, err := r.keepers[i].Fresh(t.Context(), secret); !errors.As(err, new(*UnavailableError)) {
				t.Errorf("instance %d: %v, want an *UnavailableError", i, err)
			}
		}
		for _, u := range r.users[1:] { // these instances reach the store first
			u.clearFaults()
		}
		served := make(chan error)
		go func() {
			_, err := r.keepers[1].Fresh(context.Background(), secret)
			served <- err
		}()
		time.Sleep(leaseTimeout / 2)
		r.users[0].clearFaults()
		if err := <-served; err != nil {
			t.Errorf("Fresh: %v", err)
		}
		r.freshEverywhere(3, secret)
		r.wantCalls(1)
		r.wantStored(secret, f)
	})
}

func TestLogoutElsewhereDiscardsUnwrittenTokens(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, f := r.unwrittenAt0()
		if _, err := r.keepers[1].End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for i, k := range r.keepers {
			if _, err := k.Fresh(t.Context(), secret); !errors.Is(err, ErrNoSession) {
				t.Errorf("instance %d: %v, want ErrNoSession", i, err)
			}
		}
		r.users[0].clearFaults()
		time.Sleep(2 * writeRetryMax)
		r.wantGone(secret)
		r.server.wantDiscarded(t, f.current)
		r.wantNoLease(secret)
	})
}

func TestLogoutElsewhereDuringRefreshDiscardsTokens(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.waitUntilExpired()
		r.server.set(func() { r.server.latency = 2 * time.Second })
		refreshed := make(chan error)
		go func() {
			_, err := r.keepers[0].Fresh(context.Background(), secret)
			refreshed <- err
		}()
		time.Sleep(time.Second)
		if _, err := r.keepers[1].End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		if err := <-refreshed; !errors.Is(err, ErrNoSession) {
			t.Errorf("Fresh: %v, want ErrNoSession", err)
		}
		synctest.Wait()
		r.wantGone(secret)
		r.server.wantDiscarded(t, f.current)
	})
}

// TestRefusalWithoutLeaseEndsNothing: a refusal reaches a former holder, after another
// instance has taken over its lease.
func TestRefusalWithoutLeaseEndsNothing(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		r.server.doesNotRotate = true
		secret, f := r.login()
		r.waitUntilExpired()
		r.server.set(func() {
			r.server.behave = func(n int) behaviour {
				if n == 1 {
					return behaviour{outcome: Rejected, before: 10 * time.Second}
				}
				return behaviour{before: 8 * time.Second}
			}
		})
		refused := make(chan error)
		go func() {
			_, err := r.keepers[0].Fresh(context.Background(), secret)
			refused <- err
		}()
		time.Sleep(time.Second)
		r.users[0].setFault(func(op sharedOp) storeFault { return storeFault{freeze: op == sharedBeat} })
		r.processes[0].stalled.Store(true)
		_, _ = r.keepers[1].Fresh(t.Context(), secret) // takes over the lease
		r.users[0].setFault(nil)
		if err := <-refused; errors.Is(err, ErrNoSession) {
			t.Errorf("Fresh: %v", err)
		}
		time.Sleep(30 * time.Second)
		r.server.set(func() { f.rejectionSeen = false })
		r.freshEverywhere(2, secret)
		r.wantStored(secret, f)
	})
}

// TestIdleEndIsCheckedAgainstTheStore: an outdated copy does not have the last use.
func TestIdleEndIsCheckedAgainstTheStore(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		r.server.set(func() { r.server.lifetime = 24 * time.Hour })
		r.freshAt(0, secret)
		r.freshAt(1, secret)
		r.users[1].mu.Lock()
		r.users[1].missesPushes = true
		r.users[1].mu.Unlock()
		for range 4 {
			time.Sleep(2 * time.Hour)
			r.freshAt(0, secret)
		}
		time.Sleep(30 * time.Minute) // the item of the copy has not expired
		r.freshAt(1, secret)
		time.Sleep(9 * time.Hour)
		if _, err := r.keepers[1].Fresh(t.Context(), secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("Fresh: %v, want ErrNoSession", err)
		}
		r.wantGone(secret)
	})
}

// TestLogoutElsewhereEndsRequestsInProgress: also if the push is missed.
func TestLogoutElsewhereEndsRequestsInProgress(t *testing.T) {
	for _, tc := range []struct {
		name string
		miss func(u *sharedUser) // before the logout
		find func(u *sharedUser) // after it
	}{
		{name: "push"},
		{
			name: "connection lost",
			miss: func(u *sharedUser) { u.mu.Lock(); u.missesPushes = true; u.mu.Unlock() },
			find: func(u *sharedUser) { u.dropCopies() },
		},
		{
			name: "store away",
			miss: func(u *sharedUser) { u.mu.Lock(); u.missesPushes = true; u.mu.Unlock(); u.disconnect() },
			find: func(u *sharedUser) { time.Sleep(10 * time.Second); u.setFault(nil) },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
				secret, _ := r.login()
				other, _ := r.login()
				request, attached := attach(r.keepers[1], t.Context(), r.freshAt(1, secret))
				defer attached.Detach()
				stays, attachedOther := attach(r.keepers[1], t.Context(), r.freshAt(1, other))
				defer attachedOther.Detach()
				r.waitUntilExpired()
				r.freshAt(0, secret) // a refresh does not end requests
				synctest.Wait()
				if request.Err() != nil {
					t.Fatal("a refresh elsewhere has ended the request, want it to go on")
				}
				if tc.miss != nil {
					tc.miss(r.users[1])
				}
				if _, err := r.keepers[0].End(t.Context(), secret, EndLogout); err != nil {
					t.Fatal(err)
				}
				if tc.find != nil {
					synctest.Wait()
					if request.Err() != nil {
						t.Fatal("the request ended before the change was found")
					}
					tc.find(r.users[1])
				}
				time.Sleep(2 * checkRetry)
				if !errors.Is(context.Cause(request), ErrNoSession) {
					t.Errorf("cause of the end of the request: %v, want ErrNoSession", context.Cause(request))
				}
				if stays.Err() != nil {
					t.Error("a request of another session has ended")
				}
			})
		})
	}
}

// TestLogoutElsewhereEndsRequestThatBegins: the session ends after the request has read
// it and before the request is attached.
func TestLogoutElsewhereEndsRequestThatBegins(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		s := r.freshAt(1, secret)
		if _, err := r.keepers[0].End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		request, attached := attach(r.keepers[1], t.Context(), s)
		defer attached.Detach()
		synctest.Wait()
		if !errors.Is(context.Cause(request), ErrNoSession) {
			t.Errorf("cause of the end of the request: %v, want ErrNoSession", context.Cause(request))
		}
	})
}

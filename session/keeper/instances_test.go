package keeper

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// refusing makes a process unable to do some steps of the store.
func (u *sharedUser) refusing(ops ...sharedOp) {
	u.setFault(func(op sharedOp) (f storeFault) {
		for _, o := range ops {
			if o == op {
				f.err = errStoreDown
			}
		}
		return f
	})
}

// TestLogoutElsewhereEndsRequestThatWaited: the store does not push changes of what a
// waiting request reads with ViewCurrent, but it does for the first read of the request.
func TestLogoutElsewhereEndsRequestThatWaited(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		r.server.set(func() { r.server.latency = 2 * time.Second })
		r.waitUntilExpired()
		go func() { _, _ = r.keepers[0].Fresh(context.Background(), secret) }()
		time.Sleep(time.Second)
		request, attached := attach(r.keepers[1], t.Context(), r.freshAt(1, secret))
		defer attached.Detach()
		synctest.Wait()
		if _, err := r.keepers[0].End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !errors.Is(context.Cause(request), ErrNoSession) {
			t.Errorf("cause of the end of the request: %v, want ErrNoSession", context.Cause(request))
		}
	})
}

// TestWaitingInstanceIsNotifiedOfEveryCommit: a waiting instance is notified of the
// second commit of a refresh as well, although the store pushes one change for each View.
func TestWaitingInstanceIsNotifiedOfEveryCommit(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		r.server.idTokens = true
		secret, _ := r.login()
		r.server.set(func() { r.server.latency, r.server.identifyDelay = 2*time.Second, 100*time.Millisecond })
		r.waitUntilExpired()
		first := make(chan time.Time, 1)
		go func() {
			_, _ = r.keepers[0].Fresh(context.Background(), secret)
			first <- time.Now()
		}()
		time.Sleep(time.Second)
		r.freshAt(1, secret)
		if late := time.Since(<-first); late > 0 {
			t.Errorf("the waiting request got the new token %v late", late)
		}
	})
}

// TestUnwrittenLogoutIsReported: the session goes on at the other instances, so the
// caller of End must know, and can try again.
func TestUnwrittenLogoutIsReported(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.freshAt(0, secret)
		r.users[0].refusing(sharedDelete, sharedDeleteAt)
		ended, err := r.keepers[0].End(t.Context(), secret, EndLogout)
		if !errors.Is(err, ErrNotEnded) || !errors.As(err, new(*UnavailableError)) {
			t.Fatalf("End: %v, want ErrNotEnded and an *UnavailableError", err)
		}
		if ended.RefreshToken != f.current {
			t.Errorf("returned tokens %+v, want refresh token %q", ended, f.current)
		}
		if _, err := r.keepers[0].End(t.Context(), secret, EndLogout); !errors.Is(err, ErrNotEnded) {
			t.Errorf("second End: %v, want ErrNotEnded", err)
		}
		if _, err := r.keepers[0].Fresh(t.Context(), secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("Fresh at the instance of the logout: %v, want ErrNoSession", err)
		}
		r.freshAt(1, secret)
		r.users[0].clearFaults()
		if _, err := r.keepers[0].End(t.Context(), secret, EndLogout); !errors.Is(err, ErrNoSession) {
			t.Errorf("End after the outage: %v, want ErrNoSession", err)
		}
		r.wantGone(secret)
	})
}

// TestEndReturnsNewestToken: another instance commits a refresh after End has read the
// record.
func TestEndReturnsNewestToken(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.waitUntilExpired()
		r.users[0].setFault(func(op sharedOp) storeFault {
			if op == sharedCurrent {
				return storeFault{after: 2 * time.Second}
			}
			return storeFault{}
		})
		over := make(chan Ended)
		go func() {
			ended, _ := r.keepers[0].End(context.Background(), secret, EndLogout)
			over <- ended
		}()
		time.Sleep(time.Second)
		r.freshAt(1, secret)
		if ended := <-over; ended.RefreshToken != f.current {
			t.Errorf("returned refresh token %q, want %q", ended.RefreshToken, f.current)
		}
		r.wantGone(secret)
	})
}

// TestUnwrittenTokensSurviveIdleTimeout: a record that could not be written for longer
// than the idle time-out is still the only copy of its refresh token, and other instances
// may have used the session.
func TestUnwrittenTokensSurviveIdleTimeout(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		for i, k := range r.keepers {
			c := k.Config
			c.IdleTimeout = 10 * time.Minute
			r.keepers[i] = mustKeeper(c)
		}
		r.keeper = r.keepers[0]
		secret, f := r.unwrittenAt0()
		for range 5 {
			time.Sleep(4 * time.Minute)
			_, _ = r.keepers[1].Fresh(t.Context(), secret) // writes a use
		}
		r.users[0].clearFaults()
		time.Sleep(2 * writeRetryMax)
		r.freshAt(1, secret)
		if f.dead {
			t.Error("an old refresh token was sent")
		}
	})
}

// TestCommitSurvivesFailoverThatLosesTheLease: during a refresh, a failover of the store
// loses the last use and the lease.
func TestCommitSurvivesFailoverThatLosesTheLease(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.waitUntilExpired()
		before, _ := r.store.item(r.id(secret))
		r.keepers[1].recordUse(seal.Ref{ID: r.id(secret), Secret: secret}, time.Now())
		synctest.Wait()
		if after, _ := r.store.item(r.id(secret)); after.Version <= before.Version {
			t.Fatal("the use was not written")
		}
		r.server.set(func() { r.server.latency = 2 * time.Second })
		go func() { _, _ = r.keepers[0].Fresh(context.Background(), secret) }()
		time.Sleep(time.Second)
		r.state.mu.Lock()
		r.state.items[r.id(secret)] = before
		delete(r.state.leases, r.id(secret))
		r.state.mu.Unlock()
		for _, u := range r.users {
			u.dropCopies()
		}
		time.Sleep(10 * time.Second)
		r.wantStored(secret, f)
		r.freshEverywhere(1, secret)
	})
}

// TestUnreadableSessionsDoNotDelayOthers: a part of the store does not answer. The end of
// a session in another part is found at once.
func TestUnreadableSessionsDoNotDelayOthers(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		request, attached := attach(r.keepers[1], t.Context(), r.freshAt(1, secret))
		defer attached.Detach()
		frozen := map[session.ID]bool{}
		for range 200 {
			other, _ := r.login()
			_, attached := attach(r.keepers[1], t.Context(), r.freshAt(1, other))
			defer attached.Detach()
			frozen[r.id(other)] = true
		}
		vault := r.keepers[1].Vault
		vault.store = partlyFrozen{r.users[1], frozen}
		for id := range frozen {
			vault.itemsChanged([]session.ID{id})
		}
		time.Sleep(time.Second)
		if _, err := r.keepers[0].End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if request.Err() == nil {
			t.Error("the end of a session waits for sessions that cannot be read, want it found at once")
		}
	})
}

// partlyFrozen is a store of which a part does not answer.
type partlyFrozen struct {
	session.Store
	frozen map[session.ID]bool
}

func (s partlyFrozen) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	if s.frozen[id] {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Store.View(ctx, id, f)
}

// TestReleaseDelaysNoRequest: a request that waits for a refresh does not wait for the
// release of the lease.
func TestReleaseDelaysNoRequest(t *testing.T) {
	inBubbleWithInstances(t, 1, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		r.waitUntilExpired()
		r.users[0].setFault(func(op sharedOp) storeFault { return storeFault{freeze: op == sharedRelease} })
		if waited := durationOf(func() { r.freshAt(0, secret) }); waited > r.server.latency {
			t.Errorf("waited %v, want %v at most", waited, r.server.latency)
		}
	})
}

// TestCloseDoesNotWaitForOtherInstances: a process that waits for another one can stop at
// once.
func TestCloseDoesNotWaitForOtherInstances(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, _ := r.unwrittenAt0()
		go func() { _, _ = r.keepers[1].Fresh(context.Background(), secret) }()
		time.Sleep(time.Second)
		if waited := durationOf(func() { _ = r.keepers[1].Vault.Close(context.Background()) }); waited > 0 {
			t.Errorf("Close waited %v, want 0", waited)
		}
	})
}

// TestConflictsAreRetriedWithPauses: a session that changes during every try is not
// retried as fast as the store answers.
func TestConflictsAreRetriedWithPauses(t *testing.T) {
	inBubbleWithInstances(t, 1, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		r.waitUntilExpired()
		var acquired atomic.Int64
		r.users[0].setFault(func(op sharedOp) (f storeFault) {
			if op == sharedAcquire {
				acquired.Add(1)
				f.err = session.ErrConflict
			}
			return f
		})
		_, _ = r.keepers[0].Fresh(t.Context(), secret)
		if n := acquired.Load(); n > 30 {
			t.Errorf("%d tries in ten seconds, want 30 at most", n)
		}
	})
}

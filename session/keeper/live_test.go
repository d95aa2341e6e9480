package keeper

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestAttachedRequestEndsWithItsSession, and no other request does.
func TestAttachedRequestEndsWithItsSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		type key struct{}
		secret, f := r.login()
		other, _ := r.login()
		s := r.fresh(secret)
		parent := context.WithValue(t.Context(), key{}, "value")
		a, detachA := attach(r.keeper, parent, s)
		b, detachB := attach(r.keeper, parent, s)
		c, detachC := attach(r.keeper, parent, r.fresh(other))
		defer detachC.Detach()
		if a.Value(key{}) != "value" {
			t.Error("got a context without the values of its parent")
		}
		detachB.Detach()
		if b.Err() == nil {
			t.Error("got an open context after Detach, want it cancelled")
		}
		if a.Err() != nil {
			t.Fatal("Detach of one request has ended another")
		}
		// A refused refresh ends the session, too.
		r.server.set(func() { f.dead = true })
		r.waitUntilExpired()
		r.wantEnded(secret, EndRejected)
		if !errors.Is(context.Cause(a), ErrNoSession) {
			t.Errorf("got cause %v after the end of the session, want ErrNoSession", context.Cause(a))
		}
		if c.Err() != nil {
			t.Error("the end of a session has ended a request of another")
		}
		detachA.Detach()
		detachA.Detach() // as a deferred call may
		time.Sleep(24 * time.Hour)
		if !errors.Is(context.Cause(c), ErrNoSession) {
			t.Errorf("got cause %v at the absolute end, want ErrNoSession", context.Cause(c))
		}
		detachC.Detach()
		for i := range r.vault.live.shards {
			if n := len(r.vault.live.shards[i].requests); n != 0 {
				t.Errorf("shard %d: got %d sessions after their last request, want none", i, n)
			}
		}
	})
}

// TestLogoutDuringAttachEndsTheRequest, whichever is first.
func TestLogoutDuringAttachEndsTheRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for range 200 {
			secret, _ := r.login()
			s := r.fresh(secret)
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					ctx, attached := attach(r.keeper, context.Background(), s)
					defer attached.Detach()
					synctestDone(t, ctx)
				})
			}
			all.Go(func() {
				if _, err := r.keeper.End(t.Context(), secret, EndLogout); err != nil {
					t.Errorf("End: %v", err)
				}
			})
			all.Wait()
		}
		synctest.Wait()
	})
}

// synctestDone waits until ctx ends, for an hour of the bubble's time.
func synctestDone(t *testing.T, ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Hour):
		t.Error("a request goes on for an hour after the logout")
	}
}

// TestOpenStreamDoesNotCountAsUse: a stream ends after the idle time-out of its session,
// unless other requests use the session.
func TestOpenStreamDoesNotCountAsUse(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		begun := time.Now()
		stream, attached := attach(r.keeper, t.Context(), r.fresh(secret))
		defer attached.Detach()
		idle, used := r.keeper.IdleTimeout, begun
		for range 2 {
			time.Sleep(idle - time.Hour)
			used = time.Now()
			r.fresh(secret)
		}
		time.Sleep(time.Until(used.Add(idle - time.Minute)))
		if stream.Err() != nil {
			t.Fatalf("the stream ended %v after the last use, want %v at least", time.Since(used), idle)
		}
		time.Sleep(2*time.Minute + r.keeper.useInterval)
		if !errors.Is(context.Cause(stream), ErrNoSession) {
			t.Errorf("got cause %v at %v after the last use, want ErrNoSession", context.Cause(stream), time.Since(used))
		}
		r.wantGone(secret)
	})
}

// TestStreamOutlivesAnOutageOfTheStore: the keeper ends an idle stream only when the store
// confirms that no other instance has used the session.
func TestStreamOutlivesAnOutageOfTheStore(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		stream, attached := attach(r.keeper, t.Context(), r.fresh(secret))
		defer attached.Detach()
		r.store.fail()
		time.Sleep(r.keeper.IdleTimeout + time.Hour)
		if stream.Err() != nil {
			t.Fatal("an outage of the store has ended a stream")
		}
		r.store.clearFaults()
		time.Sleep(2 * checkRetry)
		if stream.Err() == nil {
			t.Error("the stream goes on after the store works again")
		}
	})
}

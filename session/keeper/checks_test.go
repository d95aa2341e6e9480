package keeper

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestChangeAtTheEndOfACheckStartsAnotherCheck: a request begins and sees a change while
// the check for earlier requests is about to complete.
func TestChangeAtTheEndOfACheckStartsAnotherCheck(t *testing.T) {
	r := newRig(t) // without synctest, which does not count a wait for a mutex as blocked
	secret, _ := r.login()
	s := r.fresh(secret)
	v, id := r.vault, r.id(secret)
	if err := r.store.Delete(t.Context(), id); err != nil { // at another instance
		t.Fatal(err)
	}
	done := make(chan struct{})
	v.checks.mu.Lock()
	v.checks.pending[id] = false
	go func() {
		defer close(done)
		v.checkWithRetry(id) // finds no request at first
	}()
	for stacks := make([]byte, 1<<20); !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("(*checks).complete(")); {
		runtime.Gosched()
	}
	stream, cancel := context.WithCancelCause(t.Context())
	a := &Attachment{keeper: r.keeper, ref: seal.Ref{ID: id}, maxEnd: s.End, idleCheck: s.IdleEnd, cancel: cancel}
	v.live.add(a)
	v.checks.pending[id] = true // as Vault.check does
	v.checks.mu.Unlock()
	<-done
	if !errors.Is(context.Cause(stream), ErrNoSession) {
		t.Errorf("got cause %v for a request of a deleted session, want ErrNoSession", context.Cause(stream))
	}
	a.Detach()
}

// TestFailingChecksDoNotDelayOthers: while the store does not answer for many sessions, the
// end of another session reaches its requests within a second.
func TestFailingChecksDoNotDelayOthers(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		var streams []context.Context
		open := func() seal.Secret {
			secret := r.loginAs(r.keepers[0], "alice", "")
			stream, attached := attach(r.keepers[0], t.Context(), r.freshAt(0, secret))
			t.Cleanup(attached.Detach)
			streams = append(streams, stream)
			return secret
		}
		frozen := &frozenItems{SharedStore: r.users[0], ids: map[session.ID]bool{}}
		for range 3 * maxFirstChecks {
			frozen.ids[r.id(open())] = true
		}
		r.keepers[0].Vault.store = frozen
		r.users[0].dropCopies()      // the keeper checks all of them
		time.Sleep(5 * storeTimeout) // each check has failed once
		secret, last := open(), streams[len(streams)-1]
		if _, err := r.keepers[1].End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		if late := durationOf(func() { synctestDone(t, last) }); late > checkRetry {
			t.Errorf("a request ended %v after its session, want %v at most", late, checkRetry)
		}
		frozen.thawed.Store(true)
		time.Sleep(2 * storeTimeout)
		for _, stream := range streams[:len(streams)-1] {
			if stream.Err() != nil {
				t.Fatal("an outage of the store has ended a request")
			}
		}
	})
}

// frozenItems is a store whose View does not answer for some items until it is thawed.
type frozenItems struct {
	session.SharedStore
	ids    map[session.ID]bool
	thawed atomic.Bool
}

func (s *frozenItems) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	if s.ids[id] && !s.thawed.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.SharedStore.View(ctx, id, f)
}

// TestChangeDuringACheckStartsAnotherCheck: the answer of the store is older than a logout
// at another instance.
func TestChangeDuringACheckStartsAnotherCheck(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret := r.loginAs(r.keepers[0], "alice", "1")
		stream, attached := attach(r.keepers[0], t.Context(), r.freshAt(0, secret))
		defer attached.Detach()
		r.users[0].setFault(func(op sharedOp) (f storeFault) {
			if op == sharedView {
				f.after = time.Second
			}
			return f
		})
		r.users[0].dropCopies()
		time.Sleep(time.Second / 2)
		if _, err := r.keepers[1].End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if stream.Err() == nil {
			t.Error("a request goes on after its session has ended at another instance")
		}
	})
}

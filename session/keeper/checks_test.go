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

// TestNewsDuringTheEndOfACheckIsHeard: a request begins, and hears of a change,
// while the check for the requests before it is about to be over.
func TestNewsDuringTheEndOfACheckIsHeard(t *testing.T) {
	r := newRig(t) // without a bubble: who waits for a lock is not at rest in one
	secret, _ := r.login()
	s := r.fresh(secret)
	v, id := r.vault, r.id(secret)
	if err := r.store.Delete(t.Context(), id); err != nil { // at another instance
		t.Fatal(err)
	}
	over := make(chan struct{})
	v.checks.mu.Lock()
	v.checks.pending[id] = false
	go func() {
		defer close(over)
		v.checkWithRetry(id) // finds no request
	}()
	for stacks := make([]byte, 1<<20); !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("(*checks).done(")); {
		runtime.Gosched()
	}
	stream, cancel := context.WithCancelCause(t.Context())
	a := &Attachment{keeper: r.keeper, id: id, end: s.End, idleCheck: s.IdleEnd, cancel: cancel}
	v.live.add(a)
	v.checks.pending[id] = true // as of Vault.check
	v.checks.mu.Unlock()
	<-over
	if !errors.Is(context.Cause(stream), ErrNoSession) {
		t.Error("the request outlives its session")
	}
	a.Detach()
}

// TestChecksThatFailHoldUpNoOthers: while the store does not answer for many
// sessions, the end of another one reaches its requests at once.
func TestChecksThatFailHoldUpNoOthers(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		var streams []context.Context
		open := func() seal.Secret {
			secret := r.member(r.keepers[0], "alice", "")
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
		r.users[0].dropCopies()      // all are checked
		time.Sleep(5 * storeTimeout) // each has failed once
		secret, last := open(), streams[len(streams)-1]
		if _, err := r.keepers[1].End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		if late := took(func() { synctestDone(t, last) }); late > checkRetry {
			t.Errorf("a request ended %v after its session", late)
		}
		frozen.thawed.Store(true)
		time.Sleep(2 * storeTimeout)
		for _, stream := range streams[:len(streams)-1] {
			if stream.Err() != nil {
				t.Fatal("a store that froze has ended a request")
			}
		}
	})
}

// frozenItems is a store that does not answer for some items.
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

// TestNewsDuringACheckIsHeard: the store answers what was so before a logout at
// another instance.
func TestNewsDuringACheckIsHeard(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret := r.member(r.keepers[0], "alice", "1")
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
			t.Error("the request outlives its session")
		}
	})
}

package session

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowWrites makes every write of an item take that long.
func (r *rig) slowWrites(d time.Duration) {
	r.store.setFault(func(op storeOp) (f storeFault) {
		if op == opReplace {
			f.before = d
		}
		return f
	})
}

func (r *instances) slowWrites(i int, d time.Duration) {
	r.users[i].setFault(func(op sharedOp) (f storeFault) {
		if op == sharedReplace {
			f.before = d
		}
		return f
	})
}

// TestWhatIsAnsweredIsWritten: a crash right after it takes nothing along.
func TestWhatIsAnsweredIsWritten(t *testing.T) {
	for _, idTokens := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.server.set(func() { r.server.idTokens = idTokens })
			secret, f := r.login()
			r.expired()
			r.slowWrites(tellAfter - time.Millisecond)
			r.fresh(secret)
			r.wantStored(secret, f)
		})
	}
}

// TestTokensAreUsedWhileTheyAreWritten: a store that takes long does not hold up
// tokens that are here. Whoever comes meanwhile gets the same ones, and nothing is
// refreshed twice.
func TestTokensAreUsedWhileTheyAreWritten(t *testing.T) {
	check := func(t *testing.T, r *rig, f *family, secret Secret) {
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if wait := took(func() { r.fresh(secret) }); wait != r.server.latency+tellAfter {
					t.Errorf("a request waited %v for a server that takes %v", wait, r.server.latency)
				}
			})
		}
		all.Wait()
		newest, _ := r.server.newestOf(f)
		for range 2 {
			time.Sleep(time.Second)
			if wait := took(func() {
				if s := r.fresh(secret); s.AccessToken != newest {
					t.Errorf("got %q after %q", s.AccessToken, newest)
				}
			}); wait != 0 {
				t.Errorf("a request waited %v for what is there", wait)
			}
		}
		if rec := r.stored(secret); rec.token.value == newest {
			t.Error("the write was not slow")
		}
		time.Sleep(2 * time.Second)
		r.wantStored(secret, f)
		r.wantCalls(1)
	}
	for _, idTokens := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.server.set(func() { r.server.idTokens = idTokens })
			secret, f := r.login()
			r.expired()
			r.slowWrites(4 * time.Second)
			check(t, r, f, secret)
		})
		inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
			r.server.set(func() { r.server.idTokens = idTokens })
			secret, f := r.login()
			r.expired()
			r.slowWrites(0, 4*time.Second)
			check(t, r.rig, f, secret)
			r.freshAt(1, secret)
			r.wantCalls(1)
		})
	}
}

// TestDueTokenIsReplacedWhileItIsWritten: a request that could still use the old
// token gets the new one: a server may have revoked the old one by now.
func TestDueTokenIsReplacedWhileItIsWritten(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		r.due()
		r.slowWrites(2 * tellAfter)
		old := r.fresh(secret).AccessToken
		for range 2 {
			time.Sleep(r.server.latency)
			if s := r.fresh(secret); s.AccessToken != old {
				t.Errorf("got %q before that", s.AccessToken)
			}
		}
		time.Sleep(tellAfter)
		newest, _ := r.server.newestOf(f)
		if s := r.fresh(secret); s.AccessToken != newest {
			t.Errorf("got %q, want %q", s.AccessToken, newest)
		}
		time.Sleep(tellAfter)
		r.wantStored(secret, f)
	})
}

// TestNothingIsUsedBeforeItIsJudged: the access token beside an ID token may be
// somebody else's.
func TestNothingIsUsedBeforeItIsJudged(t *testing.T) {
	for _, judging := range []time.Duration{judgeAtOnce / 2, time.Second} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.server.set(func() {
				r.server.idTokens, r.server.judging = true, judging
				r.server.judge = func(Identity, Tokens) (Identity, error) { return Identity{}, ErrIdentityChanged }
			})
			secret, f := r.login()
			r.expired()
			r.slowWrites(2 * time.Second)
			r.ended(secret, EndIdentityChanged)
			synctest.Wait()
			r.server.wantDiscarded(t, f.current)
		})
	}
}

// TestLogoutWhileTokensAreWritten: from then on nobody gets them, those included
// who were waiting.
func TestLogoutWhileTokensAreWritten(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		r.expired()
		r.slowWrites(4 * time.Second)
		s := r.fresh(secret)
		ctx, attached := attach(r.keeper, t.Context(), s)
		defer attached.Detach()
		if _, err := r.keeper.End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		if ctx.Err() == nil {
			t.Error("a request with the new token goes on")
		}
		r.gone(secret)
		time.Sleep(10 * time.Second)
		r.gone(secret)
		r.server.wantDiscarded(t, f.current)
	})
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.expired()
		r.slowWrites(0, 4*time.Second)
		s := r.freshAt(0, secret)
		ctx, attached := attach(r.keepers[0], t.Context(), s)
		defer attached.Detach()
		if _, err := r.keepers[1].End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if ctx.Err() == nil {
			t.Error("a request with the new token goes on")
		}
		r.gone(secret)
		time.Sleep(10 * time.Second)
		r.gone(secret)
		r.server.wantDiscarded(t, f.current)
		r.noLease(secret)
	})
}

// TestTokensWithoutTheStore: it is not known whether the session is still there,
// so those who wait go on waiting for the write, as long as they can.
func TestTokensWithoutTheStore(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.expired()
		r.server.set(func() { r.server.latency = 2 * time.Second })
		got := make(chan error)
		go func() {
			_, err := r.keepers[0].Fresh(t.Context(), secret)
			got <- err
		}()
		time.Sleep(time.Second)
		r.users[0].cut()
		time.Sleep(1500 * time.Millisecond)
		r.users[0].healthy()
		if err := <-got; err != nil {
			t.Errorf("Fresh: %v", err)
		}
		time.Sleep(2 * retryMax)
		r.wantStored(secret, f)
		r.freshAt(1, secret)
		r.wantCalls(1)
	})
}

// TestOneWriteForARefresh: new tokens, what the ID token says, and the use that
// caused it.
func TestOneWriteForARefresh(t *testing.T) {
	for name, tc := range map[string]struct {
		idTokens bool
		judging  time.Duration
		want     int
	}{
		"without ID token": {want: 1},
		"ID token":         {idTokens: true, want: 1},
		"judged soon":      {idTokens: true, judging: judgeAtOnce / 2, want: 1},
		"judged late":      {idTokens: true, judging: 2 * judgeAtOnce, want: 2},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.server.set(func() {
					r.server.idTokens, r.server.judging, r.server.lifetime = tc.idTokens, tc.judging, 10*time.Minute
				})
				secret, f := r.login()
				r.expired()
				used := time.Now()
				r.fresh(secret)
				time.Sleep(time.Second)
				r.wantStored(secret, f)
				if seen := r.stored(secret).seen; !seen.Equal(used) {
					t.Errorf("last used at %v, noted %v", used, seen)
				}
				if n := r.store.done(opReplace); n != tc.want {
					t.Errorf("%d writes, want %d", n, tc.want)
				}
				if !r.vault.uses.last(r.id(secret)).IsZero() {
					t.Error("the use is still to be written")
				}
			})
		})
	}
}

// TestUseOfARefreshThatFails: it is written all the same, and so is one that
// comes in the pause.
func TestUseOfARefreshThatFails(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.set(func() { r.server.lifetime = 10 * time.Minute })
		secret, _ := r.login()
		r.due()
		r.server.always(behaviour{outcome: Unavailable})
		used := time.Now()
		r.fresh(secret)
		time.Sleep(r.server.latency)
		synctest.Wait()
		if seen := r.stored(secret).seen; !seen.Equal(used) {
			t.Errorf("last used at %v, noted %v", used, seen)
		}
		r.server.set(func() { r.server.latency = 0 })
		for range 4 {
			time.Sleep(time.Second)
			var unavailable *UnavailableError
			if _, err := r.keeper.Fresh(t.Context(), secret); err != nil && !errors.As(err, &unavailable) {
				t.Fatal(err)
			}
		}
		time.Sleep(r.keeper.touchEvery)
		used = time.Now()
		_, _ = r.keeper.Fresh(t.Context(), secret)
		synctest.Wait()
		if seen := r.stored(secret).seen; !seen.Equal(used) {
			t.Errorf("last used at %v, noted %v", used, seen)
		}
	})
}

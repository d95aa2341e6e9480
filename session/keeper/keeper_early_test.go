package keeper

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
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

// TestTokenIsPersistedBeforeResponse: a crash immediately after a response loses no
// token.
func TestTokenIsPersistedBeforeResponse(t *testing.T) {
	for _, idTokens := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.server.set(func() { r.server.idTokens = idTokens })
			secret, f := r.login()
			r.waitUntilExpired()
			r.slowWrites(publishDelay - time.Millisecond)
			r.fresh(secret)
			r.wantStored(secret, f)
		})
	}
}

// TestSlowWriteDoesNotDelayNewTokens: requests get new tokens although the store is slow
// to confirm them. Later requests get the same tokens, and no token is refreshed twice.
func TestSlowWriteDoesNotDelayNewTokens(t *testing.T) {
	check := func(t *testing.T, r *rig, f *family, secret seal.Secret) {
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if wait := durationOf(func() { r.fresh(secret) }); wait != r.server.latency+publishDelay {
					t.Errorf("a request waited %v, want %v", wait, r.server.latency+publishDelay)
				}
			})
		}
		all.Wait()
		newest, _ := r.server.newestOf(f)
		for range 2 {
			time.Sleep(time.Second)
			if wait := durationOf(func() {
				if s := r.fresh(secret); s.AccessToken != newest {
					t.Errorf("got %q, want %q", s.AccessToken, newest)
				}
			}); wait != 0 {
				t.Errorf("a request waited %v for a published token, want 0", wait)
			}
		}
		if rec := r.stored(secret); rec.token.value == newest {
			t.Error("the write is done, want it in progress")
		}
		time.Sleep(2 * time.Second)
		r.wantStored(secret, f)
		r.wantCalls(1)
	}
	for _, idTokens := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.server.set(func() { r.server.idTokens = idTokens })
			secret, f := r.login()
			r.waitUntilExpired()
			r.slowWrites(4 * time.Second)
			check(t, r, f, secret)
		})
		inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
			r.server.set(func() { r.server.idTokens = idTokens })
			secret, f := r.login()
			r.waitUntilExpired()
			r.slowWrites(0, 4*time.Second)
			check(t, r.rig, f, secret)
			r.freshAt(1, secret)
			r.wantCalls(1)
		})
	}
}

// TestNewTokenReplacesValidOneDuringWrite: a request that could still use the old token
// gets the new one, because the server may have revoked the old one.
func TestNewTokenReplacesValidOneDuringWrite(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		r.waitUntilDue()
		r.slowWrites(2 * publishDelay)
		old := r.fresh(secret).AccessToken
		for range 2 {
			time.Sleep(r.server.latency)
			if s := r.fresh(secret); s.AccessToken != old {
				t.Errorf("got %q before the publication, want %q", s.AccessToken, old)
			}
		}
		time.Sleep(publishDelay)
		newest, _ := r.server.newestOf(f)
		if s := r.fresh(secret); s.AccessToken != newest {
			t.Errorf("got %q, want %q", s.AccessToken, newest)
		}
		time.Sleep(publishDelay)
		r.wantStored(secret, f)
	})
}

// TestTokensAreNotUsedBeforeIDTokenIsVerified: the access token of an answer may be of
// another user if the ID token is.
func TestTokensAreNotUsedBeforeIDTokenIsVerified(t *testing.T) {
	for _, verification := range []time.Duration{commitDelay / 2, time.Second} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.server.set(func() {
				r.server.idTokens, r.server.identifyDelay = true, verification
				r.server.identify = func(Identity, Tokens) (Identity, error) { return Identity{}, ErrIdentityChanged }
			})
			secret, f := r.login()
			r.waitUntilExpired()
			r.slowWrites(2 * time.Second)
			r.wantEnded(secret, EndIdentityChanged)
			synctest.Wait()
			r.server.wantDiscarded(t, f.current)
		})
	}
}

// TestLogoutDuringWriteWins: after the logout no request gets the new tokens.
func TestLogoutDuringWriteWins(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		r.waitUntilExpired()
		r.slowWrites(4 * time.Second)
		s := r.fresh(secret)
		ctx, attached := attach(r.keeper, t.Context(), s)
		defer attached.Detach()
		if _, err := r.keeper.End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		if ctx.Err() == nil {
			t.Error("a request with the new token goes on, want it cancelled")
		}
		r.wantGone(secret)
		time.Sleep(10 * time.Second)
		r.wantGone(secret)
		r.server.wantDiscarded(t, f.current)
	})
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.waitUntilExpired()
		r.slowWrites(0, 4*time.Second)
		s := r.freshAt(0, secret)
		ctx, attached := attach(r.keepers[0], t.Context(), s)
		defer attached.Detach()
		if _, err := r.keepers[1].End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if ctx.Err() == nil {
			t.Error("a request with the new token goes on, want it cancelled")
		}
		r.wantGone(secret)
		time.Sleep(10 * time.Second)
		r.wantGone(secret)
		r.server.wantDiscarded(t, f.current)
		r.wantNoLease(secret)
	})
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) { // while a request waits
		secret, f := r.login()
		r.waitUntilExpired()
		r.slowWrites(0, 4*time.Second)
		go func() {
			time.Sleep(r.server.latency + publishDelay/2)
			if _, err := r.keepers[1].End(t.Context(), secret, EndLogout); err != nil {
				t.Error(err)
			}
		}()
		if wait := durationOf(func() { r.wantGone(secret) }); wait != r.server.latency+publishDelay {
			t.Errorf("waited %v, want %v", wait, r.server.latency+publishDelay)
		}
		time.Sleep(10 * time.Second)
		r.server.wantDiscarded(t, f.current)
	})
}

// TestOutageDuringRefreshKeepsTokens: while the store is down, the keeper cannot know
// whether the session still exists. Waiting requests get an UnavailableError, and the
// tokens are kept for later ones.
func TestOutageDuringRefreshKeepsTokens(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
			secret, f := r.login()
			r.waitUntilExpired()
			r.server.set(func() { r.server.latency = 2 * time.Second })
			got := make(chan error)
			go func() {
				_, err := r.keepers[0].Fresh(t.Context(), secret)
				got <- err
			}()
			time.Sleep(time.Second)
			r.users[0].disconnect()
			if leaves {
				if _, err := r.keepers[1].End(t.Context(), secret, EndLogout); err != nil {
					t.Fatal(err)
				}
			}
			var unavailable *UnavailableError
			if err := <-got; !errors.As(err, &unavailable) {
				t.Errorf("Fresh: %v, want an *UnavailableError", err)
			}
			r.users[0].clearFaults()
			time.Sleep(2 * writeRetryMax)
			if leaves {
				r.wantGone(secret)
				r.server.wantDiscarded(t, f.current)
				return
			}
			r.wantStored(secret, f)
			r.freshAt(0, secret)
			r.freshAt(1, secret)
			r.wantCalls(1)
		})
	}
}

// TestLogoutDuringVerificationDiscardsTokens: the first commit finds that the session has
// ended. Waiting requests get ErrNoSession at once, and the tokens are revoked.
func TestLogoutDuringVerificationDiscardsTokens(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		r.server.set(func() { r.server.idTokens, r.server.identifyDelay = true, time.Hour })
		secret, f := r.login()
		r.waitUntilExpired()
		got := make(chan error)
		go func() {
			_, err := r.keepers[0].Fresh(t.Context(), secret)
			got <- err
		}()
		time.Sleep(r.server.latency / 2)
		if _, err := r.keepers[1].End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		if err := <-got; !errors.Is(err, ErrNoSession) {
			t.Errorf("Fresh: %v, want ErrNoSession", err)
		}
		synctest.Wait()
		r.server.wantDiscarded(t, f.current)
		if !r.keepers[0].Vault.uses.last(r.id(secret)).IsZero() {
			t.Error("a use of the ended session is kept")
		}
	})
}

func TestStoreWaitIsBoundedByRefreshTimeout(t *testing.T) {
	inBubbleWithInstances(t, 1, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		r.waitUntilExpired()
		go func() {
			time.Sleep(r.server.latency / 2)
			r.users[0].dropCopies()
			r.users[0].setFault(func(op sharedOp) (f storeFault) {
				if op == sharedView || op == sharedReplace {
					f.before = time.Minute
				}
				return f
			})
		}()
		if wait := durationOf(func() { _ = r.wantUnavailable(secret) }); wait != r.keeper.RefreshTimeout {
			t.Errorf("waited %v, want %v", wait, r.keeper.RefreshTimeout)
		}
		r.users[0].clearFaults()
		time.Sleep(2 * time.Minute)
	})
}

// TestDemandsApplyToPublishedTokens: a demand for a newer or another token refers to the
// token that was served last, even if the store has not confirmed it.
func TestDemandsApplyToPublishedTokens(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.waitUntilDue()
		r.slowWrites(4 * time.Second)
		old := r.fresh(secret)
		time.Sleep(2 * time.Second)
		published := r.fresh(secret)
		if published.AccessToken == old.AccessToken {
			t.Fatal("the new token was not published")
		}
		since := time.Now()
		for name, ask := range map[string]func() (*Session, error){
			"newer": func() (*Session, error) { return r.keeper.FreshSince(t.Context(), secret, since) },
			"other": func() (*Session, error) {
				return r.keeper.FreshOtherThan(t.Context(), secret, published.AccessToken)
			},
		} {
			s, err := ask()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if s.AccessToken == old.AccessToken || s.AccessToken == published.AccessToken {
				t.Errorf("%s: got %q, want a token newer than %q", name, s.AccessToken, published.AccessToken)
			}
		}
	})
}

// TestNewSIDIsCommittedBeforeTokensAreServed: only after the commit can the keeper look
// for a logout of the new sid.
func TestNewSIDIsCommittedBeforeTokensAreServed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.set(func() {
			r.server.idTokens = true
			r.server.identify = func(current Identity, _ Tokens) (Identity, error) {
				current.SID = "another"
				return current, nil
			}
		})
		secret, f := r.login()
		r.waitUntilExpired()
		r.slowWrites(3 * publishDelay)
		if wait := durationOf(func() { r.fresh(secret) }); wait != r.server.latency+3*publishDelay {
			t.Errorf("waited %v, want %v", wait, r.server.latency+3*publishDelay)
		}
		r.wantStored(secret, f)
	})
}

// TestRefreshNeedsOneWrite: one write has the new tokens, the claims of the ID token, and
// the use that caused the refresh.
func TestRefreshNeedsOneWrite(t *testing.T) {
	for name, tc := range map[string]struct {
		idTokens     bool
		verification time.Duration
		want         int
	}{
		"without ID token":  {want: 1},
		"ID token":          {idTokens: true, want: 1},
		"fast verification": {idTokens: true, verification: commitDelay / 2, want: 1},
		"slow verification": {idTokens: true, verification: 2 * commitDelay, want: 2},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.server.set(func() {
					r.server.idTokens, r.server.identifyDelay, r.server.lifetime = tc.idTokens, tc.verification, 10*time.Minute
				})
				secret, f := r.login()
				r.waitUntilExpired()
				used := time.Now()
				r.fresh(secret)
				time.Sleep(time.Second)
				r.wantStored(secret, f)
				if seen := r.stored(secret).lastUsed; !seen.Equal(used) {
					t.Errorf("written last use %v, want %v", seen, used)
				}
				if n := r.store.completed(opReplace); n != tc.want {
					t.Errorf("%d writes, want %d", n, tc.want)
				}
				if !r.vault.uses.last(r.id(secret)).IsZero() {
					t.Error("the use is not written yet")
				}
			})
		})
	}
}

// TestUseIsWrittenAlthoughRefreshFails: a use during the back-off is written, too.
func TestUseIsWrittenAlthoughRefreshFails(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.set(func() { r.server.lifetime = 10 * time.Minute })
		secret, _ := r.login()
		written := func() time.Time { synctest.Wait(); return r.stored(secret).lastUsed }
		r.waitUntilDue()
		r.server.always(behaviour{outcome: Unavailable})
		used := time.Now()
		r.fresh(secret)
		time.Sleep(r.server.latency)
		if seen := written(); !seen.Equal(used) {
			t.Errorf("written last use %v, want %v", seen, used)
		}
		time.Sleep(time.Until(used.Add(r.keeper.useInterval - time.Second)))
		_, _ = r.keeper.Fresh(t.Context(), secret)
		if seen := written(); !seen.Equal(used) {
			t.Errorf("written last use %v, want %v: the next is not due", seen, used)
		}
		time.Sleep(time.Second)
		calls := r.server.calls()
		used = time.Now()
		_, _ = r.keeper.Fresh(t.Context(), secret)
		if seen := written(); !seen.Equal(used) || r.server.calls() != calls {
			t.Errorf("during the back-off: written last use %v, want %v", seen, used)
		}
	})
}

// TestLaterUseDuringRefreshIsWritten: a use that is much later than the one which the
// refresh has written is written after it.
func TestLaterUseDuringRefreshIsWritten(t *testing.T) {
	for _, later := range []time.Duration{25 * time.Second, 35 * time.Second} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.reconfigure(func(c *Config) { c.IdleTimeout = 10 * time.Minute }) // a use is written every 30 s
			secret, _ := r.login()
			r.waitUntilDue()
			r.server.set(func() { r.server.latency = 40 * time.Second })
			asked := time.Now()
			r.fresh(secret)
			time.Sleep(later)
			_, _ = r.keeper.Fresh(t.Context(), secret)
			time.Sleep(time.Minute)
			want := asked
			if later > r.keeper.useInterval {
				want = asked.Add(later)
			}
			if seen := r.stored(secret).lastUsed; !seen.Equal(want) {
				t.Errorf("written last use %v after the first, want %v", seen.Sub(asked), want.Sub(asked))
			}
			if !r.vault.uses.last(r.id(secret)).IsZero() {
				t.Error("a use is not written yet")
			}
		})
	}
}

// TestUseNearIdleEndIsWrittenAtOnce: if the use were written only after a slow refresh,
// other instances would end the session as idle before.
func TestUseNearIdleEndIsWrittenAtOnce(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		for i, k := range r.keepers {
			c := k.Config
			c.IdleTimeout = time.Minute
			r.keepers[i] = mustKeeper(c)
		}
		r.server.set(func() { r.server.latency, r.server.lifetime = 20*time.Second, 50*time.Second })
		secret, _ := r.login()
		time.Sleep(45 * time.Second) // the token is due and usable
		r.freshAt(0, secret)
		time.Sleep(19 * time.Second)
		r.freshAt(1, secret)
	})
}

// TestRefreshCorrectsLastUseInTheFuture: a clock that ran ahead delays the idle time-out
// until the next refresh at most.
func TestRefreshCorrectsLastUseInTheFuture(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		rec := r.stored(secret)
		rec.lastUsed = rec.lastUsed.Add(10 * time.Hour)
		item, err := r.keeper.sealItem(seal.Ref{ID: r.id(secret), Secret: secret}, rec)
		if err != nil {
			t.Fatal(err)
		}
		r.store.put(r.id(secret), item)
		r.vault.cache.forget(r.id(secret))
		r.waitUntilExpired()
		r.fresh(secret)
		if seen := r.stored(secret).lastUsed; seen.After(time.Now()) {
			t.Errorf("last use in %v, want it in the past", time.Until(seen))
		}
	})
}

// TestRefreshReadsFromCopy: the record that a request has just read is not fetched again.
func TestRefreshReadsFromCopy(t *testing.T) {
	inBubbleWithInstances(t, 1, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.waitUntilExpired()
		current := 0
		r.users[0].setFault(func(op sharedOp) storeFault {
			if op == sharedCurrent {
				current++
			}
			return storeFault{}
		})
		r.fresh(secret)
		r.wantStored(secret, f)
		if current != 0 {
			t.Errorf("%d reads with ViewCurrent, want 0", current)
		}
		// Nor is it for a session that is soon idle, if its last use was just written.
		r.keeper = r.reconfigure(func(c *Config) {
			c.Vault, c.Refresher, c.IdleTimeout = r.keeper.Vault, r.keeper.Refresher, 10*time.Minute
		})
		r.waitUntilDue()
		r.keeper.recordUse(seal.Ref{ID: r.id(secret), Secret: secret}, time.Now())
		synctest.Wait()
		r.keeper = r.reconfigure(func(c *Config) { c.IdleTimeout = 40 * time.Second })
		current = 0
		r.fresh(secret)
		synctest.Wait()
		if current != 0 {
			t.Errorf("%d reads with ViewCurrent after the use was written, want 0", current)
		}
	})
}

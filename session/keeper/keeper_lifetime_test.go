package keeper

import (
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// useLongTokens makes access tokens outlive every session, so that no refresh happens.
func (r *rig) useLongTokens() {
	r.server.set(func() { r.server.lifetime = 1000 * time.Hour })
}

// TestUnusedSessionEndsAfterIdleTimeout: a session ends IdleTimeout after its last use,
// never earlier, and later by useInterval at most.
func TestUnusedSessionEndsAfterIdleTimeout(t *testing.T) {
	for _, idle := range []time.Duration{2 * time.Second, 10 * time.Minute, 8 * time.Hour} {
		// Uses are written once per useInterval; those in between count, too.
		for _, share := range []int{0, 1, 50, 99, 100, 150} {
			inBubble(t, func(t *testing.T, r *rig) {
				r.useLongTokens()
				k := r.reconfigure(func(c *Config) { c.IdleTimeout = idle })
				every := min(5*time.Minute, idle/20)
				lastUse := every * time.Duration(share) / 100
				early, _ := r.login()
				late, _ := r.login()
				time.Sleep(lastUse)
				r.fresh(early)
				r.fresh(late)
				time.Sleep(idle - time.Millisecond)
				r.fresh(early)
				time.Sleep(every + time.Millisecond)
				if k.useInterval != every {
					t.Fatalf("got a use interval of %v, want %v", k.useInterval, every)
				}
				r.wantEnded(late, EndIdle)
				r.fresh(early)
				r.wantCalls(0)
			})
		}
	}
}

// TestEveryUseMovesTheIdleEnd, up to the absolute end.
func TestEveryUseMovesTheIdleEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		start := time.Now()
		for time.Since(start) < 24*time.Hour-30*time.Minute {
			time.Sleep(30 * time.Minute)
			if time.Since(start) < 24*time.Hour {
				r.fresh(secret)
			}
		}
		time.Sleep(time.Until(start.Add(24*time.Hour - time.Second)))
		s := r.fresh(secret)
		if end := start.Add(24 * time.Hour); !s.End.Equal(end) || !s.IdleEnd.Equal(end) {
			t.Errorf("got end %v and idle end %v, want %v for both", s.End, s.IdleEnd, end)
		}
		time.Sleep(time.Until(s.End) - time.Millisecond)
		r.fresh(secret)
		time.Sleep(time.Millisecond)
		if _, err := r.keeper.Peek(t.Context(), secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("Peek: got error %v, want ErrNoSession", err)
		}
		r.wantEnded(secret, EndLifetime)
		if _, redeems := r.server.newestOf(f); redeems < 40 {
			t.Errorf("got %d refreshes, want at least 40 for this test to be meaningful", redeems)
		}
	})
}

// TestRefreshDoesNotCountAsUse: only requests move the idle end, and no refresh moves the
// absolute end.
func TestRefreshDoesNotCountAsUse(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		end := r.fresh(secret).End
		r.waitUntilDue()
		r.server.always(behaviour{before: 20 * time.Second})
		r.fresh(secret)
		used := time.Now()
		time.Sleep(time.Minute)
		if got := r.stored(secret).lastUsed; got.After(used) {
			t.Errorf("got last use %v, want %v at the latest", got, used)
		}
		if s := r.fresh(secret); !s.End.Equal(end) {
			t.Errorf("got end %v after a refresh, want %v", s.End, end)
		}
	})
}

// TestPeekDoesNotCountAsUse: polling the session's state neither moves its idle end, nor
// refreshes, nor writes.
func TestPeekDoesNotCountAsUse(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		login := time.Now()
		for time.Since(login) < 8*time.Hour {
			s, err := r.keeper.Peek(t.Context(), secret)
			if err != nil {
				t.Fatalf("Peek after %v: %v", time.Since(login), err)
			}
			if end := login.Add(8 * time.Hour); !s.IdleEnd.Equal(end) {
				t.Fatalf("got idle end %v, want %v", s.IdleEnd, end)
			}
			time.Sleep(10 * time.Second)
		}
		time.Sleep(r.keeper.useInterval)
		if _, err := r.keeper.Peek(t.Context(), secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("Peek: got error %v, want ErrNoSession", err)
		}
		r.wantCalls(0)
		if n := r.store.completed(opReplace); n != 0 {
			t.Errorf("got %d writes, want none", n)
		}
		r.wantEnded(secret, EndIdle)
	})
}

// TestShorterMaxLifetimeAppliesToExistingSessions, and a longer one does not.
func TestShorterMaxLifetimeAppliesToExistingSessions(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useLongTokens()
		secret, _ := r.login()
		other, _ := r.login()
		time.Sleep(59 * time.Minute)
		r.reconfigure(func(c *Config) { c.MaxLifetime = time.Hour })
		if s := r.fresh(secret); !s.End.Equal(s.Created.Add(time.Hour)) || s.IdleEnd.After(s.End) {
			t.Errorf("got end %v and idle end %v, want %v at the latest", s.End, s.IdleEnd, s.Created.Add(time.Hour))
		}
		time.Sleep(time.Minute)
		r.wantEnded(secret, EndLifetime)
		r.reconfigure(func(c *Config) { c.MaxLifetime = 1000 * time.Hour })
		if s := r.fresh(other); !s.End.Equal(s.Created.Add(24 * time.Hour)) {
			t.Errorf("got end %v, want %v", s.End, s.Created.Add(24*time.Hour))
		}
	})
}

// TestUsesAreWrittenOncePerInterval: 10 requests per second cause one write in five
// minutes.
func TestUsesAreWrittenOncePerInterval(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useLongTokens()
		secret, _ := r.login()
		for range 60 * 60 * 10 {
			r.fresh(secret)
			time.Sleep(100 * time.Millisecond)
		}
		if n := r.store.completed(opReplace); n < 11 || n > 12 {
			t.Errorf("got %d writes in an hour, want 11 or 12", n)
		}
		if n := r.store.completed(opView); n > 36_000+12 {
			t.Errorf("got %d reads for 36,000 requests, want 36,012 at most", n)
		}
	})
}

// TestSimultaneousUseAndRefreshAreBothWritten, whichever write is first.
func TestSimultaneousUseAndRefreshAreBothWritten(t *testing.T) {
	for name, delay := range map[string]time.Duration{
		"use first": 0, "refresh first": time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secret, f := r.login()
				r.waitUntilExpired()
				used := time.Now()
				n := 0
				r.store.setFault(func(op storeOp) storeFault {
					if op != opReplace {
						return storeFault{}
					}
					if n++; n == 1 { // the use
						return storeFault{before: delay}
					}
					return storeFault{}
				})
				r.keeper.recordUse(seal.Ref{ID: r.id(secret), Secret: secret}, used)
				r.fresh(secret)
				time.Sleep(2 * time.Second)
				r.wantStored(secret, f)
				if got := r.stored(secret).lastUsed; !got.Equal(used) {
					t.Errorf("got last use %v, want %v", got, used)
				}
				r.wantCalls(1)
			})
		})
	}
}

// TestUseCountsWhileTheStoreFails: a session whose use could not be written does not end as
// idle.
func TestUseCountsWhileTheStoreFails(t *testing.T) {
	t.Run("one use", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.useLongTokens()
			secret, _ := r.login()
			time.Sleep(7*time.Hour + 59*time.Minute)
			r.store.fail(opReplace)
			r.fresh(secret)
			time.Sleep(time.Second)
			r.store.clearFaults()
			time.Sleep(5 * time.Minute)
			r.fresh(secret) // five minutes after its last use
		})
	})
	t.Run("long outage", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.useLongTokens()
			r.reconfigure(func(c *Config) { c.IdleTimeout = 10 * time.Minute })
			secret, _ := r.login()
			r.store.fail(opReplace)
			for range 30 * 60 {
				r.fresh(secret)
				time.Sleep(time.Second)
			}
		})
	})
}

// TestUseCountsBeforeItIsWritten: the write of a use shortly before the idle end is still in
// progress when the next request comes.
func TestUseCountsBeforeItIsWritten(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useLongTokens()
		secret, _ := r.login()
		time.Sleep(8*time.Hour + time.Minute - time.Millisecond)
		r.store.setFault(func(op storeOp) storeFault {
			if op == opReplace {
				return storeFault{before: 10 * time.Millisecond}
			}
			return storeFault{}
		})
		r.fresh(secret)
		time.Sleep(2 * time.Millisecond)
		r.fresh(secret) // two milliseconds after its last use
	})
}

// TestFreshSinceReturnsTheIdleEndOfThisUse, not of the last written use.
func TestFreshSinceReturnsTheIdleEndOfThisUse(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useLongTokens()
		secret, _ := r.login()
		time.Sleep(8*time.Hour + 30*time.Second)
		s, err := r.keeper.FreshSince(t.Context(), secret, time.Now().Add(-9*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if want := time.Now().Add(8 * time.Hour); !s.IdleEnd.Equal(want) {
			t.Errorf("got idle end %v, want %v", s.IdleEnd, want)
		}
		synctest.Wait()
	})
}

// TestItemExpiresAfterItsSession, and expirySlack after the absolute end at the latest.
func TestItemExpiresAfterItsSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useLongTokens()
		r.reconfigure(func(c *Config) { c.MaxLifetime = 12 * time.Hour })
		secret, _ := r.login()
		for range 11 {
			s := r.fresh(secret)
			synctest.Wait() // for the write of this use
			item, _ := r.store.item(r.id(secret))
			if !item.Expires.After(s.IdleEnd.Add(r.keeper.useInterval)) && !item.Expires.After(s.End) {
				t.Errorf("got an item that expires at %v, want later than the idle end %v", item.Expires, s.IdleEnd)
			}
			if item.Expires.After(s.End.Add(expirySlack)) {
				t.Errorf("got an item that expires at %v, want %v at the latest", item.Expires, s.End.Add(expirySlack))
			}
			time.Sleep(time.Hour)
		}
	})
}

// TestUsesOfManySessionsAreWrittenByFewWriters, and none is lost.
func TestUsesOfManySessionsAreWrittenByFewWriters(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useLongTokens()
		var secrets []seal.Secret
		for range 3 * useWriters {
			secret, _ := r.login()
			secrets = append(secrets, secret)
		}
		time.Sleep(2 * maxUseInterval)
		r.store.setFault(func(op storeOp) storeFault { return storeFault{freeze: op == opReplace} })
		before := runtime.NumGoroutine()
		for _, secret := range secrets {
			r.fresh(secret)
		}
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > useWriters || n < useWriters/2 {
			t.Errorf("got %d goroutines that wait for the store, want %d", n, useWriters)
		}
		r.store.clearFaults()
		time.Sleep(5 * useRetry)
		for _, secret := range secrets {
			if since := time.Since(r.stored(secret).lastUsed); since > maxUseInterval {
				t.Fatalf("got a last use %v ago, want %v at most", since, maxUseInterval)
			}
		}
	})
}

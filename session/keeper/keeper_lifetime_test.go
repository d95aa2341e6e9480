package keeper

import (
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// longTokens makes access tokens outlive every session, to look at lifetimes
// alone.
func (r *rig) longTokens() {
	r.server.set(func() { r.server.lifetime = 1000 * time.Hour })
}

// TestIdleEnd: a session ends when it was not used for IdleTimeout, never
// before, and at most the interval of noting uses later.
func TestIdleEnd(t *testing.T) {
	for _, idle := range []time.Duration{2 * time.Second, 10 * time.Minute, 8 * time.Hour} {
		// Uses are noted once per touchEvery: those between count as well.
		for _, share := range []int{0, 1, 50, 99, 100, 150} {
			inBubble(t, func(t *testing.T, r *rig) {
				r.longTokens()
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
					t.Fatalf("uses are noted every %v", k.useInterval)
				}
				r.ended(late, EndIdle)
				r.fresh(early)
				r.wantCalls(0)
			})
		}
	}
}

// TestIdleTimeSlides with every use, up to the absolute end.
func TestIdleTimeSlides(t *testing.T) {
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
			t.Errorf("it ends at %v, idle at %v, want %v", s.End, s.IdleEnd, end)
		}
		time.Sleep(time.Until(s.End) - time.Millisecond)
		r.fresh(secret)
		time.Sleep(time.Millisecond)
		if _, err := r.keeper.Peek(t.Context(), secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("Peek: %v", err)
		}
		r.ended(secret, EndLifetime)
		if _, redeems := r.server.newestOf(f); redeems < 40 {
			t.Errorf("only %d refreshes: the test did not test what it should", redeems)
		}
	})
}

// TestRefreshIsNoUse of its own: only requests extend a session, and no refresh
// extends its absolute end.
func TestRefreshIsNoUse(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		end := r.fresh(secret).End
		r.due()
		r.server.always(behaviour{before: 20 * time.Second})
		r.fresh(secret)
		used := time.Now()
		time.Sleep(time.Minute)
		if seen := r.stored(secret).lastUsed; seen.After(used) {
			t.Errorf("last used at %v, noted %v", used, seen)
		}
		if s := r.fresh(secret); !s.End.Equal(end) {
			t.Errorf("a refresh moved the end from %v to %v", end, s.End)
		}
	})
}

// TestPeekIsNoUse: polling for the session's state neither extends it nor
// refreshes nor writes.
func TestPeekIsNoUse(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		login := time.Now()
		for time.Since(login) < 8*time.Hour {
			s, err := r.keeper.Peek(t.Context(), secret)
			if err != nil {
				t.Fatalf("Peek after %v: %v", time.Since(login), err)
			}
			if end := login.Add(8 * time.Hour); !s.IdleEnd.Equal(end) {
				t.Fatalf("idle end %v, want %v", s.IdleEnd, end)
			}
			time.Sleep(10 * time.Second)
		}
		time.Sleep(r.keeper.useInterval)
		if _, err := r.keeper.Peek(t.Context(), secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("Peek: %v", err)
		}
		r.wantCalls(0)
		if n := r.store.done(opReplace); n != 0 {
			t.Errorf("%d writes", n)
		}
		r.ended(secret, EndIdle)
	})
}

// TestShortenedMaxLifetime counts for the sessions that exist.
func TestShortenedMaxLifetime(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.longTokens()
		secret, _ := r.login()
		other, _ := r.login()
		time.Sleep(59 * time.Minute)
		r.reconfigure(func(c *Config) { c.MaxLifetime = time.Hour })
		if s := r.fresh(secret); !s.End.Equal(s.Created.Add(time.Hour)) || s.IdleEnd.After(s.End) {
			t.Errorf("it ends at %v, idle at %v", s.End, s.IdleEnd)
		}
		time.Sleep(time.Minute)
		r.ended(secret, EndLifetime)
		// A longer one does not lengthen what was promised at login.
		r.reconfigure(func(c *Config) { c.MaxLifetime = 1000 * time.Hour })
		if s := r.fresh(other); !s.End.Equal(s.Created.Add(24 * time.Hour)) {
			t.Errorf("it ends at %v", s.End)
		}
	})
}

// TestUsesAreNotedOnceInAWhile: 10 requests a second are one write in five
// minutes.
func TestUsesAreNotedOnceInAWhile(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.longTokens()
		secret, _ := r.login()
		for range 60 * 60 * 10 {
			r.fresh(secret)
			time.Sleep(100 * time.Millisecond)
		}
		if n := r.store.done(opReplace); n < 11 || n > 12 {
			t.Errorf("%d writes in an hour", n)
		}
		if n := r.store.done(opView); n > 36_000+12 {
			t.Errorf("%d reads for 36,000 requests", n)
		}
	})
}

// TestUseMeetsRefresh: a use is being written while a request causes a refresh.
// Whichever write is first, neither is lost.
func TestUseMeetsRefresh(t *testing.T) {
	for name, delay := range map[string]time.Duration{
		"use first": 0, "refresh first": time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secret, f := r.login()
				r.expired()
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
				if seen := r.stored(secret).lastUsed; !seen.Equal(used) {
					t.Errorf("last used at %v, noted %v", used, seen)
				}
				r.wantCalls(1)
			})
		})
	}
}

// TestUseIsNotLostWithTheStore: the store cannot take the note of a use. The
// session was used all the same, and must not end as idle for that.
func TestUseIsNotLostWithTheStore(t *testing.T) {
	t.Run("one note", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.longTokens()
			secret, _ := r.login()
			time.Sleep(7*time.Hour + 59*time.Minute)
			r.store.failing(opReplace)
			r.fresh(secret)
			time.Sleep(time.Second)
			r.store.healthy()
			time.Sleep(5 * time.Minute)
			r.fresh(secret) // five minutes after its last use
		})
	})
	t.Run("long outage", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.longTokens()
			r.reconfigure(func(c *Config) { c.IdleTimeout = 10 * time.Minute })
			secret, _ := r.login()
			r.store.failing(opReplace)
			for range 30 * 60 {
				r.fresh(secret)
				time.Sleep(time.Second)
			}
		})
	})
}

// TestUseJustBeforeTheIdleEnd: the note of it is still on its way to the store
// when the next request comes.
func TestUseJustBeforeTheIdleEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.longTokens()
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

// TestFreshSinceTellsTheIdleEnd from this use on, not from the one noted before.
func TestFreshSinceTellsTheIdleEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.longTokens()
		secret, _ := r.login()
		time.Sleep(8*time.Hour + 30*time.Second)
		s, err := r.keeper.FreshSince(t.Context(), secret, time.Now().Add(-9*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if want := time.Now().Add(8 * time.Hour); !s.IdleEnd.Equal(want) {
			t.Errorf("at %v: idle end %v, want %v", time.Now(), s.IdleEnd, want)
		}
		synctest.Wait()
	})
}

// TestStoreMayDropOnlyWhatIsOver: the store's own expiry lies behind every end
// of a session.
func TestStoreMayDropOnlyWhatIsOver(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.longTokens()
		r.reconfigure(func(c *Config) { c.MaxLifetime = 12 * time.Hour })
		secret, _ := r.login()
		for range 11 {
			s := r.fresh(secret)
			synctest.Wait() // for the note of this use
			item, _ := r.store.item(r.id(secret))
			if !item.Expires.After(s.IdleEnd.Add(r.keeper.useInterval)) && !item.Expires.After(s.End) {
				t.Errorf("the store drops it at %v, it lives until %v", item.Expires, s.IdleEnd)
			}
			if item.Expires.After(s.End.Add(expirySlack)) {
				t.Errorf("the store keeps it until %v, it ends at %v", item.Expires, s.End)
			}
			time.Sleep(time.Hour)
		}
	})
}

// TestManyComeBackAtOnce: their uses are written by a few, and all of them.
func TestManyComeBackAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.longTokens()
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
			t.Errorf("%d goroutines wait for the store, want %d", n, useWriters)
		}
		r.store.healthy()
		time.Sleep(5 * useRetry)
		for _, secret := range secrets {
			if since := time.Since(r.stored(secret).lastUsed); since > maxUseInterval {
				t.Fatalf("the use of %v ago is not written", since)
			}
		}
	})
}

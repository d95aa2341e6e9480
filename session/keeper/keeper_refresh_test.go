package keeper

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestOneRefreshPerExpiry: however many requests arrive at the same time, and however
// many clients hang up, the authorization server gets one request per expiry. Every
// client that stays gets a usable token.
func TestOneRefreshPerExpiry(t *testing.T) {
	const callers, expiries = 200, 50
	for _, tt := range []struct {
		name      string
		cancelled float64 // the share of clients that hang up
	}{{"all stay", 0}, {"some hang up", 0.3}, {"all hang up", 1}} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.reconfigure(func(c *Config) { c.IdleTimeout = 24 * time.Hour })
				draw := rand.New(rand.NewPCG(1, 2))
				secret, f := r.login()
				var served atomic.Int64
				for n := range expiries {
					r.waitUntilExpired()
					var all sync.WaitGroup
					for range callers {
						ctx, cancel := t.Context(), context.CancelFunc(func() {})
						if draw.Float64() < tt.cancelled {
							// Before, during and after the refresh.
							ctx, cancel = context.WithTimeout(ctx, time.Duration(draw.Int64N(int64(400*time.Millisecond))))
						}
						all.Go(func() {
							defer cancel()
							s, err := r.keeper.Fresh(ctx, secret)
							switch {
							case err == nil:
								served.Add(1)
								r.wantUsable(s)
							case ctx.Err() == nil || !errors.Is(err, ctx.Err()):
								t.Errorf("Fresh: %v", err)
							}
						})
					}
					all.Wait()
					time.Sleep(time.Second) // the refresh goes on after the clients have hung up
					if calls := r.server.calls(); calls != n+1 {
						t.Fatalf("%d refresh requests after %d expiries, want one for each", calls, n+1)
					}
					r.wantStored(secret, f)
				}
				if tt.cancelled == 0 && served.Load() != callers*expiries {
					t.Errorf("served %d requests, want %d", served.Load(), callers*expiries)
				}
			})
		})
	}
}

// TestRequestsUnderLoadNeverWait: with steady traffic every token is refreshed before it
// expires, so no request waits.
func TestRequestsUnderLoadNeverWait(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.latency = 5 * time.Second
		secret, _ := r.login()
		start := time.Now()
		var all sync.WaitGroup
		for n := range 20 {
			draw := rand.New(rand.NewPCG(uint64(n), 7))
			all.Go(func() {
				for time.Since(start) < 2*time.Hour {
					time.Sleep(time.Duration(draw.Int64N(int64(20 * time.Second))))
					if wait := durationOf(func() { r.fresh(secret) }); wait != 0 {
						t.Errorf("a request waited %v, want 0", wait)
					}
				}
			})
		}
		all.Wait()
		// A token of 300 s is refreshed 210 to 255 s after its request was sent.
		if n := r.server.calls(); n < 7200/260 || n > 7200/210 {
			t.Errorf("%d refreshes in two hours, want %d to %d", n, 7200/260, 7200/210)
		}
	})
}

// TestRefreshTimesAreSpread: sessions that begin together do not refresh together.
func TestRefreshTimesAreSpread(t *testing.T) {
	now := time.Now()
	first, last := time.Hour, time.Duration(0)
	for range 1000 {
		token := newAccessToken(Tokens{Expires: now.Add(1000 * time.Second)}, true, now, time.Minute)
		after := token.refreshAt.Sub(now)
		first, last = min(first, after), max(last, after)
	}
	if first < 700*time.Second || first > 710*time.Second || last > 850*time.Second || last < 840*time.Second {
		t.Errorf("refreshes are due after %v to %v, want 700 to 850 s", first, last)
	}
}

// TestHangingServerDelaysNoRequestWithValidToken: a request with an expired token waits
// for RefreshTimeout and no longer.
func TestHangingServerDelaysNoRequestWithValidToken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.waitUntilDue()
		r.server.always(behaviour{before: time.Hour})
		for range 20 {
			if wait := durationOf(func() { r.fresh(secret) }); wait != 0 {
				t.Fatalf("a request with a usable token waited %v, want 0", wait)
			}
			time.Sleep(999 * time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond) // 10 s before its expiry the token is no longer used
		var waiting sync.WaitGroup
		for range 10 {
			waiting.Go(func() {
				if wait := durationOf(func() { r.wantUnavailable(secret) }); wait != r.config.RefreshTimeout {
					t.Errorf("a request with an expired token waited %v, want %v", wait, r.config.RefreshTimeout)
				}
			})
		}
		waiting.Wait()
		r.wantCalls(1)
	})
}

// TestRefreshTimeIsBounded: a server that never answers blocks one flight for a bounded
// time. Then the next flight can start.
func TestRefreshTimeIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.waitUntilExpired()
		r.server.always(behaviour{before: 24 * time.Hour})
		r.wantUnavailable(secret)
		time.Sleep(sendTimeout + 2*backoffMinTimedOut)
		r.server.normal()
		r.fresh(secret)
	})
}

func TestWaitingRequestGetsNewTokenAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		r.waitUntilExpired()
		if wait := durationOf(func() { r.fresh(secret) }); wait != r.server.latency {
			t.Errorf("waited %v, want %v", wait, r.server.latency)
		}
		r.wantStored(secret, f)
		r.wantCalls(1)
	})
}

// TestTokenIsUsableToTheMillisecond: an expired token is never served. A usable one is
// served even if no other can be obtained.
func TestTokenIsUsableToTheMillisecond(t *testing.T) {
	for _, tt := range []struct{ lifetime, skew time.Duration }{
		{time.Second, 50 * time.Millisecond},
		{20 * time.Second, time.Second},
		{200 * time.Second, 10 * time.Second},
		{time.Hour, 10 * time.Second},
	} {
		for _, untold := range []bool{false, true} {
			inBubble(t, func(t *testing.T, r *rig) {
				r.reconfigure(func(c *Config) { c.DefaultTokenLifetime = tt.lifetime })
				r.server.set(func() { r.server.lifetime, r.server.omitsExpiry = tt.lifetime, untold })
				r.server.always(behaviour{outcome: Unavailable})
				secret, _ := r.login()
				time.Sleep(tt.lifetime - tt.skew - time.Millisecond)
				r.fresh(secret)
				time.Sleep(time.Millisecond)
				r.wantUnavailable(secret)
				if s, err := r.keeper.Peek(t.Context(), secret); err != nil || s == nil {
					t.Errorf("Peek: %v", err)
				}
			})
		}
	}
}

// TestAbsurdExpiryDoesNotCauseRefreshes: an expiry from a wrong clock neither overflows
// nor makes every request refresh.
func TestAbsurdExpiryDoesNotCauseRefreshes(t *testing.T) {
	now := time.Now()
	for name, expires := range map[string]time.Time{
		"before it was issued": now.Add(-time.Hour),
		"as it was issued":     now,
		"in 1970":              time.Unix(0, 0),
		"omitted":              {},
	} {
		token := newAccessToken(Tokens{Expires: expires}, true, now, 5*time.Minute)
		if got := token.expires.Sub(now); got != 5*time.Minute {
			t.Errorf("%s: lifetime %v, want the default", name, got)
		}
	}
	for name, expires := range map[string]time.Time{
		"in a thousand years": now.AddDate(1000, 0, 0),
		"in the year 9999":    time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
		"after all time":      time.Unix(1<<60, 0),
	} {
		token := newAccessToken(Tokens{Expires: expires}, true, now, 5*time.Minute)
		if !token.usable(now.AddDate(10, 0, 0)) || token.due(now.AddDate(10, 0, 0)) || !token.refreshAt.Before(token.usableUntil) {
			t.Errorf("%s: usable until %v, refreshed at %v, want neither within ten years, and the refresh first", name, token.usableUntil, token.refreshAt)
		}
	}
}

// TestShortLifetimeCausesOneRefreshPerSecond: tokens that live for one second cause about
// one refresh a second, however many requests there are.
func TestShortLifetimeCausesOneRefreshPerSecond(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.set(func() { r.server.lifetime, r.server.latency = time.Second, 50*time.Millisecond })
		secret, _ := r.login()
		start := time.Now()
		for time.Since(start) < time.Minute {
			r.fresh(secret)
			time.Sleep(10 * time.Millisecond)
		}
		if n := r.server.calls(); n > 60*10/7+1 {
			t.Errorf("%d refreshes in a minute, want %d at most", n, 60*10/7+1)
		}
	})
}

// TestTokenThatExpiresBeforeItArrivesIsNotServed: the server takes longer to answer than
// its tokens live. No request gets such a token, and no request waits without end.
func TestTokenThatExpiresBeforeItArrivesIsNotServed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.set(func() { r.server.lifetime, r.server.latency = time.Second, 3*time.Second })
		secret, _ := r.login()
		r.waitUntilExpired()
		if wait := durationOf(func() { r.wantUnavailable(secret) }); wait > r.config.RefreshTimeout {
			t.Errorf("waited %v, want %v at most", wait, r.config.RefreshTimeout)
		}
		if n := r.server.calls(); n > 4 {
			t.Errorf("%d refreshes in 10 s, want 4 at most", n)
		}
	})
}

func TestIdleSessionIsNotRefreshed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		time.Sleep(7 * time.Hour)
		synctest.Wait()
		r.wantCalls(0)
		r.fresh(secret)
		r.wantCalls(1)
		r.wantStored(secret, f)
	})
}

// TestWaitingRequestsShareNoMemory: an unclear refusal arrives just before the token
// expires and is written just after. All waiting requests get the same result, and none
// may write to it, which the race detector checks.
func TestWaitingRequestsShareNoMemory(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.waitUntilDue() // the token is usable for 20 s more
		r.server.set(func() {
			r.server.behave = func(n int) (b behaviour) {
				b.outcome = Unclear
				if n == 1 {
					b.before = 19 * time.Second
				}
				return b
			}
		})
		r.store.faultOnce(opReplace, 2, storeFault{before: 2 * time.Second}) // the first write has the use
		r.fresh(secret)
		time.Sleep(20500 * time.Millisecond)
		var waiting sync.WaitGroup
		for range 8 {
			waiting.Go(func() {
				if err := r.wantError(secret); !errors.Is(err, ErrNoSession) {
					t.Errorf("Fresh: %v, want ErrNoSession", err)
				}
			})
		}
		waiting.Wait()
		r.wantCalls(2)
	})
}

// TestClockSetBackDoesNotDelayRefresh: a token that seems to be obtained in the future is
// refreshed on demand, not an hour later.
func TestClockSetBackDoesNotDelayRefresh(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		_, who, tokens := r.server.login()
		tokens.Obtained = time.Now().Add(time.Hour)
		tokens.Expires = tokens.Obtained.Add(r.server.lifetime)
		secret, first, err := r.keeper.Create(t.Context(), who, tokens)
		if err != nil {
			t.Fatal(err)
		}
		s, err := r.keeper.FreshOtherThan(t.Context(), secret, first.AccessToken)
		if err != nil || s.AccessToken == first.AccessToken {
			t.Errorf("FreshOtherThan: %v, %v, want another token", s, err)
		}
	})
}

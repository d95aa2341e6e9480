package keeper

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// attachUse calls AttachUse with a new Attachment, after Fresh as a handler does.
func (r *rig) attachUse(secret seal.Secret) (context.Context, *Attachment) {
	r.t.Helper()
	a := new(Attachment)
	return r.keeper.AttachUse(r.t.Context(), secret, r.fresh(secret), a), a
}

// wantIdleEndOf checks that a session ends when it was not used for idle, or up to 5 %
// after that.
func (r *rig) wantIdleEndOf(secret seal.Secret, lastUse time.Time, idle time.Duration) {
	r.t.Helper()
	time.Sleep(time.Until(lastUse.Add(idle - time.Millisecond)))
	if _, err := r.keeper.Peek(r.t.Context(), secret); err != nil {
		r.t.Errorf("got error %v %v after the end of the last request, want a session for %v", err, time.Since(lastUse), idle)
	}
	time.Sleep(time.Until(lastUse.Add(idle*21/20 + time.Millisecond)))
	if _, err := r.keeper.Peek(r.t.Context(), secret); !errors.Is(err, ErrNoSession) {
		r.t.Errorf("got error %v %v after the end of the last request, want ErrNoSession", err, time.Since(lastUse))
	}
}

// TestRequestInProgressIsUse: a request outlives the idle time-out, and the session lasts
// for the idle time-out after its end. A stream of the session lives as long.
func TestRequestInProgressIsUse(t *testing.T) {
	for _, idle := range []time.Duration{shortIdle, 8 * time.Hour} {
		// In shares of the idle time-out. An interval between uses is 0.05, or five minutes.
		for _, length := range []float64{0.01, 0.049, 0.09, 0.99, 1.06, 2.5} {
			for _, before := range []float64{0, 0.0499} { // since the last written use
				inBubble(t, func(t *testing.T, r *rig) {
					r.useLongTokens()
					k := r.reconfigure(func(c *Config) { c.IdleTimeout, c.MaxLifetime = idle, 1000*time.Hour })
					secret, _ := r.login()
					time.Sleep(time.Duration(before * float64(idle)))
					stream, streaming := attach(k, t.Context(), r.fresh(secret))
					defer streaming.Detach()
					request, attached := r.attachUse(secret)
					time.Sleep(time.Duration(length * float64(idle)))
					if request.Err() != nil || stream.Err() != nil {
						t.Fatalf("idle time-out %v, length %v: got causes %v and %v, want the request and the stream in progress", idle, length, context.Cause(request), context.Cause(stream))
					}
					attached.Detach()
					ended := time.Now()
					r.wantIdleEndOf(secret, ended, idle)
					if !errors.Is(context.Cause(stream), ErrNoSession) {
						t.Errorf("idle time-out %v, length %v: got a stream with cause %v after the idle end, want ErrNoSession", idle, length, context.Cause(stream))
					}
				})
			}
		}
	}
}

// TestRequestInProgressIsUseWhileTheStoreFails: the session does not become idle in this
// process, and a use is written when the store works again.
func TestRequestInProgressIsUseWhileTheStoreFails(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useShortIdle()
		secret, _ := r.login()
		request, attached := r.attachUse(secret)
		r.store.fail(opReplace)
		time.Sleep(3 * shortIdle)
		r.fresh(secret)
		time.Sleep(3 * shortIdle)
		r.store.clearFaults()
		attached.Detach()
		ended := time.Now()
		if request.Err() != context.Canceled || !errors.Is(context.Cause(request), context.Canceled) {
			t.Errorf("got cause %v, want the end by Detach alone", context.Cause(request))
		}
		time.Sleep(2 * useRetry)
		if since := ended.Sub(r.stored(secret).lastUsed); since > r.keeper.useInterval {
			t.Errorf("got a last use %v before the end of the request in the store, want %v at most", since, r.keeper.useInterval)
		}
		r.wantIdleEndOf(secret, ended, shortIdle)
	})
}

// TestRequestInProgressIsUseAtOtherInstances: their requests find the session, and their
// streams go on.
func TestRequestInProgressIsUseAtOtherInstances(t *testing.T) {
	for _, missesPushes := range []bool{false, true} {
		inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
			r.server.lifetime = time.Hour
			for i := range r.keepers {
				c := r.keepers[i].Config
				c.IdleTimeout = shortIdle
				r.keepers[i] = mustKeeper(c)
			}
			r.users[1].mu.Lock()
			r.users[1].missesPushes = missesPushes
			r.users[1].mu.Unlock()
			secret := r.loginAs(r.keepers[0], "alice", "1")
			stream, streaming := attach(r.keepers[1], t.Context(), r.freshAt(1, secret))
			defer streaming.Detach()
			attached := new(Attachment)
			request := r.keepers[0].AttachUse(t.Context(), secret, r.freshAt(0, secret), attached)
			time.Sleep(10 * shortIdle)
			if request.Err() != nil || stream.Err() != nil {
				t.Fatalf("got causes %v and %v, want the request and the stream in progress", context.Cause(request), context.Cause(stream))
			}
			attached.Detach()
			wantIdleEnd(t, stream, time.Now(), shortIdle, 0)
		})
	}
}

// TestRefreshDuringARequestDoesNotDelayItsUses: the refresh writes a use between two of the
// request, which is then not written.
func TestRefreshDuringARequestDoesNotDelayItsUses(t *testing.T) {
	for _, refresh := range []time.Duration{time.Minute, 3 * time.Minute, 299 * time.Second} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.useLongTokens()
			began := time.Now()
			secret, _ := r.login()
			_, attached := r.attachUse(secret)
			time.Sleep(refresh)
			if _, err := r.keeper.FreshSince(t.Context(), secret, time.Now()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Until(began.Add(2*maxUseInterval - time.Second)))
			attached.Detach()
			if unwritten := time.Since(r.stored(secret).lastUsed); unwritten > maxUseInterval {
				t.Errorf("refresh after %v: got a last use %v before the end of the request, want %v at most", refresh, unwritten, maxUseInterval)
			}
		})
	}
}

// TestUsesOfARequestInProgressAreWrittenOncePerInterval, however many requests there are.
func TestUsesOfARequestInProgressAreWrittenOncePerInterval(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useLongTokens()
		secret, _ := r.login()
		for range 20 {
			_, attached := r.attachUse(secret)
			defer attached.Detach()
			time.Sleep(7 * time.Second)
		}
		reads := r.store.completed(opView)
		for range 60 {
			time.Sleep(time.Minute)
			_, attached := r.attachUse(secret)
			attached.Detach()
		}
		if n := r.store.completed(opReplace); n < 11 || n > 13 {
			t.Errorf("got %d writes in an hour, want 11 to 13", n)
		}
		if n := r.store.completed(opView) - reads; n > 60+40 {
			t.Errorf("got %d reads for 60 requests, want few more", n)
		}
	})
}

// TestStuckRequestKeepsItsSessionUntilTheMaximumLifetime, and no longer.
func TestStuckRequestKeepsItsSessionUntilTheMaximumLifetime(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useLongTokens()
		r.reconfigure(func(c *Config) { c.IdleTimeout, c.MaxLifetime = shortIdle, 10*time.Minute })
		began := time.Now()
		secret, _ := r.login()
		request, attached := r.attachUse(secret)
		defer attached.Detach()
		<-request.Done()
		if lived := time.Since(began); lived != 10*time.Minute || !errors.Is(context.Cause(request), ErrNoSession) {
			t.Errorf("got an end after %v with cause %v, want it after 10m0s with ErrNoSession", lived, context.Cause(request))
		}
		// A handler that ignores its context must not keep the session either.
		time.Sleep(expirySlack / 2)
		writes := r.store.completed(opReplace)
		r.wantEnded(secret, EndLifetime)
		time.Sleep(time.Hour)
		if n := r.store.completed(opReplace) - writes; n != 0 {
			t.Errorf("got %d writes after the end, want none", n)
		}
	})
}

// TestLogoutEndsARequestInProgress although the request counts as use.
func TestLogoutEndsARequestInProgress(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useShortIdle()
		secret, _ := r.login()
		request, attached := r.attachUse(secret)
		defer attached.Detach()
		time.Sleep(3 * shortIdle)
		if _, err := r.keeper.End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(context.Cause(request), ErrNoSession) {
			t.Errorf("got cause %v, want ErrNoSession", context.Cause(request))
		}
		time.Sleep(2 * endRetention)
		r.wantGone(secret)
	})
}

// TestRequestIsUseUntilItBecomesAStream, and is idle after that.
func TestRequestIsUseUntilItBecomesAStream(t *testing.T) {
	for _, after := range []time.Duration{0, time.Second, time.Minute} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.useShortIdle()
			secret, _ := r.login()
			request, attached := r.attachUse(secret)
			defer attached.Detach()
			time.Sleep(after)
			attached.BecomeStream(time.Time{})
			wantIdleEnd(t, request, time.Now(), shortIdle, 0)
		})
	}
}

// TestStreamEndsWithItsToken if it is limited so. Others of the session go on.
func TestStreamEndsWithItsToken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		began := time.Now()
		secret, _ := r.login()
		s := r.fresh(secret)
		limited, attached := r.attachUse(secret)
		defer attached.Detach()
		kept, other := r.attachUse(secret)
		defer other.Detach()
		other.BecomeStream(time.Time{})
		time.Sleep(time.Second)
		attached.BecomeStream(s.TokenUsableUntil)
		<-limited.Done()
		skew := min(maxSkew, r.server.lifetime/skewFraction)
		if lived, want := time.Since(began), r.server.lifetime-skew; lived != want || !errors.Is(context.Cause(limited), ErrTokenExpired) {
			t.Errorf("got an end after %v with cause %v, want it after %v with ErrTokenExpired", lived, context.Cause(limited), want)
		}
		r.fresh(secret)
		late, third := r.attachUse(secret)
		defer third.Detach()
		third.BecomeStream(s.TokenUsableUntil)
		synctest.Wait()
		if kept.Err() != nil || !errors.Is(context.Cause(late), ErrTokenExpired) {
			t.Errorf("got causes %v and %v, want an open stream and one that ends at once", context.Cause(kept), context.Cause(late))
		}
	})
}

// TestReloadKeepsARequestInProgress: the request began under a configuration with another
// idle time-out. The session lasts for the new one after the end of the request.
func TestReloadKeepsARequestInProgress(t *testing.T) {
	for _, tt := range []struct{ old, next, length time.Duration }{
		{8 * time.Hour, shortIdle, time.Second},
		{8 * time.Hour, shortIdle, 10 * time.Minute},
		{shortIdle, 10 * time.Minute, time.Hour},
	} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.useLongTokens()
			r.reconfigure(func(c *Config) { c.IdleTimeout = tt.old })
			secret, _ := r.login()
			time.Sleep(tt.old / 21)
			request, attached := r.attachUse(secret)
			time.Sleep(time.Second)
			r.reconfigure(func(c *Config) { c.IdleTimeout = tt.next })
			time.Sleep(tt.length)
			if request.Err() != nil {
				t.Fatalf("from %v to %v: got cause %v, want the request in progress", tt.old, tt.next, context.Cause(request))
			}
			attached.Detach()
			ended := time.Now()
			r.wantIdleEndOf(secret, ended, tt.next)
		})
	}
}

// TestSessionInUseShowsItsWholeIdleTime to a page that counts down to the idle end.
func TestSessionInUseShowsItsWholeIdleTime(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useShortIdle()
		secret, _ := r.login()
		_, attached := r.attachUse(secret)
		for range 100 {
			time.Sleep(700 * time.Millisecond)
			s, err := r.keeper.Peek(t.Context(), secret)
			if err != nil || time.Until(s.IdleEnd) != shortIdle {
				t.Fatalf("got %+v and error %v, want an idle end in %v", s, err, shortIdle)
			}
		}
		attached.Detach()
		time.Sleep(time.Second)
		s, err := r.keeper.Peek(t.Context(), secret)
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(s.IdleEnd); left > shortIdle || left < shortIdle-3*time.Second {
			t.Errorf("got an idle end in %v, want it to approach", left)
		}
	})
}

// TestPassiveRequestDoesNotCountAsUse, whether it causes a refresh, joins one or needs none.
func TestPassiveRequestDoesNotCountAsUse(t *testing.T) {
	for name, get := range map[string]func(Passive, context.Context, seal.Secret) (*Session, error){
		"Fresh": Passive.Fresh,
		"FreshSince": func(p Passive, ctx context.Context, secret seal.Secret) (*Session, error) {
			return p.FreshSince(ctx, secret, time.Now())
		},
		"FreshOtherThan": func(p Passive, ctx context.Context, secret seal.Secret) (*Session, error) {
			return p.FreshOtherThan(ctx, secret, "refused")
		},
	} {
		for _, lifetime := range []time.Duration{time.Minute, 1000 * time.Hour} {
			t.Run(name+", tokens of "+lifetime.String(), func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					r.server.set(func() { r.server.lifetime = lifetime })
					r.reconfigure(func(c *Config) { c.IdleTimeout = time.Hour })
					secret, _ := r.login()
					login := time.Now()
					for time.Since(login) < time.Hour {
						s, err := get(r.keeper.Passive(), t.Context(), secret)
						if err != nil {
							t.Fatalf("after %v: %v", time.Since(login), err)
						}
						r.wantUsable(s)
						if end := login.Add(time.Hour); !s.IdleEnd.Equal(end) {
							t.Fatalf("after %v: got idle end %v, want %v", time.Since(login), s.IdleEnd, end)
						}
						time.Sleep(20 * time.Second)
					}
					if lifetime == time.Minute && r.server.calls() < 50 {
						t.Errorf("got %d refreshes, want the token refreshed as usual", r.server.calls())
					}
					time.Sleep(3*time.Minute + time.Millisecond)
					var ended *EndedError
					if _, err := get(r.keeper.Passive(), t.Context(), secret); !errors.As(err, &ended) || ended.Reason != EndIdle {
						t.Errorf("got error %v, want the idle end", err)
					}
				})
			})
		}
	}
}

// TestUseDuringARefreshOfAPassiveRequestIsWritten.
func TestUseDuringARefreshOfAPassiveRequestIsWritten(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.lifetime = time.Hour
		secret, _ := r.login()
		r.waitUntilExpired()
		r.server.always(behaviour{before: 5 * time.Second})
		go func() { _, _ = r.keeper.Passive().Fresh(context.Background(), secret) }()
		time.Sleep(time.Second)
		used := time.Now()
		r.fresh(secret)
		time.Sleep(time.Minute)
		if got := r.stored(secret).lastUsed; !got.Equal(used) {
			t.Errorf("got last use %v, want %v", got, used)
		}
		r.wantCalls(1)
	})
}

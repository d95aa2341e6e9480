package keeper

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestLogoutWins over a refresh, whatever point that has reached.
func TestLogoutWins(t *testing.T) {
	const (
		latency = time.Second // then the first commit
		judging = time.Second // then the second
		slow    = 400 * time.Millisecond
	)
	tests := []struct {
		name string
		at   time.Duration // after the refresh began
	}{
		{"before the redemption", latency / 2},
		{"during the first commit", latency + slow/2},
		{"after it landed, before it returns", latency + slow*3/2},
		{"between the commits", latency + 2*slow + judging/2},
		{"during the second commit", latency + 2*slow + judging + slow/2},
		{"after that landed, before it returns", latency + 2*slow + judging + slow*3/2},
		{"after", latency + judging + 5*slow},
	}
	stores := map[string]func(op storeOp) storeFault{
		"store well":         nil,
		"deletions fail":     func(op storeOp) (f storeFault) { return failIf(op == opDelete) },
		"replacements fail":  func(op storeOp) (f storeFault) { return failIf(op == opReplace) },
		"all writes fail":    func(op storeOp) (f storeFault) { return failIf(op.writes()) },
		"writes land denied": func(op storeOp) (f storeFault) { f = failIf(op.writes()); f.landed = true; return f },
	}
	for _, tt := range tests {
		for store, fault := range stores {
			t.Run(tt.name+", "+store, func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					r.server.set(func() { r.server.latency, r.server.identifyDelay, r.server.idTokens = latency, judging, true })
					secret, f := r.login()
					s := r.fresh(secret)
					live, attached := attach(r.keeper, t.Context(), s)
					defer attached.Detach()
					r.due()
					r.store.setFault(func(op storeOp) storeFault {
						got := storeFault{}
						if fault != nil {
							got = fault(op)
						}
						if op == opReplace {
							got.before, got.after = slow, slow
						}
						return got
					})
					r.fresh(secret)
					time.Sleep(tt.at)
					ended, err := r.keeper.End(t.Context(), secret, EndLogout)
					if err != nil {
						t.Fatalf("End: %v", err)
					}
					if ended.RefreshToken == "" || ended.Subject == "" || ended.SID == "" {
						t.Errorf("End tells %+v", ended)
					}
					if live.Err() == nil {
						t.Error("a request of the session lives on")
					}
					over := func() {
						t.Helper()
						if err := r.refuse(secret); !errors.Is(err, ErrNoSession) {
							t.Errorf("Fresh: %v", err)
						}
						if late, attached := attach(r.keeper, t.Context(), s); late.Err() == nil {
							t.Error("a late request of the session lives")
						} else {
							attached.Detach()
						}
					}
					over()
					// A commit under way may land; none begins any more.
					time.Sleep(3 * slow)
					writes := r.store.done(opReplace)
					for range 30 {
						time.Sleep(time.Second)
						over()
					}
					if n := r.store.done(opReplace); n != writes {
						t.Errorf("%d writes after the logout", n-writes)
					}
					r.store.healthy()
					time.Sleep(2 * writeRetryMax)
					r.gone(secret)
					if _, redeems := r.server.newestOf(f); redeems > 1 {
						t.Errorf("%d redemptions", redeems)
					}
					// It is forgotten in the end, and still does not come back.
					time.Sleep(2 * endRetention)
					if n := r.vault.overlay.count.Load(); n != 0 {
						t.Errorf("%d sessions still lie over the store", n)
					}
					r.gone(secret)
					if n := r.events.count(EventEnded); n != 1 {
						t.Errorf("%d ends were told, want 1", n)
					}
				})
			})
		}
	}
}

func failIf(fail bool) (f storeFault) {
	if fail {
		f.err = errStoreDown
	}
	return f
}

// TestLogoutReturnsTheNewestTokens, for revoking them, also when they are in
// memory only.
func TestLogoutReturnsTheNewestTokens(t *testing.T) {
	for _, unwritten := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.server.set(func() { r.server.idTokens = true })
			secret, f := r.login()
			r.expired()
			if unwritten {
				r.store.failing(opReplace)
			}
			access := r.fresh(secret).AccessToken
			ended, err := r.keeper.End(t.Context(), secret, EndLogout)
			if err != nil {
				t.Fatal(err)
			}
			if ended.AccessToken != access || ended.RefreshToken != f.current || ended.IDToken == "" {
				t.Errorf("End tells %+v", ended)
			}
			if _, err := r.keeper.End(t.Context(), secret, EndLogout); !errors.Is(err, ErrNoSession) {
				t.Errorf("second End: %v", err)
			}
			r.store.healthy()
			time.Sleep(writeRetryMax)
			r.gone(secret)
		})
	}
}

func TestLogoutOfNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		if _, err := r.keeper.End(t.Context(), seal.NewSecret(), EndLogout); !errors.Is(err, ErrNoSession) {
			t.Errorf("End: %v", err)
		}
		if n := r.vault.overlay.count.Load(); n != 0 {
			t.Errorf("it is remembered (%d)", n)
		}
	})
}

// TestLogoutWhileTheStoreIsDown holds in this process at once, and in the store
// when that is back.
func TestLogoutWhileTheStoreIsDown(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		s := r.fresh(secret)
		live, attached := attach(r.keeper, t.Context(), s)
		defer attached.Detach()
		r.store.failing()
		_, err := r.keeper.End(t.Context(), secret, EndLogout)
		if !errors.As(err, new(*UnavailableError)) {
			t.Errorf("End: %v", err)
		}
		if live.Err() == nil {
			t.Error("a request of the session lives on")
		}
		time.Sleep(10 * time.Minute)
		if err := r.refuse(secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("Fresh: %v", err)
		}
		r.store.healthy()
		time.Sleep(writeRetryMax)
		r.gone(secret)
	})
}

// TestLogoutsOfNobodyAreBounded: while the store is down, nobody can tell a
// session from a cookie somebody made up. Made-up cookies must not fill memory.
func TestLogoutsOfNobodyAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const made = 5_000
		r.store.failing()
		for range made {
			_, _ = r.keeper.End(t.Context(), seal.NewSecret(), EndLogout)
		}
		if n := r.vault.overlay.count.Load(); n >= made {
			t.Errorf("%d made-up sessions are remembered", n)
		}
	})
}

// TestLogoutElsewhere: another instance deletes the record while this one
// refreshes.
func TestLogoutElsewhere(t *testing.T) {
	for _, idTokens := range []bool{false, true} {
		inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
			r.server.set(func() {
				r.server.latency, r.server.identifyDelay, r.server.idTokens = time.Second, time.Second, idTokens
			})
			elsewhere := r.keepers[1]
			secret, _ := r.login()
			r.due()
			r.fresh(secret)
			time.Sleep(1500 * time.Millisecond)
			if !idTokens {
				r.expired() // the refresh above is over; start another
				go func() { _, _ = r.keeper.Fresh(t.Context(), secret) }()
				time.Sleep(time.Second / 2)
			}
			if _, err := elsewhere.End(t.Context(), secret, EndLogout); err != nil {
				t.Fatal(err)
			}
			r.gone(secret)
			time.Sleep(time.Minute)
			r.gone(secret)
			if n := r.events.count(EventDiscarded); n != 1 {
				t.Errorf("%d discarded refreshes were told, want 1", n)
			}
		})
	}
}

// TestAttach: a request of a session ends with it.
func TestAttach(t *testing.T) {
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
			t.Error("the request's own context is lost")
		}
		detachB.Detach()
		if b.Err() == nil {
			t.Error("a detached request holds its context")
		}
		if a.Err() != nil {
			t.Fatal("one request ended another")
		}
		// A refused refresh ends it too.
		r.server.set(func() { f.dead = true })
		r.expired()
		r.ended(secret, EndRejected)
		if !errors.Is(context.Cause(a), ErrNoSession) {
			t.Errorf("a request of an ended session: %v", context.Cause(a))
		}
		if c.Err() != nil {
			t.Error("the end of a session ends requests of another")
		}
		detachA.Detach()
		detachA.Detach() // as a deferred call may
		time.Sleep(24 * time.Hour)
		if !errors.Is(context.Cause(c), ErrNoSession) {
			t.Errorf("a request at the absolute limit: %v", context.Cause(c))
		}
		detachC.Detach()
		for i := range r.vault.live.shards {
			if n := len(r.vault.live.shards[i].requests); n != 0 {
				t.Errorf("%d sessions are kept after their last request", n)
			}
		}
	})
}

// TestAttachRacesLogout: whichever is first, the request ends.
func TestAttachRacesLogout(t *testing.T) {
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

// synctestDone waits for ctx, and not until its deadline.
func synctestDone(t *testing.T, ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Hour):
		t.Error("a request outlives the logout")
	}
}

// TestAttachedWhileIdle: a stream is no use of its session and ends with its
// idle time, unless something else uses the session meanwhile.
func TestAttachedWhileIdle(t *testing.T) {
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
			t.Fatalf("ended %v after the last use", time.Since(used))
		}
		time.Sleep(2*time.Minute + r.keeper.useInterval)
		if !errors.Is(context.Cause(stream), ErrNoSession) {
			t.Errorf("%v after the last use it goes on", time.Since(used))
		}
		r.gone(secret)
	})
}

// TestAttachedWhileNobodyKnows: while the store does not say whether a session
// was used elsewhere, its streams go on.
func TestAttachedWhileNobodyKnows(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		stream, attached := attach(r.keeper, t.Context(), r.fresh(secret))
		defer attached.Detach()
		r.store.failing()
		time.Sleep(r.keeper.IdleTimeout + time.Hour)
		if stream.Err() != nil {
			t.Fatal("an outage of the store ends streams")
		}
		r.store.healthy()
		time.Sleep(2 * checkRetry)
		if stream.Err() == nil {
			t.Error("the stream goes on")
		}
	})
}

// TestLogoutOutlastsASlowRefresh: the server answers a refresh long after the
// logout, and the store takes no writes at that moment. The session stays ended, and
// its new tokens are revoked.
func TestLogoutOutlastsASlowRefresh(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    behaviour
		wait time.Duration // until the answer to the last request
		lost int           // requests without an answer before that
	}{
		{"answer after 62 s", behaviour{before: 62 * time.Second}, 62 * time.Second, 0},
		{"second answer after a broken connection", behaviour{before: 59 * time.Second}, 2 * 59 * time.Second, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secret, f := r.login()
				r.expired()
				r.server.set(func() {
					r.server.behave = func(n int) behaviour {
						b := tt.b
						if n <= tt.lost {
							b.outcome = Unanswered
						}
						return b
					}
				})
				go func() { _, _ = r.keeper.Fresh(t.Context(), secret) }()
				time.Sleep(100 * time.Millisecond)
				if _, err := r.keeper.End(t.Context(), secret, EndLogout); err != nil {
					t.Fatal(err)
				}
				time.Sleep(tt.wait - time.Second)
				r.gone(secret)
				r.store.failing(opReplace)
				time.Sleep(5 * time.Second)
				r.gone(secret)
				var newest string
				r.server.set(func() { newest = f.current })
				r.server.wantDiscarded(t, newest)
				time.Sleep(3 * endRetention)
				if n := r.vault.overlay.count.Load(); n != 0 {
					t.Errorf("%d sessions still lie over the store", n)
				}
				r.gone(secret)
			})
		})
	}
}

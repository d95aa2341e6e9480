package keeper

import (
	"errors"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestLogoutPrevailsOverARefresh at every step of the refresh, with every failure of the
// store.
func TestLogoutPrevailsOverARefresh(t *testing.T) {
	const (
		latency   = time.Second            // of the server; then the first commit
		verifying = time.Second            // the ID token; then the second commit
		slow      = 400 * time.Millisecond // each way of a write
	)
	tests := []struct {
		name string
		at   time.Duration // after the refresh began
	}{
		{"before the redemption", latency / 2},
		{"during the first commit", latency + slow/2},
		{"after the first write, before its answer", latency + slow*3/2},
		{"between the commits", latency + 2*slow + verifying/2},
		{"during the second commit", latency + 2*slow + verifying + slow/2},
		{"after the second write, before its answer", latency + 2*slow + verifying + slow*3/2},
		{"after the refresh", latency + verifying + 5*slow},
	}
	stores := map[string]func(op storeOp) storeFault{
		"store works":              nil,
		"deletions fail":           func(op storeOp) (f storeFault) { return failIf(op == opDelete) },
		"replacements fail":        func(op storeOp) (f storeFault) { return failIf(op == opReplace) },
		"all writes fail":          func(op storeOp) (f storeFault) { return failIf(op.writes()) },
		"writes are done but fail": func(op storeOp) (f storeFault) { f = failIf(op.writes()); f.done = true; return f },
	}
	for _, tt := range tests {
		for store, fault := range stores {
			t.Run(tt.name+", "+store, func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					r.server.set(func() { r.server.latency, r.server.identifyDelay, r.server.idTokens = latency, verifying, true })
					secret, f := r.login()
					s := r.fresh(secret)
					live, attached := attach(r.keeper, t.Context(), s)
					defer attached.Detach()
					r.waitUntilDue()
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
						t.Fatalf("End: got error %v", err)
					}
					if ended.RefreshToken == "" || ended.Subject == "" || ended.SID == "" {
						t.Errorf("End: got %+v, want refresh token, subject and sid", ended)
					}
					if live.Err() == nil {
						t.Error("a request goes on after the logout")
					}
					wantEnd := func() {
						t.Helper()
						if err := r.wantError(secret); !errors.Is(err, ErrNoSession) {
							t.Errorf("Fresh: got error %v, want ErrNoSession", err)
						}
						if late, attached := attach(r.keeper, t.Context(), s); late.Err() == nil {
							t.Error("a request that begins after the logout goes on")
						} else {
							attached.Detach()
						}
					}
					wantEnd()
					// A commit in progress may be done, but none may begin.
					time.Sleep(3 * slow)
					writes := r.store.completed(opReplace)
					for range 30 {
						time.Sleep(time.Second)
						wantEnd()
					}
					if n := r.store.completed(opReplace); n != writes {
						t.Errorf("got %d writes after the logout, want none", n-writes)
					}
					r.store.clearFaults()
					time.Sleep(2 * writeRetryMax)
					r.wantGone(secret)
					if _, redeems := r.server.newestOf(f); redeems > 1 {
						t.Errorf("got %d redemptions, want 1 at most", redeems)
					}
					// The process forgets the end, and the session does not return.
					time.Sleep(2 * endRetention)
					if n := r.vault.overlay.count.Load(); n != 0 {
						t.Errorf("got %d entries in the overlay, want none", n)
					}
					r.wantGone(secret)
					if n := r.events.count(EventEnded); n != 1 {
						t.Errorf("got %d events of an end, want 1", n)
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

// TestLogoutReturnsTheNewestTokens for their revocation, also if they are only in memory.
func TestLogoutReturnsTheNewestTokens(t *testing.T) {
	for _, unwritten := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.server.set(func() { r.server.idTokens = true })
			secret, f := r.login()
			r.waitUntilExpired()
			if unwritten {
				r.store.fail(opReplace)
			}
			access := r.fresh(secret).AccessToken
			ended, err := r.keeper.End(t.Context(), secret, EndLogout)
			if err != nil {
				t.Fatal(err)
			}
			if ended.AccessToken != access || ended.RefreshToken != f.current || ended.IDToken == "" {
				t.Errorf("End: got %+v, want access token %q and refresh token %q", ended, access, f.current)
			}
			if _, err := r.keeper.End(t.Context(), secret, EndLogout); !errors.Is(err, ErrNoSession) {
				t.Errorf("second End: got error %v, want ErrNoSession", err)
			}
			r.store.clearFaults()
			time.Sleep(writeRetryMax)
			r.wantGone(secret)
		})
	}
}

func TestLogoutOfAnUnknownCookieLeavesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		if _, err := r.keeper.End(t.Context(), seal.NewSecret(), EndLogout); !errors.Is(err, ErrNoSession) {
			t.Errorf("End: got error %v, want ErrNoSession", err)
		}
		if n := r.vault.overlay.count.Load(); n != 0 {
			t.Errorf("got %d entries in the overlay, want none", n)
		}
	})
}

// TestLogoutWhileTheStoreIsDown ends the session in this process at once, and in the store
// when it works again.
func TestLogoutWhileTheStoreIsDown(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		s := r.fresh(secret)
		live, attached := attach(r.keeper, t.Context(), s)
		defer attached.Detach()
		r.store.fail()
		_, err := r.keeper.End(t.Context(), secret, EndLogout)
		if !errors.As(err, new(*UnavailableError)) {
			t.Errorf("End: got error %v, want an *UnavailableError", err)
		}
		if live.Err() == nil {
			t.Error("a request goes on after the logout")
		}
		time.Sleep(10 * time.Minute)
		if err := r.wantError(secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("Fresh: got error %v, want ErrNoSession", err)
		}
		r.store.clearFaults()
		time.Sleep(writeRetryMax)
		r.wantGone(secret)
	})
}

// TestLogoutsOfMadeUpCookiesDoNotFillTheMemory while the store is down, when the keeper
// cannot distinguish them from cookies of sessions.
func TestLogoutsOfMadeUpCookiesDoNotFillTheMemory(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const made = 5_000
		r.store.fail()
		for range made {
			_, _ = r.keeper.End(t.Context(), seal.NewSecret(), EndLogout)
		}
		if n := r.vault.overlay.count.Load(); n >= made {
			t.Errorf("got %d entries in the overlay, want fewer than %d", n, made)
		}
	})
}

// TestLogoutAtAnotherInstanceDiscardsTheRefresh: another instance deletes the record while
// this one refreshes.
func TestLogoutAtAnotherInstanceDiscardsTheRefresh(t *testing.T) {
	for _, idTokens := range []bool{false, true} {
		inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
			r.server.set(func() {
				r.server.latency, r.server.identifyDelay, r.server.idTokens = time.Second, time.Second, idTokens
			})
			elsewhere := r.keepers[1]
			secret, _ := r.login()
			r.waitUntilDue()
			r.fresh(secret)
			time.Sleep(1500 * time.Millisecond)
			if !idTokens {
				r.waitUntilExpired() // the refresh above has ended; start another
				go func() { _, _ = r.keeper.Fresh(t.Context(), secret) }()
				time.Sleep(time.Second / 2)
			}
			if _, err := elsewhere.End(t.Context(), secret, EndLogout); err != nil {
				t.Fatal(err)
			}
			r.wantGone(secret)
			time.Sleep(time.Minute)
			r.wantGone(secret)
			if n := r.events.count(EventDiscarded); n != 1 {
				t.Errorf("got %d events of discarded tokens, want 1", n)
			}
		})
	}
}

// TestSlowRefreshDoesNotUndoALogout: the server answers a refresh long after the logout, when
// the store takes no writes. The session stays ended, and its new tokens are revoked.
func TestSlowRefreshDoesNotUndoALogout(t *testing.T) {
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
				r.waitUntilExpired()
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
				r.wantGone(secret)
				r.store.fail(opReplace)
				time.Sleep(5 * time.Second)
				r.wantGone(secret)
				var newest string
				r.server.set(func() { newest = f.current })
				r.server.wantDiscarded(t, newest)
				time.Sleep(3 * endRetention)
				if n := r.vault.overlay.count.Load(); n != 0 {
					t.Errorf("got %d entries in the overlay, want none", n)
				}
				r.wantGone(secret)
			})
		})
	}
}

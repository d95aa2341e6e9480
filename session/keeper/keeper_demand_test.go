package keeper

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestFreshSinceRefreshesAnOlderToken even if it has not expired, once for all waiting
// requests.
func TestFreshSinceRefreshesAnOlderToken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		first := r.fresh(secret).AccessToken
		time.Sleep(time.Minute)
		s, err := r.keeper.FreshSince(t.Context(), secret, time.Now().Add(-2*time.Minute))
		if err != nil || s.AccessToken != first {
			t.Fatalf("with a token obtained later: got %v, %v, want the same token", s, err)
		}
		r.wantCalls(0)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				began := time.Now()
				s, err := r.keeper.FreshSince(t.Context(), secret, began)
				if err != nil || s.AccessToken == first || s.TokenObtained.Before(began.Add(-time.Second)) {
					t.Errorf("got %v, %v, want a token obtained now", s, err)
				}
			})
		}
		wg.Wait()
		r.wantCalls(1)
	})
}

// TestFreshSinceFailsWithTheServer, while Fresh serves the current token.
func TestFreshSinceFailsWithTheServer(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		time.Sleep(time.Minute)
		r.server.always(behaviour{outcome: Unavailable})
		var u *UnavailableError
		if _, err := r.keeper.FreshSince(t.Context(), secret, time.Now()); !errors.As(err, &u) {
			t.Errorf("FreshSince: got error %v, want an *UnavailableError", err)
		}
		r.fresh(secret)
	})
}

// TestFreshOtherThanRefreshesARefusedTokenOnce, however many requests report it.
func TestFreshOtherThanRefreshesARefusedTokenOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		refused := r.fresh(secret).AccessToken
		time.Sleep(time.Minute)
		for range 3 {
			s, err := r.keeper.FreshOtherThan(t.Context(), secret, refused)
			if err != nil || s.AccessToken == refused {
				t.Fatalf("got %v, %v, want another token", s, err)
			}
			r.wantUsable(s)
		}
		r.wantCalls(1)
	})
}

// TestSessionWithoutRefreshTokenLastsAsLongAsItsAccessToken: FreshSince returns
// ErrNotRefreshable, and the session goes on.
func TestSessionWithoutRefreshTokenLastsAsLongAsItsAccessToken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		_, user, tokens := r.server.login()
		tokens.RefreshToken = ""
		secret, _, err := r.keeper.Create(t.Context(), user, tokens)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := r.keeper.FreshSince(t.Context(), secret, time.Now()); !errors.Is(err, ErrNotRefreshable) {
			t.Errorf("FreshSince: got error %v, want ErrNotRefreshable", err)
		}
		r.fresh(secret)
		r.wantCalls(0)
		time.Sleep(r.server.lifetime)
		r.wantEnded(secret, EndNoRefreshToken)
	})
}

// TestFreshDoesNotWaitForFreshSince: two requests with different demands share a refresh,
// and only the one that needs it waits.
func TestFreshDoesNotWaitForFreshSince(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		time.Sleep(time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := r.keeper.FreshSince(t.Context(), secret, time.Now()); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if wait := durationOf(func() { r.fresh(secret) }); wait != 0 {
				t.Errorf("Fresh with a usable token took %v, want no wait", wait)
			}
		})
		wg.Wait()
		r.wantCalls(1)
	})
}

// TestTokensOfEndedSessionsAreRevoked, and no others.
func TestTokensOfEndedSessionsAreRevoked(t *testing.T) {
	t.Run("logout during the refresh", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			secret, f := r.login()
			r.waitUntilDue()
			r.fresh(secret)
			time.Sleep(r.server.latency / 2)
			if _, err := r.keeper.End(t.Context(), secret, EndLogout); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			var newest string
			r.server.set(func() { newest = f.current })
			r.server.wantDiscarded(t, newest)
		})
	})
	t.Run("ID token of another login", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.server.set(func() {
				r.server.idTokens = true
				r.server.identify = func(Identity, Tokens) (Identity, error) { return Identity{}, ErrIdentityChanged }
			})
			secret, f := r.login()
			r.waitUntilExpired()
			r.wantEnded(secret, EndIdentityChanged)
			time.Sleep(time.Minute)
			var newest string
			r.server.set(func() { newest = f.current })
			r.server.wantDiscarded(t, newest)
		})
	})
	t.Run("refresh of a live session", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			secret, _ := r.login()
			r.waitUntilExpired()
			r.fresh(secret)
			r.server.wantDiscarded(t)
		})
	})
}

// TestReuseIsSuspectedOnlyOfUnsentOneTimeTokens: if the server refuses a rotated refresh
// token that was not sent before, another party has used it, or the server has revoked it.
func TestReuseIsSuspectedOnlyOfUnsentOneTimeTokens(t *testing.T) {
	suspected := func(r *rig) bool {
		r.events.mu.Lock()
		defer r.events.mu.Unlock()
		for _, e := range r.events.all {
			if e.ReuseSuspected {
				return true
			}
		}
		return false
	}
	kill := func(r *rig, f *family) { r.server.set(func() { f.dead = true }) }
	t.Run("first use of a rotated token", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			secret, f := r.login()
			r.waitUntilExpired()
			r.fresh(secret)
			kill(r, f)
			r.waitUntilExpired()
			r.wantEnded(secret, EndRejected)
			if !suspected(r) {
				t.Error("got no ReuseSuspected, want one")
			}
		})
	})
	t.Run("a server that does not rotate", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.server.set(func() { r.server.doesNotRotate = true })
			secret, f := r.login()
			r.waitUntilExpired()
			r.fresh(secret)
			kill(r, f)
			r.waitUntilExpired()
			r.wantEnded(secret, EndRejected)
			if suspected(r) {
				t.Error("got ReuseSuspected, want none")
			}
		})
	})
	t.Run("sent before without an answer", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			secret, _ := r.login()
			r.waitUntilExpired()
			r.fresh(secret)
			r.waitUntilExpired()
			r.server.always(behaviour{outcome: Unanswered, processed: true})
			r.wantEnded(secret, EndRejected) // by the second try
			if suspected(r) {
				t.Error("got ReuseSuspected, want none")
			}
		})
	})
}

// TestSessionRefreshesOncePerSecondAtMost, whatever its requests demand and however short
// its tokens live.
func TestSessionRefreshesOncePerSecondAtMost(t *testing.T) {
	for name, ask := range map[string]func(r *rig, secret seal.Secret) (*Session, error){
		"asked for a new token": func(r *rig, secret seal.Secret) (*Session, error) {
			return r.keeper.FreshSince(r.t.Context(), secret, time.Now())
		},
		"tokens of half a second": func(r *rig, secret seal.Secret) (*Session, error) {
			r.server.set(func() { r.server.lifetime = time.Second / 2 })
			return r.keeper.Fresh(r.t.Context(), secret)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secret, _ := r.login()
				begun := time.Now()
				for time.Since(begun) < 20*time.Second {
					if _, err := ask(r, secret); err != nil {
						t.Fatal(err)
					}
					time.Sleep(10 * time.Millisecond)
				}
				took := time.Since(begun)
				if n := r.server.calls(); n > int(took/minRefreshInterval)+1 || name == "asked for a new token" && n < 15 {
					t.Errorf("got %d refreshes within %v, want about one per %v", n, took, minRefreshInterval)
				}
			})
		})
	}
}

package keeper

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestFreshSince: a token that is good but older than wanted is refreshed
// first, once for all who wait.
func TestFreshSince(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		first := r.fresh(secret).AccessToken
		time.Sleep(time.Minute)
		// Young enough: no request.
		s, err := r.keeper.FreshSince(t.Context(), secret, time.Now().Add(-2*time.Minute))
		if err != nil || s.AccessToken != first {
			t.Fatalf("a token that is young enough: %v, %v", s, err)
		}
		r.wantCalls(0)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				began := time.Now()
				s, err := r.keeper.FreshSince(t.Context(), secret, began)
				if err != nil || s.AccessToken == first || s.TokenObtained.Before(began.Add(-time.Second)) {
					t.Errorf("a token obtained now was wanted: %v, %v", s, err)
				}
			})
		}
		wg.Wait()
		r.wantCalls(1)
	})
}

// TestFreshSinceServerDown: the token at hand is good, but not good enough.
func TestFreshSinceServerDown(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		time.Sleep(time.Minute)
		r.server.always(behaviour{outcome: Unavailable})
		var u *UnavailableError
		if _, err := r.keeper.FreshSince(t.Context(), secret, time.Now()); !errors.As(err, &u) {
			t.Errorf("with the server down: %v", err)
		}
		r.fresh(secret) // who wants less gets the token at hand
	})
}

// TestFreshOtherThan: a token that an app refuses is replaced once, whoever
// comes with it.
func TestFreshOtherThan(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		refused := r.fresh(secret).AccessToken
		time.Sleep(time.Minute)
		for range 3 {
			s, err := r.keeper.FreshOtherThan(t.Context(), secret, refused)
			if err != nil || s.AccessToken == refused {
				t.Fatalf("got %v, %v", s, err)
			}
			r.usable(s)
		}
		r.wantCalls(1)
	})
}

// TestNotRefreshable: without a refresh token more cannot be had than there is,
// and asking for it ends nothing.
func TestNotRefreshable(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		_, who, tokens := r.server.login()
		tokens.RefreshToken = ""
		secret, _, err := r.keeper.Create(t.Context(), who, tokens)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := r.keeper.FreshSince(t.Context(), secret, time.Now()); !errors.Is(err, ErrNotRefreshable) {
			t.Errorf("FreshSince: %v", err)
		}
		r.fresh(secret)
		r.wantCalls(0)
		time.Sleep(r.server.lifetime)
		r.ended(secret, EndNoRefreshToken)
	})
}

// TestDemandsMeet: somebody content with the token at hand is not held up by
// somebody who is not, and neither disturbs the other.
func TestDemandsMeet(t *testing.T) {
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
			began := time.Now()
			r.fresh(secret)
			if time.Since(began) != 0 {
				t.Error("a request whose token is good waited")
			}
		})
		wg.Wait()
		r.wantCalls(1)
	})
}

// TestTokensGivenBack: what comes for a session that is over is revoked, and
// only that.
func TestTokensGivenBack(t *testing.T) {
	t.Run("logout during the refresh", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			secret, f := r.login()
			r.due()
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
	t.Run("somebody else's ID token", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.server.set(func() {
				r.server.idTokens = true
				r.server.identify = func(Identity, Tokens) (Identity, error) { return Identity{}, ErrIdentityChanged }
			})
			secret, f := r.login()
			r.expired()
			r.ended(secret, EndIdentityChanged)
			time.Sleep(time.Minute)
			var newest string
			r.server.set(func() { newest = f.current })
			r.server.wantDiscarded(t, newest)
		})
	})
	t.Run("a refresh like any other", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			secret, _ := r.login()
			r.expired()
			r.fresh(secret)
			r.server.wantDiscarded(t)
		})
	})
}

// TestReuseSuspected: a rotating refresh token that is refused on its first use
// was used by somebody else, or revoked. One that may have been used by us was
// not.
func TestReuseSuspected(t *testing.T) {
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
			r.expired()
			r.fresh(secret)
			kill(r, f)
			r.expired()
			r.ended(secret, EndRejected)
			if !suspected(r) {
				t.Error("not suspected")
			}
		})
	})
	t.Run("a server that does not rotate", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.server.set(func() { r.server.doesNotRotate = true })
			secret, f := r.login()
			r.expired()
			r.fresh(secret)
			kill(r, f)
			r.expired()
			r.ended(secret, EndRejected)
			if suspected(r) {
				t.Error("suspected")
			}
		})
	})
	t.Run("sent before without an answer", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			secret, _ := r.login()
			r.expired()
			r.fresh(secret)
			r.expired()
			r.server.always(behaviour{outcome: Unanswered, processed: true})
			r.ended(secret, EndRejected) // by the second try
			if suspected(r) {
				t.Error("suspected")
			}
		})
	})
}

// TestRefreshesAreSpaced: neither pages that ask for a new token all the time nor
// tokens that expire at once make a session refresh more than once a second.
func TestRefreshesAreSpaced(t *testing.T) {
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
					t.Errorf("%d refreshes within %v", n, took)
				}
			})
		})
	}
}

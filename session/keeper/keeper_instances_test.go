package keeper

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestReloadSharesFlights: an old and a new keeper on one vault send one request.
func TestReloadSharesFlights(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		before := r.keeper
		after := r.reconfigure(func(c *Config) { c.IdleTimeout = time.Hour })
		for n := range 5 {
			r.waitUntilExpired()
			var all sync.WaitGroup
			for i := range 100 {
				k := before
				if i%2 == 0 {
					k = after
				}
				all.Go(func() {
					s, err := k.Fresh(t.Context(), secret)
					if err != nil {
						t.Errorf("Fresh: %v", err)
						return
					}
					r.wantUsable(s)
				})
			}
			all.Wait()
			r.wantCalls(n + 1)
			r.wantStored(secret, f)
		}
		if _, err := before.End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		r.wantGone(secret)
	})
}

// TestReloadSharesBackoffsAndUnwrittenTokens: a new keeper does not refresh earlier than
// the old one, and serves its unwritten tokens.
func TestReloadSharesBackoffsAndUnwrittenTokens(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		r.waitUntilExpired()
		r.store.fail(opReplace)
		newest := r.fresh(secret).AccessToken
		r.reconfigure(func(*Config) {})
		if got := r.fresh(secret).AccessToken; got != newest {
			t.Errorf("token %q, want %q", got, newest)
		}
		r.waitUntilExpired()
		r.server.always(behaviour{outcome: Unavailable})
		r.wantUnavailable(secret)
		r.reconfigure(func(*Config) {})
		r.wantUnavailable(secret)
		r.wantCalls(2)
		r.store.clearFaults()
		r.server.normal()
		time.Sleep(time.Minute)
		r.fresh(secret)
		r.wantStored(secret, f)
	})
}

// TestReloadWithNewKeyKeepsTokens: during a refresh of the old keeper, the new keeper
// writes a use, sealed with the new first key. The old keeper cannot read that record,
// and must not lose its new tokens.
func TestReloadWithNewKeyKeepsTokens(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		before := r.keeper
		r.waitUntilDue()
		r.server.set(func() { r.server.latency = 5 * time.Second })
		// The old keeper fails to write this use.
		r.store.faultOnce(opReplace, 1, storeFault{err: errStoreDown})
		if _, err := before.Fresh(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		ring, err := seal.NewKeyRing(testKey(2), testKey(1))
		if err != nil {
			t.Fatal(err)
		}
		r.reconfigure(func(c *Config) { c.Site = seal.NewSite(ring, "https://as.example.com", "client", "cookie") })
		r.fresh(secret)
		time.Sleep(10 * time.Second)
		r.fresh(secret)
		r.wantCalls(1)
		r.waitUntilExpired()
		r.fresh(secret)
		r.wantCalls(2)
		r.wantStored(secret, f)
	})
}

// TestUnknownFieldsSurviveRefresh: this release refreshes a record of a later one.
func TestUnknownFieldsSurviveRefresh(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.set(func() { r.server.idTokens = true })
		secret, f := r.login()
		id, rec := r.id(secret), r.stored(secret)
		var field fieldWriter
		field.string(200, "of a later release")
		rec.hot.unknownFields, rec.token.unknownFields, rec.cold.unknownFields = field, field, field
		value, err := sealRecord(r.config.Site, seal.Ref{ID: id, Secret: secret}, rec, rec.version+1)
		if err != nil {
			t.Fatal(err)
		}
		item, _ := r.store.item(id)
		r.store.put(id, session.Item{Version: rec.version + 1, Expires: item.Expires, Value: value})
		r.waitUntilExpired()
		r.fresh(secret)
		r.wantStored(secret, f)
		rec = r.stored(secret)
		for where, rest := range map[string][]byte{"hot": rec.hot.unknownFields, "token": rec.token.unknownFields, "cold": rec.cold.unknownFields} {
			if !bytes.Equal(rest, field) {
				t.Errorf("%s: unknown fields %q, want %q", where, rest, field)
			}
		}
	})
}

// TestKeyRotationLosesNoSession: the keys are [A], then [B, A], then [B].
func TestKeyRotationLosesNoSession(t *testing.T) {
	a, b := testKey(1), testKey(2)
	inBubble(t, func(t *testing.T, r *rig) {
		r.useLongTokens()
		used, _ := r.login()
		unused, _ := r.login()
		time.Sleep(time.Hour)
		ringOf := func(keys ...seal.Key) {
			r.reconfigure(func(c *Config) { c.Site = testSite(t, keys...) })
		}
		ringOf(b, a)
		r.fresh(used) // writes a use, and so seals the record with the new key
		synctest.Wait()
		ringOf(b)
		r.fresh(used)
		if err := r.wantError(unused); !errors.Is(err, ErrNoSession) {
			t.Errorf("Fresh: %v, want ErrNoSession", err)
		}
		ringOf(b, a)
		r.fresh(unused) // it was kept in the store
	})
}

// TestTokensOfOtherInstanceAreUsed: an instance that finds newer tokens in the store
// sends no request.
func TestTokensOfOtherInstanceAreUsed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		elsewhere := r.secondInstance()
		secret, f := r.login()
		for n := range 5 {
			r.waitUntilExpired()
			r.fresh(secret)
			s, err := elsewhere.Fresh(t.Context(), secret)
			if err != nil {
				t.Fatal(err)
			}
			if newest, _ := r.server.newestOf(f); s.AccessToken != newest {
				t.Errorf("token %q, want %q", s.AccessToken, newest)
			}
			r.wantCalls(n + 1)
		}
	})
}

// TestRefusedInstanceUsesTokensOfTheOther: two instances without leases redeem the same
// token. The slower one is refused, and reads the tokens of the faster one from the
// store.
func TestRefusedInstanceUsesTokensOfTheOther(t *testing.T) {
	for _, refusal := range []Outcome{Rejected, Unclear} {
		t.Run(refusal.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.server.errorf = func(string, ...any) {} // without leases the token is redeemed twice
				elsewhere := r.secondInstance()
				secret, f := r.login()
				r.waitUntilExpired()
				r.server.set(func() {
					r.server.behave = func(n int) behaviour {
						if n == 2 {
							return behaviour{outcome: refusal, before: time.Second}
						}
						return behaviour{}
					}
				})
				var all sync.WaitGroup
				all.Go(func() { r.fresh(secret) })
				time.Sleep(time.Millisecond)
				all.Go(func() {
					s, err := elsewhere.Fresh(t.Context(), secret)
					if err != nil {
						t.Errorf("Fresh at the slower instance: %v", err)
						return
					}
					r.wantUsable(s)
				})
				all.Wait()
				r.wantCalls(2)
				r.fresh(secret)
				r.wantStored(secret, f)
			})
		})
	}
}

// TestLateCommitKeepsNewerTokens: another instance refreshes the session before this one
// gets its answer.
func TestLateCommitKeepsNewerTokens(t *testing.T) {
	for _, writable := range []bool{true, false} {
		inBubble(t, func(t *testing.T, r *rig) {
			secret, _ := r.login()
			r.waitUntilExpired()
			id, start := r.id(secret), time.Now()
			go func() {
				s, err := r.keeper.Fresh(t.Context(), secret)
				if err != nil || (writable && s.AccessToken != "access-token-theirs") {
					t.Errorf("Fresh: %+v, %v", s, err)
				}
			}()
			time.Sleep(100 * time.Millisecond) // the request has been sent
			rec := r.stored(secret)
			rec.rotation += 2
			rec.refreshToken = "refresh-token-theirs"
			rec.token = newAccessToken(Tokens{AccessToken: "access-token-theirs", Expires: start.Add(time.Hour)}, true, start, time.Minute)
			value, err := sealRecord(r.config.Site, seal.Ref{ID: id, Secret: secret}, rec, rec.version+1)
			if err != nil {
				t.Fatal(err)
			}
			r.store.put(id, session.Item{Version: rec.version + 1, Expires: start.Add(time.Hour), Value: value})
			if !writable {
				r.store.fail(opReplace)
			}
			time.Sleep(time.Second)
			r.store.clearFaults()
			time.Sleep(writeRetryMax)
			if got := r.stored(secret); got.refreshToken != "refresh-token-theirs" || got.rotation != rec.rotation {
				t.Errorf("stored rotation %d, refresh token %q, want %d, %q", got.rotation, got.refreshToken, rec.rotation, rec.refreshToken)
			}
			if s, err := r.keeper.Fresh(t.Context(), secret); err != nil || s.AccessToken != "access-token-theirs" {
				t.Errorf("Fresh: %v", err)
			}
			r.wantCalls(1)
		})
	}
}

// TestRestartKeepsSessions: a new process uses the same store and key.
func TestRestartKeepsSessions(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secrets := map[seal.Secret]*family{}
		for range 50 {
			secret, f := r.login()
			secrets[secret] = f
		}
		r.waitUntilExpired()
		for secret := range secrets {
			r.fresh(secret)
		}
		r.process.dead.Store(true) // killed, not closed
		next := r.secondInstance()
		r.waitUntilExpired()
		for secret, f := range secrets {
			s, err := next.Fresh(context.Background(), secret)
			if err != nil {
				t.Fatalf("Fresh: %v", err)
			}
			r.wantUsable(s)
			r.wantStored(secret, f)
		}
		r.wantCalls(100)
	})
}

// TestCrashBeforeCommitEndsSessionAfterOneRequest: the rotated token was lost with the
// process. The next request of the session finds that out.
func TestCrashBeforeCommitEndsSessionAfterOneRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.waitUntilExpired()
		r.store.fail(opReplace)
		r.fresh(secret)
		// The record that only this process had is lost.
		r.process.dead.Store(true)
		next := r.secondInstance()
		r.store.clearFaults()
		r.vault.overlay.remove(r.id(secret), r.vault.overlay.get(r.id(secret)))
		_, err := next.Fresh(t.Context(), secret)
		var ended *EndedError
		if !errors.As(err, &ended) || ended.Reason != EndRejected {
			t.Errorf("Fresh: %v, want the reason %s", err, EndRejected)
		}
		for range 10 {
			if _, err := next.Fresh(t.Context(), secret); !errors.Is(err, ErrNoSession) {
				t.Errorf("Fresh: %v, want ErrNoSession", err)
			}
		}
		r.wantCalls(2)
	})
}

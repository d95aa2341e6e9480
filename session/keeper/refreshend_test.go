package keeper

import (
	"errors"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// loginFor creates a session whose refresh token expires after the given time.
func (r *rig) loginFor(refresh time.Duration) seal.Secret {
	r.t.Helper()
	_, user, tokens := r.server.login()
	tokens.RefreshExpires = time.Now().Add(refresh)
	secret, _, err := r.keeper.Create(r.t.Context(), user, tokens)
	if err != nil {
		r.t.Fatalf("creating session: %v", err)
	}
	return secret
}

// TestRefreshComesBeforeTheRefreshTokenExpires: the refresh token may expire before the
// access token. A session in use is then refreshed in time, again and again.
func TestRefreshComesBeforeTheRefreshTokenExpires(t *testing.T) {
	for name, refresh := range map[string]time.Duration{
		"before the access token is due": 2 * time.Minute, "after it is due": 280 * time.Second, "very short": 20 * time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secret := r.loginFor(refresh)
				r.server.set(func() { r.server.refreshLifetime = refresh })
				for begun := time.Now(); time.Since(begun) < 20*time.Minute; time.Sleep(time.Second) {
					r.fresh(secret)
				}
				if least := int(20 * time.Minute / refresh); r.server.calls() < least || r.server.calls() > 2*least {
					t.Errorf("got %d refreshes, want %d to %d", r.server.calls(), least, 2*least)
				}
			})
		})
	}
}

// TestRefreshDoesNotRepeatTowardsAFixedEnd: where a refresh does not move the end of the
// refresh token, moving the refresh forward is of no use.
func TestRefreshDoesNotRepeatTowardsAFixedEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useLongTokens()
		begun := time.Now()
		secret := r.loginFor(30 * time.Minute)
		for time.Since(begun) < 30*time.Minute {
			r.server.set(func() {
				// The rest of the authorization, in whole seconds.
				r.server.refreshLifetime = (30*time.Minute - time.Since(begun)).Round(time.Second)
			})
			r.fresh(secret)
			time.Sleep(time.Second)
		}
		r.wantCalls(1)
	})
}

// TestExpiredRefreshTokenIsNotSentWhileTheAccessTokenIsValid: its refusal would end the
// session before the time that was promised.
func TestExpiredRefreshTokenIsNotSentWhileTheAccessTokenIsValid(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret := r.loginFor(time.Minute)
		time.Sleep(2 * time.Minute)
		r.server.always(behaviour{outcome: Rejected})
		if _, err := r.keeper.FreshSince(t.Context(), secret, time.Now()); !errors.Is(err, ErrNotRefreshable) {
			t.Errorf("FreshSince: got error %v, want ErrNotRefreshable", err)
		}
		for promised := r.fresh(secret).LastsUntil; time.Now().Before(promised.Add(-time.Second)); time.Sleep(time.Second) {
			r.fresh(secret)
		}
		r.wantCalls(0)
		time.Sleep(2 * time.Second)
		r.wantEnded(secret, EndRefreshExpired)
	})
}

// storedByEarlierRelease replaces the stored record as an instance of an earlier release
// does with a refresh: it carries the fields that it does not know along, the copy of the
// expiry among them.
func (r *rig) storedByEarlierRelease(secret seal.Secret, t Tokens) {
	r.t.Helper()
	rec := r.stored(secret)
	rec.rotation++
	rec.token = newAccessToken(t, true, time.Now(), DefaultTokenLifetime)
	rec.refreshToken, rec.refreshExpires = t.RefreshToken, t.RefreshExpires
	value, err := sealRecord(r.config.Site, r.config.Site.Ref(secret), rec, rec.version+1)
	if err != nil {
		r.t.Fatal(err)
	}
	item, _ := r.store.item(r.id(secret))
	r.store.put(r.id(secret), session.Item{Version: rec.version + 1, Expires: item.Expires, Value: value, Tags: item.Tags})
}

// TestRefreshByAnEarlierReleaseKeepsTheSession: instances of two releases share a store
// during an upgrade. What the earlier one does not maintain ends nothing.
func TestRefreshByAnEarlierReleaseKeepsTheSession(t *testing.T) {
	for name, says := range map[string]time.Duration{"a lifetime": time.Hour, "no lifetime": 0} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.server.set(func() { r.server.latency = 0 })
				secret := r.loginFor(6 * time.Minute)
				time.Sleep(4 * time.Minute)
				r.server.mu.Lock()
				tokens := r.server.issue(r.server.families[0], time.Now())
				r.server.mu.Unlock()
				if says > 0 {
					tokens.RefreshExpires = time.Now().Add(says)
				}
				r.storedByEarlierRelease(secret, tokens)
				other := r.secondInstance()
				time.Sleep(5*time.Minute + time.Second) // both expired, as far as the copy says
				s, err := other.Peek(t.Context(), secret)
				if err != nil {
					t.Fatalf("Peek: got error %v, want the session", err)
				}
				if !s.LastsUntil.Equal(s.End) {
					t.Errorf("got a session that lasts until %v, want until its end %v: the expiry is not known", s.LastsUntil, s.End)
				}
				if _, err := other.Fresh(t.Context(), secret); err != nil {
					t.Errorf("Fresh: got error %v, want fresh tokens", err)
				}
			})
		})
	}
}

// TestRecordOfAnEarlierReleaseIsNotEndedByItsExpiry: an earlier release kept the expiry of
// the former refresh token with a new one that came in an unusable answer.
func TestRecordOfAnEarlierReleaseIsNotEndedByItsExpiry(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		rec := r.stored(secret)
		rec.refreshExpires = time.Now().Add(time.Minute)
		value, err := sealRecord(r.config.Site, r.config.Site.Ref(secret), rec, rec.version+1)
		if err != nil {
			t.Fatal(err)
		}
		item, _ := r.store.item(r.id(secret))
		r.store.put(r.id(secret), session.Item{Version: rec.version + 1, Expires: item.Expires, Value: value, Tags: item.Tags})
		r.waitUntilExpired()
		if _, err := r.secondInstance().Fresh(t.Context(), secret); err != nil {
			t.Errorf("got error %v, want fresh tokens: the server has refused nothing", err)
		}
		r.wantCalls(1)
	})
}

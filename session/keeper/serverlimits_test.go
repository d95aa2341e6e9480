package keeper

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// limited creates a session whose ID token limits it.
func (r *rig) limited(expiry time.Time) seal.Secret {
	r.t.Helper()
	_, user, tokens := r.server.login()
	user.SessionExpiry = expiry
	secret, _, err := r.keeper.Create(r.t.Context(), user, tokens)
	if err != nil {
		r.t.Fatalf("creating session: %v", err)
	}
	return secret
}

// moveExpiry makes each refresh return an ID token with this session_expiry.
func (r *rig) moveExpiry(expiry func(before time.Time) time.Time) {
	r.server.set(func() {
		r.server.idTokens = true
		r.server.identify = func(current Identity, _ Tokens) (Identity, error) {
			current.SessionExpiry = expiry(current.SessionExpiry)
			return current, nil
		}
	})
}

// TestSessionEndsAtSessionExpiry: the limit of the server ends the session and its
// streams, also during use. A later limit than max_lifetime changes nothing.
func TestSessionEndsAtSessionExpiry(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useLongTokens()
		r.reconfigure(func(c *Config) { c.IdleTimeout = 1000 * time.Hour })
		now := time.Now()
		secret := r.limited(now.Add(time.Hour))
		late := r.limited(now.Add(1000 * time.Hour))
		s := r.fresh(secret)
		if want := now.Add(time.Hour); !s.End.Equal(want) || !s.LastsUntil.Equal(want) || !s.IdleEnd.Equal(want) {
			t.Errorf("got end %v, lasts until %v, idle end %v; want %v for all", s.End, s.LastsUntil, s.IdleEnd, want)
		}
		if s := r.fresh(late); !s.End.Equal(now.Add(24 * time.Hour)) {
			t.Errorf("got end %v with a later limit, want that of max_lifetime", s.End)
		}
		stream, attached := attach(r.keeper, t.Context(), s)
		defer attached.Detach()
		time.Sleep(time.Hour - time.Millisecond)
		r.fresh(secret)
		if stream.Err() != nil {
			t.Error("the stream has ended early")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if stream.Err() == nil {
			t.Error("the stream goes on after the end of the session")
		}
		r.wantEnded(secret, EndSessionExpiry)
		time.Sleep(23 * time.Hour)
		r.wantEnded(late, EndLifetime)
	})
}

// TestRefreshMovesSessionExpiry: the newest verified ID token counts, and nothing moves
// the end past max_lifetime.
func TestRefreshMovesSessionExpiry(t *testing.T) {
	const minute, hour = time.Minute, time.Hour
	for name, tt := range map[string]struct {
		moved  time.Duration // after the login
		end    time.Duration
		reason EndReason
	}{
		"later":             {2 * hour, 2 * hour, EndSessionExpiry},
		"earlier":           {20 * minute, 20 * minute, EndSessionExpiry},
		"past max_lifetime": {1000 * hour, 24 * hour, EndLifetime},
		"same":              {hour, hour, EndSessionExpiry},
		"in the past":       {-hour, 0, EndSessionExpiry},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				begun := time.Now()
				secret := r.limited(begun.Add(hour))
				f := r.server.families[0]
				stream, attached := attach(r.keeper, t.Context(), r.fresh(secret))
				defer attached.Detach()
				r.moveExpiry(func(time.Time) time.Time { return begun.Add(tt.moved) })
				r.waitUntilExpired() // after five minutes
				if tt.moved < 0 {
					r.wantEnded(secret, tt.reason)
					synctest.Wait()
					r.server.wantDiscarded(t, f.current)
					return
				}
				for s := r.fresh(secret); ; s = r.fresh(secret) {
					if !s.End.Equal(begun.Add(tt.end)) {
						t.Fatalf("got end %v after the login, want %v", s.End.Sub(begun), tt.end)
					}
					if stream.Err() != nil {
						t.Fatalf("the stream ended %v after the login, want %v", time.Since(begun), tt.end)
					}
					if time.Until(s.End) <= 10*minute {
						break
					}
					time.Sleep(10 * minute)
				}
				time.Sleep(time.Until(begun.Add(tt.end)))
				synctest.Wait()
				if stream.Err() == nil {
					t.Error("the stream goes on after the end of the session")
				}
				r.wantEnded(secret, tt.reason)
			})
		})
	}
}

// TestUnverifiedIDTokenDoesNotMoveSessionExpiry, and neither does an answer without one.
func TestUnverifiedIDTokenDoesNotMoveSessionExpiry(t *testing.T) {
	for name, idTokens := range map[string]bool{"not verified": true, "no ID token": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				end := time.Now().Add(time.Hour)
				secret := r.limited(end)
				r.server.set(func() {
					r.server.idTokens = idTokens
					r.server.identify = func(Identity, Tokens) (Identity, error) {
						return Identity{SessionExpiry: end.Add(time.Hour)}, errors.New("no key")
					}
				})
				r.waitUntilExpired()
				if s := r.fresh(secret); !s.End.Equal(end) {
					t.Errorf("got end %v, want %v", s.End, end)
				}
			})
		})
	}
}

// TestRefreshComesBeforeSessionExpiry: an access token that outlives the session is
// refreshed earlier, because the new ID token may move the end. If it does not, the
// session is not refreshed again and again.
func TestRefreshComesBeforeSessionExpiry(t *testing.T) {
	for name, moves := range map[string]bool{"moved": true, "not moved": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.useLongTokens()
				begun := time.Now()
				secret := r.limited(begun.Add(time.Hour))
				r.moveExpiry(func(before time.Time) time.Time {
					if moves {
						return time.Now().Add(time.Hour)
					}
					return before
				})
				for time.Since(begun) < 59*time.Minute {
					r.fresh(secret)
					time.Sleep(time.Minute)
				}
				r.wantCalls(1)
				time.Sleep(2 * time.Minute)
				if moves {
					r.fresh(secret)
				} else {
					r.wantEnded(secret, EndSessionExpiry)
				}
			})
		})
	}
}

// TestOtherInstanceKeepsSessionExpiry: the limit is part of the record.
func TestOtherInstanceKeepsSessionExpiry(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		end := time.Now().Add(time.Hour)
		secret := r.limited(end)
		s, err := r.secondInstance().Peek(t.Context(), secret)
		if err != nil || !s.End.Equal(end) {
			t.Errorf("got session %+v, error %v; want end %v", s, err, end)
		}
	})
}

// TestLastsUntilIsWhenTheTokensRunOut: nobody is promised more than the server has said.
func TestLastsUntilIsWhenTheTokensRunOut(t *testing.T) {
	const minute = time.Minute
	for name, tt := range map[string]struct {
		refreshToken bool
		refresh      time.Duration // lifetime of the refresh token; 0: unknown
		want         time.Duration
	}{
		"unknown":                 {true, 0, 24 * time.Hour},
		"shorter than session":    {true, 30 * minute, 30 * minute},
		"longer than session":     {true, 48 * time.Hour, 24 * time.Hour},
		"shorter than the access": {true, minute, 5*minute - 10*time.Second},
		"no refresh token":        {false, 0, 5*minute - 10*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				_, user, tokens := r.server.login()
				if tt.refresh > 0 {
					tokens.RefreshExpires = time.Now().Add(tt.refresh)
				}
				if !tt.refreshToken {
					tokens.RefreshToken = ""
				}
				_, s, err := r.keeper.Create(t.Context(), user, tokens)
				if err != nil {
					t.Fatal(err)
				}
				if got := s.LastsUntil.Sub(s.Created); got != tt.want || s.End.Sub(s.Created) != 24*time.Hour {
					t.Errorf("lasts %v with end after %v, want %v and 24h", got, s.End.Sub(s.Created), tt.want)
				}
			})
		})
	}
}

// TestSessionEndsWhenItsTokensHaveExpired: the expired refresh token is not sent. Until
// the access token expires, the session goes on.
func TestSessionEndsWhenItsTokensHaveExpired(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		_, user, tokens := r.server.login()
		tokens.RefreshExpires = time.Now().Add(2 * time.Minute)
		secret, _, err := r.keeper.Create(t.Context(), user, tokens)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Minute)
		if s := r.fresh(secret); s.LastsUntil.Sub(s.Created) != 5*time.Minute-10*time.Second {
			t.Errorf("lasts %v, want as long as the access token", s.LastsUntil.Sub(s.Created))
		}
		time.Sleep(2 * time.Minute)
		if _, err := r.keeper.Peek(t.Context(), secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("Peek: got error %v, want ErrNoSession", err)
		}
		r.wantEnded(secret, EndRefreshExpired)
		r.wantCalls(0)
	})
}

// TestRefreshRenewsTheExpiryOfTheRefreshToken: each answer says it anew. An answer
// without a refresh token may do so for the present one.
func TestRefreshRenewsTheExpiryOfTheRefreshToken(t *testing.T) {
	const hour = time.Hour
	for name, tt := range map[string]struct {
		rotates bool
		says    time.Duration // in the answer; 0: nothing
		want    time.Duration // after the refresh; 0: unknown
	}{
		"new token":                   {true, 2 * hour, 2 * hour},
		"new token, nothing said":     {true, 0, 0},
		"present token":               {false, 2 * hour, 2 * hour},
		"present token, nothing said": {false, 0, 55 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.server.set(func() { r.server.latency = 0 })
				_, user, tokens := r.server.login()
				tokens.RefreshExpires = time.Now().Add(hour)
				secret, _, err := r.keeper.Create(t.Context(), user, tokens)
				if err != nil {
					t.Fatal(err)
				}
				r.server.set(func() { r.server.doesNotRotate, r.server.refreshLifetime = !tt.rotates, tt.says })
				r.waitUntilExpired()
				s := r.fresh(secret)
				want := s.End
				if tt.want > 0 {
					want = time.Now().Add(tt.want)
				}
				if !s.LastsUntil.Equal(want) {
					t.Errorf("lasts %v after the refresh, want %v", time.Until(s.LastsUntil), time.Until(want))
				}
				if rec := r.stored(secret); !rec.refreshEnd.Equal(rec.refreshExpires) {
					t.Errorf("got stored ends %v and %v of the refresh token, want the same", rec.refreshEnd, rec.refreshExpires)
				}
			})
		})
	}
}

// TestUnusableAnswerRenewsTheExpiryOfTheRefreshToken that it brings.
func TestUnusableAnswerRenewsTheExpiryOfTheRefreshToken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		_, user, tokens := r.server.login()
		tokens.RefreshExpires = time.Now().Add(6 * time.Minute)
		secret, _, err := r.keeper.Create(t.Context(), user, tokens)
		if err != nil {
			t.Fatal(err)
		}
		r.server.set(func() { r.server.refreshLifetime = time.Hour })
		r.server.always(behaviour{outcome: Malformed, processed: true, withRefreshToken: true})
		r.waitUntilExpired()
		r.wantUnavailable(secret)
		r.server.normal()
		time.Sleep(10 * time.Minute)
		r.fresh(secret)
	})
}

// TestRefreshThatBeganInTimeIsAwaited: the refresh token expires while another instance
// refreshes. The session goes on with the tokens of that refresh.
func TestRefreshThatBeganInTimeIsAwaited(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		_, user, tokens := r.server.login()
		tokens.RefreshExpires = time.Now().Add(r.server.lifetime + 5*time.Second)
		secret, _, err := r.keepers[0].Create(t.Context(), user, tokens)
		if err != nil {
			t.Fatal(err)
		}
		r.server.set(func() { r.server.latency = 8 * time.Second })
		r.waitUntilExpired()
		go func() { _, _ = r.keepers[0].Fresh(context.Background(), secret) }()
		time.Sleep(6 * time.Second)
		r.freshAt(1, secret)
		r.wantCalls(1)
	})
}

// TestInstancesAgreeThatTheTokensHaveExpired: one of them ends the session.
func TestInstancesAgreeThatTheTokensHaveExpired(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		_, user, tokens := r.server.login()
		tokens.RefreshExpires = time.Now().Add(time.Minute)
		secret, _, err := r.keepers[0].Create(t.Context(), user, tokens)
		if err != nil {
			t.Fatal(err)
		}
		r.waitUntilExpired()
		_, err = r.keepers[1].Fresh(t.Context(), secret)
		if ended, ok := errors.AsType[*EndedError](err); !ok || ended.Reason != EndRefreshExpired {
			t.Errorf("got error %v, want an end with reason %s", err, EndRefreshExpired)
		}
		if _, err := r.keepers[0].Fresh(t.Context(), secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("the other instance: got error %v, want ErrNoSession", err)
		}
		r.wantCalls(0)
		r.wantNoLease(secret)
	})
}

// TestStreamElsewhereEndsAtAnEarlierSessionExpiry that another instance has learned.
func TestStreamElsewhereEndsAtAnEarlierSessionExpiry(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		begun := time.Now()
		_, user, tokens := r.server.login()
		user.SessionExpiry = begun.Add(5 * time.Hour)
		secret, _, err := r.keepers[0].Create(t.Context(), user, tokens)
		if err != nil {
			t.Fatal(err)
		}
		stream, attached := attach(r.keepers[1], t.Context(), r.freshAt(1, secret))
		defer attached.Detach()
		r.moveExpiry(func(time.Time) time.Time { return begun.Add(time.Hour) })
		r.waitUntilExpired()
		r.freshAt(0, secret)
		time.Sleep(time.Until(begun.Add(time.Hour)) - time.Second)
		if stream.Err() != nil {
			t.Error("the stream has ended early")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if stream.Err() == nil {
			t.Error("the stream goes on after the end of the session")
		}
	})
}

// TestExpiryThatMovedElsewhereReachesRequestsInProgress: a request that began as use of its
// session can read the record. It learns the moved end without another request here, also
// if it has become a stream since, and also while an upload keeps the session from idling.
func TestExpiryThatMovedElsewhereReachesRequestsInProgress(t *testing.T) {
	const hour = time.Hour
	for name, tt := range map[string]struct {
		moved, end time.Duration
		upload     bool
	}{
		"earlier, beside an upload": {hour, hour, true},
		"earlier":                   {hour, hour, false},
		"later, beside an upload":   {7 * hour, 7 * hour, true},
		"later":                     {7 * hour, 7 * hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
				begun := time.Now()
				_, user, tokens := r.server.login()
				user.SessionExpiry = begun.Add(5 * hour)
				secret, _, err := r.keepers[0].Create(t.Context(), user, tokens)
				if err != nil {
					t.Fatal(err)
				}
				stream, upload := new(Attachment), new(Attachment)
				open := r.keepers[1].AttachUse(t.Context(), secret, r.freshAt(1, secret), stream)
				defer stream.Detach()
				stream.BecomeStream(time.Time{})
				if tt.upload {
					r.keepers[1].AttachUse(t.Context(), secret, r.freshAt(1, secret), upload)
					defer upload.Detach()
				}
				r.moveExpiry(func(time.Time) time.Time { return begun.Add(tt.moved) })
				r.waitUntilExpired()
				r.freshAt(0, secret)
				time.Sleep(time.Until(begun.Add(tt.end)) - time.Second)
				if open.Err() != nil {
					t.Error("the stream has ended early")
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if open.Err() == nil {
					t.Error("the stream goes on after the end of the session")
				}
			})
		})
	}
}

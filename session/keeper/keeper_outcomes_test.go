package keeper

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestOutcomes: each outcome is tested twice: while the access token is usable, and after
// it has expired.
func TestOutcomes(t *testing.T) {
	tests := []struct {
		name       string
		b          behaviour
		calls      int       // requests of one refresh
		callsToEnd int       // requests of a refresh that ends the session; 0: as calls
		ends       EndReason // of a session with an expired token; empty: it is kept
		endsNow    bool      // a session with a usable token ends too
		operator   bool      // Misconfigured
	}{
		{name: "rejected", b: behaviour{outcome: Rejected}, calls: 1, ends: EndRejected, endsNow: true},
		{name: "unclear", b: behaviour{outcome: Unclear}, calls: 1, callsToEnd: 2, ends: EndRefusedUnclear},
		{name: "misconfigured", b: behaviour{outcome: Misconfigured}, calls: 1, operator: true},
		{name: "unavailable", b: behaviour{outcome: Unavailable}, calls: 1},
		{name: "unavailable for long", b: behaviour{outcome: Unavailable, retryAfter: 45 * time.Second}, calls: 1},
		{name: "unavailable for very long", b: behaviour{outcome: Unavailable, retryAfter: time.Hour}, calls: 1},
		{name: "unanswered", b: behaviour{outcome: Unanswered}, calls: 2},
		{name: "timed out", b: behaviour{outcome: TimedOut}, calls: 1},
		{name: "malformed", b: behaviour{outcome: Malformed}, calls: 1},
		{name: "malformed with refresh token", b: behaviour{outcome: Malformed, processed: true, withRefreshToken: true}, calls: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name+", token usable", func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secret, _ := r.login()
				first := r.fresh(secret).AccessToken
				r.waitUntilDue()
				r.server.always(tt.b)
				if wait := durationOf(func() { r.fresh(secret) }); wait != 0 {
					t.Errorf("a request with a usable token waited %v, want 0", wait)
				}
				time.Sleep(900 * time.Millisecond) // less than the shortest back-off
				r.wantCalls(tt.calls)
				if tt.endsNow {
					r.wantGone(secret)
					return
				}
				if got := r.fresh(secret).AccessToken; got != first {
					t.Errorf("token %q, want %q", got, first)
				}
				r.wantCalls(tt.calls)
			})
		})
		t.Run(tt.name+", token expired", func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secret, f := r.login()
				r.waitUntilExpired()
				r.server.always(tt.b)
				if tt.ends != "" {
					r.wantEnded(secret, tt.ends)
					r.wantCalls(max(tt.calls, tt.callsToEnd))
					return
				}
				err := r.wantUnavailable(secret)
				if err.Misconfigured != tt.operator {
					t.Errorf("Misconfigured is %v, want %v", err.Misconfigured, tt.operator)
				}
				if err.RetryAfter < max(time.Second, min(tt.b.retryAfter, time.Minute)) || err.RetryAfter > time.Minute {
					t.Errorf("RetryAfter is %v, want %v to %v", err.RetryAfter, max(time.Second, min(tt.b.retryAfter, time.Minute)), time.Minute)
				}
				r.server.normal()
				// During the back-off no request waits, and none is sent.
				time.Sleep(err.RetryAfter - time.Millisecond)
				wait := durationOf(func() {
					if again := r.wantUnavailable(secret); again.Misconfigured != tt.operator || again.RetryAfter != time.Millisecond {
						t.Errorf("during the back-off: %+v, want RetryAfter %v, Misconfigured %v", again, time.Millisecond, tt.operator)
					}
				})
				if wait != 0 {
					t.Errorf("a request during the back-off waited %v, want 0", wait)
				}
				r.wantCalls(tt.calls)
				time.Sleep(time.Millisecond)
				r.fresh(secret)
				r.wantCalls(tt.calls + 1)
				r.wantStored(secret, f)
			})
		})
	}
}

// TestUnclearRefusalIsRepeatedOnceNearTheEnd: the session lasts as long as its access
// token, and the server is asked once more before the token expires.
func TestUnclearRefusalIsRepeatedOnceNearTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.waitUntilDue() // the token is usable for 20 s more
		r.server.always(behaviour{outcome: Unclear})
		r.fresh(secret)
		for range 15 {
			time.Sleep(time.Second)
			r.fresh(secret)
		}
		r.wantCalls(1)
		time.Sleep(time.Second) // a quarter of the 20 s is left
		r.fresh(secret)
		time.Sleep(time.Second)
		r.wantCalls(2)
		r.wantGone(secret)
	})
}

// TestShortGatewayFaultEndsNoSession: for two seconds a gateway answers with an error
// that some servers return for an invalid token. Then the server answers again.
func TestShortGatewayFaultEndsNoSession(t *testing.T) {
	for _, lifetime := range []time.Duration{20 * time.Second, time.Minute, time.Hour} {
		for _, left := range []time.Duration{2500 * time.Millisecond, time.Second, 100 * time.Millisecond, 0, -time.Hour} {
			t.Run(fmt.Sprintf("%v, %v left", lifetime, left), func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					r.server.set(func() { r.server.lifetime = lifetime })
					secret, f := r.login()
					usableUntil := r.stored(secret).token.usableUntil
					time.Sleep(time.Until(usableUntil.Add(-left)))
					until := time.Now().Add(2 * time.Second)
					r.server.set(func() {
						r.server.behave = func(int) behaviour {
							if time.Now().Before(until) {
								return behaviour{outcome: Unclear}
							}
							return behaviour{}
						}
					})
					for range 60 {
						_, err := r.keeper.Fresh(t.Context(), secret)
						if errors.Is(err, ErrNoSession) {
							t.Fatalf("%v after the fault began: %v, want the session", time.Since(until)+2*time.Second, err)
						}
						time.Sleep(100 * time.Millisecond)
					}
					r.fresh(secret)
					r.wantStored(secret, f)
				})
			})
		}
	}
}

// TestUnclearRefusalIsForgottenAfterASuccess: the next unclear refusal, an hour later,
// counts as the first.
func TestUnclearRefusalIsForgottenAfterASuccess(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		for range 3 {
			r.server.always(behaviour{outcome: Unclear})
			r.waitUntilDue()
			r.fresh(secret)
			time.Sleep(5 * time.Second)
			r.server.normal()
			r.waitUntilExpired()
			r.fresh(secret)
			r.wantStored(secret, f)
		}
	})
}

// TestUnclearRefusalAppliesToOneToken: a refresh token that arrived with a malformed
// answer was not refused yet.
func TestUnclearRefusalAppliesToOneToken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		r.waitUntilDue()
		r.server.set(func() {
			r.server.behave = func(n int) behaviour {
				return []behaviour{
					{outcome: Unclear}, {outcome: Malformed, processed: true, withRefreshToken: true}, {outcome: Unclear}, {},
				}[min(n-1, 3)]
			}
		})
		for range 60 {
			if _, err := r.keeper.Fresh(t.Context(), secret); errors.Is(err, ErrNoSession) {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		r.wantCalls(4)
		r.wantStored(secret, f)
	})
}

// TestUnclearRefusalIsKnownToOtherInstances: the second refusal ends the session at any
// instance.
func TestUnclearRefusalIsKnownToOtherInstances(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		r.waitUntilDue()
		r.server.always(behaviour{outcome: Unclear})
		r.freshAt(0, secret)
		time.Sleep(10 * time.Second)
		r.freshAt(1, secret)
		r.wantCalls(1)
		r.waitUntilExpired()
		if _, err := r.keepers[1].Fresh(t.Context(), secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("Fresh: %v, want ErrNoSession", err)
		}
		r.wantCalls(2)
	})
}

// TestUnclearRefusalOfAnEarlierReleaseIsRead: an earlier release stored it as a refresh
// time of zero. The token is sent once more after the access token has expired.
func TestUnclearRefusalOfAnEarlierReleaseIsRead(t *testing.T) {
	for _, recovered := range []bool{true, false} {
		inBubble(t, func(t *testing.T, r *rig) {
			secret, f := r.login()
			rec := r.stored(secret)
			rec.token.refreshAt = time.Time{}
			rec.rotation++
			if err := r.keeper.commit(t.Context(), seal.Ref{ID: r.id(secret), Secret: secret}, rec); err != nil {
				t.Fatal(err)
			}
			r.waitUntilDue()
			r.fresh(secret)
			r.wantCalls(0)
			r.waitUntilExpired()
			if recovered {
				r.fresh(secret)
				r.wantStored(secret, f)
			} else {
				r.server.always(behaviour{outcome: Unclear})
				r.wantEnded(secret, EndRefusedUnclear)
			}
			r.wantCalls(1)
		})
	}
}

// TestSlowAnswerIsNotRequestedTwice: a slow server gets each token once, and its answer
// is used.
func TestSlowAnswerIsNotRequestedTwice(t *testing.T) {
	for _, working := range []time.Duration{9 * time.Second, 12 * time.Second, 40 * time.Second, 70 * time.Second} {
		t.Run(working.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secret, f := r.login()
				r.waitUntilExpired()
				r.server.always(behaviour{after: working})
				for start := time.Now(); time.Since(start) < working; time.Sleep(time.Second) {
					if _, err := r.keeper.Fresh(t.Context(), secret); errors.Is(err, ErrNoSession) {
						t.Fatal(err)
					}
				}
				r.server.normal()
				r.wantCalls(1)
				r.fresh(secret)
				r.wantStored(secret, f)
			})
		})
	}
}

// TestUnansweredRequestIsRepeatedOnce: the repeated request gets the token.
func TestUnansweredRequestIsRepeatedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		r.waitUntilExpired()
		r.server.set(func() {
			r.server.behave = func(n int) behaviour {
				if n == 1 {
					return behaviour{outcome: Unanswered}
				}
				return behaviour{}
			}
		})
		r.fresh(secret)
		r.wantCalls(2)
		r.wantStored(secret, f)
	})
}

// TestLostAnswerEndsSessionAfterOneRepeat: the server has rotated the token, and its
// answer is lost. The repeated request is refused.
func TestLostAnswerEndsSessionAfterOneRepeat(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.waitUntilExpired()
		r.server.set(func() {
			r.server.behave = func(n int) behaviour {
				if n == 1 {
					return behaviour{outcome: Unanswered, processed: true}
				}
				return behaviour{}
			}
		})
		r.wantEnded(secret, EndRejected)
		time.Sleep(time.Hour)
		r.wantGone(secret)
		r.wantCalls(2)
	})
}

// TestFailingServerGetsFewRequests: during ten minutes of failures, with ten requests a
// second, the authorization server gets a bounded number of them. After it works again,
// the session is soon refreshed.
func TestFailingServerGetsFewRequests(t *testing.T) {
	for _, tt := range []struct {
		name       string
		b          behaviour
		least, max int
	}{
		// Pauses of 1, 2, 4, 8, 16 s and then 30 s, each up to a quarter longer.
		{"unavailable", behaviour{outcome: Unavailable}, 18, 26},
		{"misconfigured", behaviour{outcome: Misconfigured}, 18, 26},
		{"malformed", behaviour{outcome: Malformed}, 18, 26},
		{"unanswered", behaviour{outcome: Unanswered}, 36, 52},
		{"timed out", behaviour{outcome: TimedOut}, 16, 22},
		// Once a minute, because a request waits.
		{"asked to wait", behaviour{outcome: Unavailable, retryAfter: 2 * time.Minute}, 9, 11},
		{"asked to wait for an hour", behaviour{outcome: Unavailable, retryAfter: time.Hour}, 9, 11},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.server.latency = 0
				secret, _ := r.login()
				r.waitUntilExpired()
				r.server.always(tt.b)
				for range 6000 {
					r.wantUnavailable(secret)
					time.Sleep(100 * time.Millisecond)
				}
				if n := r.server.calls(); n < tt.least || n > tt.max {
					t.Errorf("%d requests in 10 minutes, want %d to %d", n, tt.least, tt.max)
				}
				r.server.normal()
				time.Sleep(max(38*time.Second, min(tt.b.retryAfter, time.Minute)))
				r.fresh(secret)
				// The next failure after a success begins with the shortest back-off.
				r.waitUntilExpired()
				r.server.always(behaviour{outcome: Unavailable})
				if wait := r.wantUnavailable(secret).RetryAfter; wait > 1250*time.Millisecond {
					t.Errorf("the back-off after a success is %v, want %v at most", wait, 1250*time.Millisecond)
				}
			})
		})
	}
}

// TestRejectedTokenIsNotSentAgain: after the end of the session, requests cause no load
// at the authorization server.
func TestRejectedTokenIsNotSentAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		r.server.set(func() { f.dead = true })
		r.waitUntilExpired()
		r.wantEnded(secret, EndRejected)
		for range 1000 {
			time.Sleep(time.Second)
			if err := r.wantError(secret); !errors.Is(err, ErrNoSession) {
				t.Fatalf("Fresh: %v, want ErrNoSession", err)
			}
		}
		r.wantCalls(1)
		if n := r.events.count(EventEnded); n != 1 {
			t.Errorf("%d events of an end, want 1", n)
		}
	})
}

// TestMalformedAnswerKeepsRotatedToken: the refresh token of an answer without a usable
// access token is stored, and the old access token is served while it is usable.
func TestMalformedAnswerKeepsRotatedToken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		first := r.fresh(secret).AccessToken
		r.waitUntilDue()
		r.server.always(behaviour{outcome: Malformed, processed: true, withRefreshToken: true})
		r.fresh(secret)
		time.Sleep(time.Second / 2)
		if got := r.fresh(secret).AccessToken; got != first {
			t.Errorf("token %q, want %q", got, first)
		}
		if rec := r.stored(secret); rec.refreshToken != f.current {
			t.Errorf("stored refresh token %q, want %q", rec.refreshToken, f.current)
		}
	})
}

// TestChangedIdentityEndsSession: no request gets the access token of an answer with the
// ID token of another login.
func TestChangedIdentityEndsSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		r.server.set(func() {
			r.server.idTokens = true
			r.server.identifyDelay = time.Second
			r.server.identify = func(Identity, Tokens) (Identity, error) { return Identity{}, ErrIdentityChanged }
		})
		r.waitUntilExpired()
		for range 20 {
			go func() {
				s, err := r.keeper.Fresh(t.Context(), secret)
				var ended *EndedError
				if !errors.As(err, &ended) || ended.Reason != EndIdentityChanged {
					t.Errorf("Fresh: %+v, %v, want the reason %s", s, err, EndIdentityChanged)
				}
			}()
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		r.wantGone(secret)
		r.wantCalls(1)
		if _, n := r.server.newestOf(f); n != 1 {
			t.Errorf("%d redemptions, want 1", n)
		}
	})
}

// TestUnverifiableIDTokenIsDropped: an ID token that cannot be verified, for any reason,
// changes nothing else: the new access token is used, and the session keeps its identity.
func TestUnverifiableIDTokenIsDropped(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		f, who, tokens := r.server.login()
		who.UserInfo, who.Nonce = []byte(`{"team":"blue"}`), "nonce"
		tokens.IDToken = "id-token-of-the-login"
		secret, _, err := r.keeper.Create(t.Context(), who, tokens)
		if err != nil {
			t.Fatal(err)
		}
		r.server.set(func() { r.server.idTokens = true })
		causes := []string{"fetching keys: timed out", "signature is invalid", "token is expired", "larger than 16384 bytes"}
		for i, cause := range causes {
			r.server.set(func() {
				r.server.identify = func(Identity, Tokens) (Identity, error) { return Identity{Subject: "another user"}, errors.New(cause) }
			})
			r.waitUntilExpired()
			s := r.fresh(secret)
			if s.Subject != who.Subject || string(s.Claims) != string(who.Claims) {
				t.Errorf("%s: subject %s, claims %s, want them unchanged", cause, s.Subject, s.Claims)
			}
			r.wantStored(secret, f)
			if rec := r.stored(secret); rec.idToken != "id-token-of-the-login" || rec.sid != who.SID || string(rec.userInfo) != string(who.UserInfo) {
				t.Errorf("%s: ID token %q, sid %q, UserInfo %s, want them unchanged", cause, rec.idToken, rec.sid, rec.userInfo)
			}
			if n := r.events.count(EventIDTokenKept); n != i+1 {
				t.Errorf("%d events, want %d", n, i+1)
			}
		}

		// An ID token that can be verified is stored.
		r.server.set(func() {
			r.server.identify = func(current Identity, _ Tokens) (Identity, error) {
				want := who
				want.IDToken = "id-token-of-the-login"
				if diff := cmp.Diff(want, current); diff != "" {
					t.Errorf("identity passed to Identify (-want +got):\n%s", diff)
				}
				return Identity{Subject: who.Subject, SID: "new-sid", Claims: []byte(`{"email":"new@example.com"}`), UserInfo: []byte(`{}`)}, nil
			}
		})
		r.waitUntilExpired()
		if s := r.fresh(secret); !strings.Contains(string(s.Claims), "new@example.com") {
			t.Errorf("claims are %s, want the new ones", s.Claims)
		}
		if rec := r.stored(secret); !strings.HasPrefix(rec.idToken, "id-token-family") || rec.sid != "new-sid" || string(rec.userInfo) != `{}` {
			t.Errorf("ID token %q, sid %q, UserInfo %s, want the new ones", rec.idToken, rec.sid, rec.userInfo)
		}
	})
}

// TestAnswerWithoutRefreshTokenKeepsOldOne: see RFC 6749, section 6.
func TestAnswerWithoutRefreshTokenKeepsOldOne(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.doesNotRotate = true
		r.server.idTokens = true
		secret, f := r.login()
		for n := range 5 {
			r.waitUntilExpired()
			r.fresh(secret)
			r.wantCalls(n + 1)
			r.wantStored(secret, f)
		}
	})
}

func TestSessionWithoutRefreshTokenEndsWithItsToken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		_, who, tokens := r.server.login()
		tokens.RefreshToken = ""
		secret, _, err := r.keeper.Create(t.Context(), who, tokens)
		if err != nil {
			t.Fatal(err)
		}
		r.waitUntilDue()
		r.fresh(secret)
		time.Sleep(20*time.Second - time.Millisecond) // 10 s before its expiry
		r.fresh(secret)
		time.Sleep(time.Millisecond)
		if _, err := r.keeper.Peek(t.Context(), secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("Peek: %v, want ErrNoSession", err)
		}
		r.wantEnded(secret, EndNoRefreshToken)
		r.wantCalls(0)
	})
}

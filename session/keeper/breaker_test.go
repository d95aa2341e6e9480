package keeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// logins opens sessions at the server that the rig's keeper shares.
func (r *rig) logins(n int) []seal.Secret {
	r.config.Server = "https://as.example.com"
	r.reconfigure(func(*Config) {})
	secrets := make([]seal.Secret, n)
	for i := range secrets {
		secrets[i], _ = r.login()
	}
	return secrets
}

// TestOneProbeWhileTheServerIsDown: the tokens of many sessions have expired. One session
// at a time asks the server, and none is lost. After the server works again, all are
// refreshed.
func TestOneProbeWhileTheServerIsDown(t *testing.T) {
	for _, tt := range []struct {
		name     string
		sessions int
		b        behaviour
		max      int // requests in a minute
		back     time.Duration
	}{
		// The first failures, then probes after 1, 2, 4, 8 and every 15 s.
		{"refusing", 6000, behaviour{outcome: Unavailable}, breakerThreshold + 8, breakerMaxPause * 5 / 4},
		{"misconfigured", 200, behaviour{outcome: Misconfigured}, breakerThreshold + 8, breakerMaxPause * 5 / 4},
		{"asking to wait for an hour", 200, behaviour{outcome: Unavailable, retryAfter: time.Hour}, breakerThreshold + 1, backoffMaxWaiting},
		{"breaking connections", 200, behaviour{outcome: Unanswered}, 2 * (breakerThreshold + 8), breakerMaxPause * 5 / 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.server.latency = 0
				secrets := r.logins(tt.sessions)
				r.waitUntilExpired()
				r.server.always(tt.b)
				for range 60 {
					for _, secret := range secrets {
						if err := r.wantError(secret); errors.Is(err, ErrNoSession) {
							t.Fatal(err)
						}
					}
					time.Sleep(time.Second)
				}
				if n := r.server.calls(); n > tt.max {
					t.Errorf("%d requests in a minute, want %d at most", n, tt.max)
				}
				if n := len(r.vault.backoffs.all); n > tt.max {
					t.Errorf("%d sessions are in back-off, want %d at most", n, tt.max)
				}
				r.server.normal()
				time.Sleep(tt.back)
				failed := 0
				for _, secret := range secrets {
					if _, err := r.keeper.Fresh(t.Context(), secret); err != nil {
						failed++
					}
				}
				// The sessions that failed are in their own back-off.
				if failed > tt.max {
					t.Errorf("%d sessions fail after the server works again", failed)
				}
				time.Sleep(backoffMaxWaiting)
				for _, secret := range secrets {
					r.fresh(secret)
				}
			})
		})
	}
}

// TestOpenCircuitSendsOneProbeAtATime: during a probe other sessions are refused at once.
// The first success closes the circuit.
func TestOpenCircuitSendsOneProbeAtATime(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secrets := r.logins(100)
		r.waitUntilExpired()
		r.server.always(behaviour{outcome: Unavailable})
		for _, secret := range secrets[:breakerThreshold] {
			r.wantUnavailable(secret)
		}
		time.Sleep(breakerMaxPause)
		before := r.server.calls()
		r.server.always(behaviour{before: 3 * time.Second})
		var all sync.WaitGroup
		for _, secret := range secrets[breakerThreshold:] {
			all.Go(func() { _, _ = r.keeper.Fresh(t.Context(), secret) })
		}
		synctest.Wait()
		if n := r.server.calls() - before; n != 1 {
			t.Errorf("%d probes in progress, want 1", n)
		}
		all.Wait()
		for _, secret := range secrets[breakerThreshold:] {
			all.Go(func() { r.fresh(secret) })
		}
		all.Wait()
	})
}

// TestUnansweredProbeDelaysNextForProbeTimeout: a probe without an answer does not delay
// the next one for as long as a refresh may take.
func TestUnansweredProbeDelaysNextForProbeTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secrets := r.logins(20)
		r.waitUntilExpired()
		r.server.always(behaviour{outcome: Unavailable})
		for _, secret := range secrets[:breakerThreshold] {
			r.wantUnavailable(secret)
		}
		time.Sleep(breakerMaxPause)
		r.server.always(behaviour{before: time.Hour})
		go func() { _, _ = r.keeper.Fresh(t.Context(), secrets[10]) }()
		synctest.Wait()
		r.server.normal()
		time.Sleep(probeTimeout - time.Second)
		r.wantUnavailable(secrets[11])
		time.Sleep(time.Second)
		r.fresh(secrets[12])
		r.fresh(secrets[11])
	})
}

// TestFewFailingSessionsDoNotOpenTheCircuit: the server never refreshes a few sessions.
// All others are refreshed as usual.
func TestFewFailingSessionsDoNotOpenTheCircuit(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secrets := r.logins(40)
		broken := secrets[:breakerThreshold-1]
		for range 10 {
			r.waitUntilExpired()
			r.server.always(behaviour{outcome: Unavailable})
			for range 5 {
				for _, secret := range broken {
					r.wantUnavailable(secret)
				}
				time.Sleep(500 * time.Millisecond)
			}
			r.server.normal()
			for _, secret := range secrets[breakerThreshold:] {
				r.fresh(secret)
			}
		}
	})
}

// failsFor is the server for a process, except that it refreshes none of the sessions
// of some families.
type failsFor struct {
	Refresher
	families []*family
	outcome  Outcome
}

func (f failsFor) Refresh(ctx context.Context, refreshToken string, confirm func() error) Answer {
	for _, family := range f.families {
		if strings.Contains(refreshToken, family.name) {
			return Answer{Outcome: f.outcome, Err: errors.New(f.outcome.String())}
		}
	}
	return f.Refresher.Refresh(ctx, refreshToken, confirm)
}

// TestFailingSessionsDoNotTakeEveryProbe: the server never refreshes some sessions, which
// ask all the time and before all others. Other sessions wait at most until the first of
// them is refreshed.
func TestFailingSessionsDoNotTakeEveryProbe(t *testing.T) {
	for _, tt := range []struct {
		failing int
		outcome Outcome
	}{
		{breakerThreshold, Unavailable},
		{breakerThreshold, Misconfigured},
		{breakerThreshold + 3, Malformed},
	} {
		t.Run(fmt.Sprintf("%d %v", tt.failing, tt.outcome), func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secrets := r.logins(tt.failing + 3)
				r.reconfigure(func(c *Config) { c.Refresher = failsFor{c.Refresher, r.server.families[:tt.failing], tt.outcome} })
				r.waitUntilExpired()
				start := time.Now()
				for time.Since(start) < time.Hour {
					for i, secret := range secrets {
						_, err := r.keeper.Fresh(t.Context(), secret)
						if i >= tt.failing && err != nil && time.Since(start) > 2*breakerMaxPause {
							t.Fatalf("Fresh after %v: %v", time.Since(start), err)
						}
					}
					time.Sleep(time.Second)
				}
			})
		})
	}
}

// TestFailingSessionsDoNotReopenTheCircuit: the failing sessions do not count again once
// another session was refreshed. The user of that session comes back after long pauses.
func TestFailingSessionsDoNotReopenTheCircuit(t *testing.T) {
	for _, outcome := range []Outcome{Unavailable, Misconfigured, Malformed, Unanswered} {
		t.Run(outcome.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				const failing = breakerThreshold
				secrets := r.logins(failing + 1)
				r.reconfigure(func(c *Config) { c.Refresher = failsFor{c.Refresher, r.server.families[:failing], outcome} })
				r.waitUntilExpired()
				for _, secret := range secrets[:failing] {
					r.wantUnavailable(secret)
				}
				time.Sleep(breakerMaxPause)
				r.fresh(secrets[failing])
				for second := range 3600 {
					for _, secret := range secrets[:failing] {
						_, _ = r.keeper.Fresh(t.Context(), secret)
					}
					if second%370 == 369 {
						r.fresh(secrets[failing])
					}
					time.Sleep(time.Second)
				}
			})
		})
	}
}

// TestRefusedClientDoesNotAffectOthers: the server refuses one client. Sessions of
// another client of the same server are refreshed as usual, and those of the refused
// client share a probe.
func TestRefusedClientDoesNotAffectOthers(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secrets := r.logins(200)
		c := r.config
		c.Site = seal.NewSite(mustRing(t, testKey(1)), "https://as.example.com", "other client", "cookie")
		neighbour := mustKeeper(c)
		_, who, tokens := r.server.login()
		other, _, err := neighbour.Create(t.Context(), who, tokens)
		if err != nil {
			t.Fatal(err)
		}
		refused := failsFor{c.Refresher, r.server.families[:len(secrets)], Misconfigured}
		r.reconfigure(func(c *Config) { c.Refresher = refused })
		r.waitUntilExpired()
		for range 600 {
			for _, secret := range secrets {
				if err := r.wantUnavailable(secret); !err.Misconfigured {
					t.Fatal(err)
				}
			}
			if _, err := neighbour.Fresh(t.Context(), other); err != nil {
				t.Fatalf("Fresh of the other client: %v", err)
			}
			time.Sleep(time.Second)
		}
		if n := r.events.count(EventRefreshFailed); n > 60 {
			t.Errorf("%d requests of the refused client in ten minutes, want 60 at most", n)
		}
	})
}

// TestMalformedRotationDoesNotOpenTheCircuit: the server rotates the tokens of many
// sessions, but its access tokens are unusable. Another session is refreshed at once.
func TestMalformedRotationDoesNotOpenTheCircuit(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secrets := r.logins(3 * breakerThreshold)
		r.waitUntilExpired()
		r.server.always(behaviour{outcome: Malformed, processed: true, withRefreshToken: true})
		for _, secret := range secrets[1:] {
			r.wantUnavailable(secret)
		}
		r.server.normal()
		r.fresh(secrets[0])
	})
}

func TestServersHaveSeparateBreakers(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secrets := r.logins(20)
		otherServer := newAuthServer(t.Errorf)
		c := r.config
		c.Server, c.Refresher = "https://other.example.com", otherServer.client(r.process)
		neighbour := mustKeeper(c)
		f, who, tokens := otherServer.login()
		secret, _, err := neighbour.Create(t.Context(), who, tokens)
		if err != nil {
			t.Fatal(err)
		}
		r.waitUntilExpired()
		r.server.always(behaviour{outcome: Unavailable})
		for _, s := range secrets {
			r.wantUnavailable(s)
		}
		s, err := neighbour.Fresh(t.Context(), secret)
		if err != nil || s.AccessToken != f.newest {
			t.Errorf("Fresh at the other server: %v, want its newest token", err)
		}
	})
}

// TestConcurrentRefreshesAreBounded: further refreshes wait for a slot without holding
// their lease.
func TestConcurrentRefreshesAreBounded(t *testing.T) {
	inBubbleWithInstances(t, 1, func(t *testing.T, r *instances) {
		secrets := make([]seal.Secret, maxConcurrentRefreshes+100)
		for i := range secrets {
			secrets[i], _ = r.login()
		}
		r.waitUntilExpired()
		r.server.always(behaviour{before: 3 * time.Second})
		var all sync.WaitGroup
		for _, secret := range secrets {
			all.Go(func() { r.freshAt(0, secret) })
		}
		time.Sleep(time.Second)
		r.wantCalls(maxConcurrentRefreshes)
		r.state.mu.Lock()
		if n := len(r.state.leases); n != maxConcurrentRefreshes {
			t.Errorf("%d leases are held, want %d", n, maxConcurrentRefreshes)
		}
		r.state.mu.Unlock()
		all.Wait()
		r.wantCalls(len(secrets))
	})
}

// TestRetryAfterIsHonouredWhileTokenIsValid: if no request waits, the server gets no
// request for as long as it demands.
func TestRetryAfterIsHonouredWhileTokenIsValid(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.set(func() { r.server.lifetime = 2 * time.Hour })
		secret, f := r.login()
		r.waitUntilDue() // 12 minutes before its expiry
		r.server.always(behaviour{outcome: Unavailable, retryAfter: 10 * time.Minute})
		for range 590 {
			r.fresh(secret)
			time.Sleep(time.Second)
		}
		r.wantCalls(1)
		r.server.normal()
		for range 15 {
			r.fresh(secret)
			time.Sleep(time.Second)
		}
		r.wantCalls(2)
		r.wantStored(secret, f)
	})
}

// TestBackoffsSurvivePruning: the failures of a session count although many other
// sessions are in back-off.
func TestBackoffsSurvivePruning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all backoffs
		for round := range 5 {
			for i := range 3 * backoffPruneSize << round { // other sessions fail, too
				all.recordFailure(session.ID{byte(i), byte(i >> 8), byte(i >> 16), byte(round + 1)}, &UnavailableError{Err: errBusy}, backoffMin, false, 0)
			}
			for i := range 3 * backoffPruneSize {
				failure := &UnavailableError{Err: errBusy}
				delay := all.recordFailure(session.ID{byte(i), byte(i >> 8), byte(i >> 16)}, failure, backoffMin, false, 0)
				if want := min(backoffMin<<round, backoffMax); delay != want {
					t.Fatalf("back-off after failure %d of session %d is %v, want %v", round+1, i, delay, want)
				}
			}
			time.Sleep(backoffMax)
		}
		time.Sleep(2 * backoffRetention)
		kept := len(all.all)
		for i := range 2 * kept { // expired back-offs are removed
			all.recordFailure(session.ID{31: byte(i), 30: byte(i >> 8), 29: byte(i >> 16), 28: 1}, &UnavailableError{Err: errBusy}, backoffMin, false, 0)
		}
		if n := len(all.all); n > 2*kept {
			t.Errorf("%d back-offs are kept, want %d at most", n, 2*kept)
		}
	})
}

// TestLeaseWaitDoesNotShortenTheRefresh: each instance that gets the lease has the full
// time for its request, however long it waited.
func TestLeaseWaitDoesNotShortenTheRefresh(t *testing.T) {
	for _, wait := range []time.Duration{40 * time.Second, 55 * time.Second} {
		inBubbleWithInstances(t, 3, func(t *testing.T, r *instances) {
			secret, f := r.login()
			r.waitUntilExpired()
			r.server.set(func() {
				r.server.behave = func(n int) behaviour {
					if n == 1 {
						return behaviour{outcome: Unavailable, before: wait}
					}
					return behaviour{after: 20 * time.Second}
				}
			})
			for range 90 {
				for _, k := range r.keepers {
					go func() { _, _ = k.Fresh(t.Context(), secret) }()
				}
				time.Sleep(time.Second)
			}
			r.wantCalls(2)
			r.freshEverywhere(1, secret)
			r.wantStored(secret, f)
		})
	}
}

// TestTimedOutRequestIsNotRepeatedAtOnce: no instance repeats it at once, because the
// server may still be working on it.
func TestTimedOutRequestIsNotRepeatedAtOnce(t *testing.T) {
	inBubbleWithInstances(t, 3, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.waitUntilExpired()
		var sent []time.Duration
		start := time.Now()
		r.server.set(func() {
			r.server.behave = func(n int) behaviour {
				if n > len(sent) {
					sent = append(sent, time.Since(start))
				}
				if n == 1 {
					return behaviour{outcome: TimedOut, before: time.Minute}
				}
				return behaviour{}
			}
		})
		for time.Since(start) < 2*time.Minute {
			for _, k := range r.keepers {
				go func() { _, _ = k.Fresh(t.Context(), secret) }()
			}
			time.Sleep(500 * time.Millisecond)
		}
		r.freshEverywhere(2, secret)
		r.wantStored(secret, f)
		if len(sent) != 2 || sent[1] < time.Minute+backoffMinTimedOut-renewInterval {
			t.Errorf("the token was sent after %v, want two requests, the second after %v or more", slices.Clone(sent), time.Minute+backoffMinTimedOut-renewInterval)
		}
		r.wantNoLease(secret)
	})
}

// TestLeaseIsConfirmedAfterConnecting: an instance whose connection takes longer than
// leaseTimeout sends nothing if another instance has taken over the lease.
func TestLeaseIsConfirmedAfterConnecting(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.waitUntilExpired()
		r.server.set(func() {
			r.server.behave = func(int) behaviour {
				if r.server.requests == 0 && time.Now().Before(r.stored(secret).token.expires.Add(time.Second)) {
					return behaviour{connecting: 9 * time.Second}
				}
				return behaviour{}
			}
		})
		go func() { _, _ = r.keepers[0].Fresh(t.Context(), secret) }()
		synctest.Wait()
		r.users[0].setFault(func(op sharedOp) storeFault { return storeFault{freeze: op == sharedBeat} })
		time.Sleep(2 * time.Second)
		r.freshAt(1, secret) // takes over the lease after leaseTimeout
		r.wantCalls(1)
		time.Sleep(10 * time.Second)
		r.wantCalls(1)
		r.users[0].clearFaults()
		r.freshEverywhere(2, secret)
		r.wantStored(secret, f)
	})
}

// TestLostLeaseEndsTheWait: an instance that was stopped while it waited for the server
// serves the tokens of the instance that took over. It does not wait for its own answer,
// which may never arrive.
func TestLostLeaseEndsTheWait(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.waitUntilExpired()
		r.server.set(func() {
			r.server.behave = func(n int) (b behaviour) {
				if n == 1 {
					b.before = time.Hour
				}
				return b
			}
		})
		answered := make(chan time.Duration, 1)
		start := time.Now()
		for i := range r.keepers {
			r.keepers[i].RefreshTimeout = 50 * time.Second
		}
		go func() {
			s, err := r.keepers[0].Fresh(t.Context(), secret)
			if err != nil {
				t.Errorf("Fresh at the stopped instance: %v", err)
			} else {
				r.wantUsable(s)
			}
			answered <- time.Since(start)
		}()
		synctest.Wait()
		r.processes[0].stalled.Store(true)
		r.users[0].setFault(func(op sharedOp) storeFault { return storeFault{freeze: op == sharedBeat} })
		r.freshAt(1, secret)
		time.Sleep(10 * time.Second)
		r.users[0].clearFaults()
		if took := <-answered; took > 20*time.Second {
			t.Errorf("the request waited %v, want 20s at most", took)
		}
		r.wantCalls(2)
		r.wantStored(secret, f)
	})
}

// TestRefusalEndsSessionDespiteConcurrentUse: another instance writes a use after the
// refused instance has read the record and before it deletes it. That changes the
// version, and the refusal still counts.
func TestRefusalEndsSessionDespiteConcurrentUse(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, f := r.login()
		r.waitUntilExpired()
		r.server.set(func() { f.dead = true })
		interferences := 0
		r.users[0].setFault(func(op sharedOp) storeFault {
			if op == sharedDeleteAt && interferences < 3 {
				interferences++
				id := r.id(secret)
				rec := r.stored(secret)
				item, err := r.keepers[1].sealItem(seal.Ref{ID: id, Secret: secret}, rec)
				if err != nil {
					t.Errorf("writing a use: %v", err)
				}
				r.state.mu.Lock()
				r.state.items[id] = item
				r.state.mu.Unlock()
			}
			return storeFault{}
		})
		_, err := r.keepers[0].Fresh(t.Context(), secret)
		var ended *EndedError
		if !errors.As(err, &ended) || ended.Reason != EndRejected {
			t.Errorf("Fresh: %v, want the reason %s", err, EndRejected)
		}
		r.wantCalls(1)
		r.wantGone(secret)
	})
}

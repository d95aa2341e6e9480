package keeper

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// shortIdle is an idle time-out with a use interval of one second.
const shortIdle = 20 * time.Second

// useShortIdle returns a keeper whose sessions are idle after shortIdle.
func (r *rig) useShortIdle() *Keeper {
	r.server.lifetime = time.Hour
	return r.reconfigure(func(c *Config) { c.IdleTimeout = shortIdle })
}

// wantIdleEnd checks that a stream ends when its session was not used for idle, or up to
// 5 % plus late after that.
func wantIdleEnd(t *testing.T, stream context.Context, lastUse time.Time, idle, late time.Duration) {
	t.Helper()
	select {
	case <-stream.Done():
	case <-time.After(24 * time.Hour):
	}
	unused := time.Since(lastUse)
	if !errors.Is(context.Cause(stream), ErrNoSession) || unused < idle || unused > idle+idle/20+late {
		t.Errorf("got a stream that ended %v after the last use with cause %v, want %v or up to %v later", unused, context.Cause(stream), idle, idle/20+late)
	}
}

// TestStreamEndsAfterTheIdleTimeout, 5 % later at most, whatever uses and failures there are
// before.
func TestStreamEndsAfterTheIdleTimeout(t *testing.T) {
	tests := []struct {
		name string
		late time.Duration
		// use uses the session for a while and returns the time of the last use.
		use func(r *rig, secret seal.Secret) time.Time
	}{
		{"not used", 0, func(*rig, seal.Secret) time.Time { return time.Now() }},
		{"used once", 0, func(r *rig, secret seal.Secret) time.Time { return r.usedEvery(secret, 3*time.Second, 1) }},
		{"used once, late", 0, func(r *rig, secret seal.Secret) time.Time { return r.usedEvery(secret, 19*time.Second, 1) }},
		{"used often", 0, func(r *rig, secret seal.Secret) time.Time { return r.usedEvery(secret, 3*time.Second, 30) }},
		{"used rarely", 0, func(r *rig, secret seal.Secret) time.Time { return r.usedEvery(secret, 19*time.Second, 9) }},
		{"store down at the end", 0, func(r *rig, secret seal.Secret) time.Time {
			r.usedEvery(secret, 3*time.Second, 1)
			r.store.fail()
			time.Sleep(5*time.Minute + 300*time.Millisecond)
			r.store.clearFaults()
			return time.Now().Add(-shortIdle)
		}},
		{"store frozen at the end", checkRetry, func(r *rig, secret seal.Secret) time.Time {
			r.usedEvery(secret, 3*time.Second, 1)
			r.store.setFault(func(storeOp) storeFault { return storeFault{freeze: true} })
			time.Sleep(time.Minute + storeTimeout/2)
			r.store.clearFaults()
			return time.Now().Add(-shortIdle + storeTimeout/2)
		}},
		{"use not written", 0, func(r *rig, secret seal.Secret) time.Time {
			r.store.fail(opReplace)
			return r.usedEvery(secret, 15*time.Second, 3)
		}},
		{"new tokens not written", 0, func(r *rig, secret seal.Secret) time.Time { return r.refreshedUnwritten(secret) }},
		{"new tokens not written, and the store down", 0, func(r *rig, secret seal.Secret) time.Time {
			defer r.store.fail()
			return r.refreshedUnwritten(secret)
		}},
		{"other requests in progress", 0, func(r *rig, secret seal.Secret) time.Time {
			for range 5 {
				time.Sleep(7 * time.Second)
				_, attached := attach(r.keeper, r.t.Context(), r.fresh(secret))
				defer attached.Detach()
			}
			return time.Now()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				k := r.useShortIdle()
				secret, _ := r.login()
				first, attached := attach(k, t.Context(), r.fresh(secret))
				defer attached.Detach()
				second, attached := attach(k, t.Context(), r.fresh(secret))
				defer attached.Detach()
				last := tt.use(r, secret)
				if first.Err() != nil || second.Err() != nil {
					t.Fatal("a stream has ended although its session was used")
				}
				wantIdleEnd(t, first, last, shortIdle, tt.late)
				wantIdleEnd(t, second, last, shortIdle, tt.late)
			})
		})
	}
}

// refreshedUnwritten uses a session once, with a refresh that the store does not take. It
// returns the time of the use.
func (r *rig) refreshedUnwritten(secret seal.Secret) time.Time {
	r.t.Helper()
	r.store.fail(opReplace)
	time.Sleep(15 * time.Second)
	if _, err := r.keeper.FreshSince(r.t.Context(), secret, time.Now()); err != nil {
		r.t.Fatal(err)
	}
	return time.Now()
}

// usedEvery uses a session n times and returns the time of the last use.
func (r *rig) usedEvery(secret seal.Secret, pause time.Duration, n int) time.Time {
	r.t.Helper()
	for range n {
		time.Sleep(pause)
		_, attached := attach(r.keeper, r.t.Context(), r.fresh(secret))
		attached.Detach()
	}
	return time.Now()
}

// TestEachOfManyStreamsEndsAfterItsIdleTimeout: one timer serves many sessions.
func TestEachOfManyStreamsEndsAfterItsIdleTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		k := r.useShortIdle()
		const many = 300 // several in each shard
		begun := time.Now()
		ended := make(chan error, many)
		for i := range many {
			secret, _ := r.login()
			stream, attached := attach(k, t.Context(), r.fresh(secret))
			go func() {
				defer attached.Detach()
				time.Sleep(time.Duration(i%17) * time.Second)
				_, err := k.Fresh(stream, secret)
				wantIdleEnd(t, stream, time.Now(), shortIdle, 0)
				ended <- err
			}()
		}
		for range many {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begun); took > 16*time.Second+shortIdle*21/20 {
			t.Errorf("the last stream ended after %v, want %v at most", took, 16*time.Second+shortIdle*21/20)
		}
	})
}

// TestStreamEndsAfterTheMaximumLifetime although its session is in use.
func TestStreamEndsAfterTheMaximumLifetime(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useShortIdle()
		k := r.reconfigure(func(c *Config) { c.MaxLifetime = 33 * time.Second })
		begun := time.Now()
		secret, _ := r.login()
		stream, attached := attach(k, t.Context(), r.fresh(secret))
		defer attached.Detach()
		r.usedEvery(secret, 4*time.Second, 8)
		<-stream.Done()
		if lived := time.Since(begun); lived != 33*time.Second {
			t.Errorf("the stream ended after %v, want 33s", lived)
		}
	})
}

// TestStreamOfAnOlderConfigurationEndsByTheNewerIdleTimeout, once a request under the newer
// configuration has used its session.
func TestStreamOfAnOlderConfigurationEndsByTheNewerIdleTimeout(t *testing.T) {
	for _, tt := range []struct {
		name      string
		old, next time.Duration
		newer     bool // another stream begins after the request
	}{
		{"shortened", 8 * time.Hour, shortIdle, false},
		{"shortened, newer stream", 8 * time.Hour, shortIdle, true},
		{"lengthened", shortIdle, 2 * time.Minute, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.server.lifetime = 100 * time.Hour
				old := r.reconfigure(func(c *Config) { c.IdleTimeout = tt.old })
				secret, _ := r.login()
				stream, attached := attach(old, t.Context(), r.fresh(secret))
				defer attached.Detach()
				r.reconfigure(func(c *Config) { c.IdleTimeout = tt.next })
				time.Sleep(2 * time.Second)
				_, request := attach(r.keeper, t.Context(), r.fresh(secret))
				if tt.newer {
					_, attached := attach(old, t.Context(), r.fresh(secret))
					defer attached.Detach()
				}
				request.Detach()
				last := time.Now()
				if tt.next > tt.old {
					last = r.usedEvery(secret, 12*time.Second, 2)
				}
				wantIdleEnd(t, stream, last, tt.next, 0)
			})
		})
	}
}

// TestUseAtAnotherInstanceKeepsStreams, with and without a notification, and they end in
// time after it.
func TestUseAtAnotherInstanceKeepsStreams(t *testing.T) {
	for _, missesPushes := range []bool{false, true} {
		inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
			r.server.lifetime = time.Hour
			r.shortenIdleTime(0, missesPushes)
			secret := r.loginAs(r.keepers[0], "alice", "1")
			stream, attached := attach(r.keepers[0], t.Context(), r.freshAt(0, secret))
			defer attached.Detach()
			for range 3 {
				time.Sleep(15 * time.Second)
				r.freshAt(1, secret)
			}
			last := time.Now()
			synctest.Wait()
			if stream.Err() != nil {
				t.Fatal("the stream has ended although its session was used at another instance")
			}
			wantIdleEnd(t, stream, last, shortIdle, 0)
		})
	}
}

// shortenIdleTime gives all instances the idle time-out shortIdle. One instance may miss the
// pushes of the store.
func (r *instances) shortenIdleTime(of int, missesPushes bool) {
	for i := range r.keepers {
		c := r.keepers[i].Config
		c.IdleTimeout = shortIdle
		r.keepers[i] = mustKeeper(c)
	}
	r.users[of].mu.Lock()
	defer r.users[of].mu.Unlock()
	r.users[of].missesPushes = missesPushes
}

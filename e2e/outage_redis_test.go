package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/faultproxy"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// outage is the duration of an outage of Redis: longer than the lifetime of access tokens, and longer than the time after
// which another instance may take over a lease.
const outage = 6 * time.Second

// TestRedisKilled kills Redis under load and restarts it. Redis writes each command to disk before its answer, so that all
// acknowledged writes survive.
func TestRedisKilled(t *testing.T) {
	t.Parallel()
	redis := redisserver.Start(t, redisserver.Options{AppendOnly: true})
	l := startLoad(t, redis)
	release := l.holdRefreshes(t, heldRefreshes)
	redis.Kill(t)
	release()
	l.continueFor(t, "dead", outage)
	redis.Restart(t)
	l.want503(t)
	l.finish(t)
}

// TestRedisFrozen pauses Redis under load, like an overcommitted host: connections stay open and get no answers.
func TestRedisFrozen(t *testing.T) {
	t.Parallel()
	redis := redisserver.Start(t, redisserver.Options{})
	l := startLoad(t, redis)
	release := l.holdRefreshes(t, heldRefreshes)
	redis.Pause(t)
	release()
	l.continueFor(t, "frozen", outage)
	redis.Resume(t)
	l.want503(t)
	l.finish(t)
}

// heldRefreshes is the number of refreshes in progress at the beginning of a fault.
const heldRefreshes = 8

// holdRefreshes waits until the authorization server has redeemed n refresh tokens, and holds its answers back until
// release.
func (l *load) holdRefreshes(t *testing.T, n int) (release func()) {
	t.Helper()
	before := l.as.Stats().Granted[fakeas.GrantRefresh]
	answers := fakeas.NewGate()
	l.as.Fail(fakeas.Hold(answers).For(fakeas.GrantRefresh).Repeat(n))
	eventually(t, "held refresh answers", func() bool { return l.as.Stats().Granted[fakeas.GrantRefresh] >= before+n })
	return answers.Open
}

// TestRedisRefusesWrites lets Redis answer reads and refuse writes under load, as a replica or without memory. The refreshes
// in progress have spent their refresh tokens: an instance must keep the new tokens in memory until it can write them, and
// no other instance may send the spent tokens.
func TestRedisRefusesWrites(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name         string
		refuse, heal func(t *testing.T, redis *redisserver.Server)
	}{
		{"replica", func(t *testing.T, redis *redisserver.Server) {
			redis.Do(t, "REPLICAOF", "127.0.0.1", fmt.Sprint(proc.FreePort(t))) // the master does not exist
		}, func(t *testing.T, redis *redisserver.Server) {
			redis.Do(t, "REPLICAOF", "NO", "ONE")
		}},
		{"no memory", func(t *testing.T, redis *redisserver.Server) {
			redis.Do(t, "CONFIG", "SET", "maxmemory", "1")
		}, func(t *testing.T, redis *redisserver.Server) {
			redis.Do(t, "CONFIG", "SET", "maxmemory", "0")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			redis := redisserver.Start(t, redisserver.Options{Args: []string{"--maxmemory-policy", "noeviction"}})
			l := startLoad(t, redis)
			release := l.holdRefreshes(t, heldRefreshes)
			tc.refuse(t, redis)
			release()
			l.continueFor(t, "no writes", outage)
			tc.heal(t, redis)
			l.want503(t)
			l.finish(t)
			written := 0
			for _, n := range l.nodes {
				written += strings.Count(n.Log(t), "served from memory have been written to the store")
			}
			t.Logf("the log reports %d times that tokens from memory were written to the store", written)
			if written == 0 {
				t.Error("no refresh was in progress when Redis refused writes, want some")
			}
		})
	}
}

// faultDuration returns the total duration of the faults: FAULTS_FOR, or 15 s by default.
func faultDuration(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("FAULTS_FOR")
	if text == "" {
		return 15 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("reading FAULTS_FOR: %v", err)
	}
	return d
}

// TestRedisConnectionFaults injects random faults into the connections between instances and Redis, one after the other.
// Each fault is shorter than the time after which another instance may take over a lease.
func TestRedisConnectionFaults(t *testing.T) {
	t.Parallel()
	redis := redisserver.Start(t, redisserver.Options{})
	var proxies []*faultproxy.Proxy
	var stores []string
	for range fleetSize {
		p := faultproxy.Start(t, redis.Addr)
		proxies = append(proxies, p)
		stores = append(stores, "redis://"+p.Addr())
	}
	l := startLoadOn(t, stores...)
	faults := []struct {
		name  string
		begin func(p *faultproxy.Proxy)
	}{
		{"cut", (*faultproxy.Proxy).Cut},
		{"refused", (*faultproxy.Proxy).Refuse},
		{"frozen", func(p *faultproxy.Proxy) { p.Freeze(faultproxy.Both) }},
		{"answers frozen", func(p *faultproxy.Proxy) { p.Freeze(faultproxy.ToClient) }},
		{"slow", func(p *faultproxy.Proxy) { p.Delay(faultproxy.Both, 100*time.Millisecond) }},
	}
	for end := time.Now().Add(faultDuration(t)); time.Now().Before(end); {
		p, fault := proxies[rand.IntN(len(proxies))], faults[rand.IntN(len(faults))]
		accepted := p.Taken()
		fault.begin(p)
		time.Sleep(rand.N(400 * time.Millisecond))
		p.Heal(t)
		time.Sleep(rand.N(400 * time.Millisecond))
		if fault.name == "cut" {
			eventually(t, "new connection after a cut", func() bool { return p.Taken() > accepted })
		}
	}
	l.finish(t)
}

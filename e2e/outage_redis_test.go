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

// outage is how long Redis is out of order: longer than a token lives, and longer than a lease has to be silent before
// somebody else may take it.
const outage = 6 * time.Second

// TestRedisKilled kills Redis under load and starts it again. It writes each command to disk before it answers, so that every
// acknowledged write is there afterwards.
func TestRedisKilled(t *testing.T) {
	t.Parallel()
	redis := redisserver.Start(t, redisserver.Options{AppendOnly: true})
	l := startLoad(t, redis)
	arrive := l.spend(t, spentInFlight)
	redis.Kill(t)
	arrive()
	l.during(t, "dead", outage)
	redis.Restart(t)
	l.demand503(t)
	l.finish(t)
}

// TestRedisFrozen stops Redis under load as an overcommitted host does: connections stay, and nothing answers.
func TestRedisFrozen(t *testing.T) {
	t.Parallel()
	redis := redisserver.Start(t, redisserver.Options{})
	l := startLoad(t, redis)
	arrive := l.spend(t, spentInFlight)
	redis.Pause(t)
	arrive()
	l.during(t, "frozen", outage)
	redis.Resume(t)
	l.demand503(t)
	l.finish(t)
}

// spentInFlight is how many refreshes are under way when something happens to Redis.
const spentInFlight = 8

// spend returns when n refresh tokens have been redeemed whose successors are still on their way to the instances. They
// arrive when arrive is called.
func (l *load) spend(t *testing.T, n int) (arrive func()) {
	t.Helper()
	before := l.as.Stats().Granted[fakeas.GrantRefresh]
	answers := fakeas.NewGate()
	l.as.Fail(fakeas.Hold(answers).For(fakeas.GrantRefresh).Repeat(n))
	eventually(t, "refreshes under way", func() bool { return l.as.Stats().Granted[fakeas.GrantRefresh] >= before+n })
	return answers.Open
}

// TestRedisRefusesWrites lets Redis answer reads and refuse writes for a while, under load: because it was made a replica,
// or because it has no memory left. Refreshes that are under way when that begins have spent their tokens; what they got must
// not be lost, nor anybody else be led to spend those tokens again.
func TestRedisRefusesWrites(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name         string
		refuse, heal func(t *testing.T, redis *redisserver.Server)
	}{
		{"replica", func(t *testing.T, redis *redisserver.Server) {
			redis.Do(t, "REPLICAOF", "127.0.0.1", fmt.Sprint(proc.FreePort(t))) // of nobody
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
			arrive := l.spend(t, spentInFlight)
			tc.refuse(t, redis)
			arrive()
			l.during(t, "no writes", outage)
			tc.heal(t, redis)
			l.demand503(t)
			l.finish(t)
			landed := 0
			for _, n := range l.nodes {
				landed += strings.Count(n.Log(t), "served from memory have been written to the store")
			}
			t.Logf("%d sessions were kept in memory and then written", landed)
			if landed == 0 {
				t.Error("no refresh was under way when writes were refused: the test does not see what it is for")
			}
		})
	}
}

// faultsFor is how long faults go on: shortly in every run, FAULTS_FOR where it is set.
func faultsFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("FAULTS_FOR")
	if text == "" {
		return 15 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("FAULTS_FOR: %v", err)
	}
	return d
}

// TestRedisConnectionFaults plays with the connections between each instance and Redis, one fault after the other. None is
// as long as the silence after which a lease is taken over.
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
	for end := time.Now().Add(faultsFor(t)); time.Now().Before(end); {
		p, fault := proxies[rand.IntN(len(proxies))], faults[rand.IntN(len(faults))]
		taken := p.Taken()
		fault.begin(p)
		time.Sleep(rand.N(400 * time.Millisecond))
		p.Heal(t)
		time.Sleep(rand.N(400 * time.Millisecond))
		if fault.name == "cut" {
			eventually(t, "new connection after a cut", func() bool { return p.Taken() > taken })
		}
	}
	l.finish(t)
}

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const (
	// manySites is the number of sites that must not wait for a frozen Redis one after the other.
	manySites = 40
	// manySitesSlack is how much longer many sites may take than one. One after the other, they would take manySites times
	// as long, up to the deadline of a stop.
	manySitesSlack = 5
	// useAge is the age of a session's last use from which the next use is written: 5 % of idle_timeout.
	useAge = 2 * time.Second
)

// storeLayout distributes sites over Redis servers and prefixes.
type storeLayout struct {
	name    string
	servers int
	prefix  bool // each site has its own
}

// stopTimes has the times of one Caddy.
type stopTimes struct {
	calmReload time.Duration // Redis answers
	reload     time.Duration // Redis is frozen
	stop       time.Duration // Redis is frozen
}

// TestManySitesStopInTheTimeOfOneWhileRedisIsFrozen reloads and stops Caddy while Redis gives no answer. Each site tells the
// other instances that it leaves, and writes the last use of its session. All of them wait for Redis at the same time.
func TestManySitesStopInTheTimeOfOneWhileRedisIsFrozen(t *testing.T) {
	t.Parallel()
	one := measureStops(t, storeLayout{servers: 1}, 1)
	t.Logf("one site: %+v", one)
	for _, layout := range []storeLayout{
		{"one store", 1, false},
		{"a prefix for each site", 1, true},
		{"two servers", 2, false},
	} {
		t.Run(layout.name, func(t *testing.T) {
			many := measureStops(t, layout, manySites)
			t.Logf("%d sites: %+v", manySites, many)
			if limit := many.calmReload + manySitesSlack*one.reload; many.reload > limit {
				t.Errorf("reload took %v, want less than %v: the time of one site is %v", many.reload, limit, one.reload)
			}
			if limit := manySitesSlack * one.stop; many.stop > limit {
				t.Errorf("stop took %v, want less than %v: the time of one site is %v", many.stop, limit, one.stop)
			}
		})
	}
}

// measureStops starts Caddy with n sites and a session at each. It reloads and stops Caddy while Redis is frozen.
func measureStops(t *testing.T, layout storeLayout, n int) (times stopTimes) {
	t.Helper()
	var redis []*redisserver.Server
	for range layout.servers {
		redis = append(redis, redisserver.Start(t, redisserver.Options{}))
	}
	app := echo.Start(t, echo.Options{})
	var sites []string
	registered := fakeas.Client{}
	for range n {
		sites = append(sites, newSite(t))
		registered.RedirectURIs = append(registered.RedirectURIs, sites[len(sites)-1]+"/oauth2/callback")
	}
	as, s := startFake(t, registered.RedirectURIs[0])
	registered.ID, registered.Secret = s.ClientID, s.ClientSecret
	as.AddClient(registered)
	setAccessTokenLifetime(as, longLife)
	config := caddyserver.Config{Env: secret(s)}
	key := newKey()
	for i, site := range sites {
		store := "store redis {\nurl " + redis[i%len(redis)].URL() + "\n"
		if layout.prefix {
			store += fmt.Sprintf("prefix site%d\n", i)
		}
		options := fmt.Sprintf("%s}\nkey %s\nidle_timeout %s", store, key, 20*useAge)
		config.Sites += block(site, protect(s, options)+"reverse_proxy "+app.Addr())
	}
	caddy := caddyserver.Start(t, config)
	announced := func(times int) {
		t.Helper()
		eventually(t, "announcement of each site", func() bool {
			return strings.Count(caddy.Log(t), "this key seals sessions from now on") >= times*n
		})
	}
	reload := func() time.Duration {
		t.Helper()
		begun := time.Now()
		if err := caddy.Reload(t, config); err != nil {
			t.Fatal(err)
		}
		return time.Since(begun)
	}
	announced(1)
	times.calmReload = reload()
	announced(2)

	freeze(t, redis, s, sites)
	times.reload = reload()
	for _, r := range redis {
		r.Resume(t)
	}
	announced(3)

	freeze(t, redis, s, sites)
	begun := time.Now()
	// As `caddy stop` does.
	if status, body := caddy.Admin(t, http.MethodPost, "/stop", ""); status != http.StatusOK {
		t.Fatalf("caddy stop: got status %d %s, want 200", status, body)
	}
	caddy.Stop(t) // waits for the end
	times.stop = time.Since(begun)
	for _, r := range redis {
		r.Resume(t)
	}
	return times
}

// freeze logs a user in at each site and pauses Redis. Then it uses each session, so that Caddy has a use to write. Caddy has
// read the sessions before, and serves most of them from its copies. The answers do not matter here.
func freeze(t *testing.T, redis []*redisserver.Server, s *op.Server, sites []string) {
	t.Helper()
	var users []*client.Client
	for _, site := range sites {
		c := login(t, s, site+"/")
		c.Reconnect = true
		users = append(users, c)
	}
	time.Sleep(useAge)
	for i, site := range sites {
		fetch(t, users[i], site+"/oauth2/session") // this is no use
	}
	for _, r := range redis {
		r.Pause(t)
	}
	var running sync.WaitGroup
	for i, site := range sites {
		running.Go(func() { fetch(t, users[i], site+"/frozen") })
	}
	running.Wait()
}

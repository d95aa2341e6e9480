package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// roundTrips is how many sessions go round the instances, and roundTripsAtOnce how many do so at a time.
const (
	roundTrips       = 1000
	roundTripsAtOnce = 8
)

// TestInstancesRoundRobin begins each login at one instance, finishes it at the next, uses the session at the third, and
// ends it at the first: then it is over at the others.
func TestInstancesRoundRobin(t *testing.T) {
	t.Parallel()
	runs := roundTrips
	if testing.Short() {
		runs /= 10
	}
	f := startFleet(t, fleetPlan{})
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	var next, late atomic.Int64
	var working sync.WaitGroup
	for range roundTripsAtOnce {
		working.Go(func() {
			for n := int(next.Add(1)); n <= runs && ctx.Err() == nil; n = int(next.Add(1)) {
				v := f.visitor(fmt.Sprintf("visitor-%d", n), n)
				served, err := v.comeAndGo(ctx, n)
				if err != nil {
					stop(fmt.Errorf("run %d: %w", n, err))
				}
				late.Add(int64(served))
			}
		})
	}
	working.Wait()
	if err := context.Cause(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d runs; %d requests were served after a logout whose news was on the way", runs, late.Load())
	f.unspoiled(t, runs)
	stats := f.as.Stats()
	if n := stats.Granted[fakeas.GrantCode]; n != runs || len(stats.Refused) != 0 {
		t.Errorf("the server granted %d codes and refused %v", n, stats.Refused)
	}
	f.quiet(t)
}

// comeAndGo is a login, one use and the logout, each request of the login at the next instance, from the one with number
// first. It returns how many requests were still served after the logout.
func (v *visitor) comeAndGo(ctx context.Context, first int) (served int, err error) {
	if err := v.login(ctx, "/wanted?q=1"); err != nil {
		return 0, err
	}
	at := func(i int) int { return (first + i) % len(v.fleet.nodes) }
	stale, err := v.keepCookie()
	if err != nil {
		return 0, err
	}
	resp, err := v.at[at(0)].Fetch(ctx, http.MethodPost, v.fleet.site+"/oauth2/logout", "")
	if err != nil {
		return 0, err
	}
	if resp.Status != http.StatusOK {
		return 0, fmt.Errorf("logging %s out: %v", v.name, resp)
	}
	for i := range v.fleet.nodes {
		n, err := stale.awaitEnd(ctx, at(i))
		if err != nil {
			return 0, err
		}
		served += n
	}
	return served, nil
}

var errNoCookie = errors.New("there is no session cookie")

// keepCookie returns a visitor with the same cookies, who does not notice when they are taken from the first.
func (v *visitor) keepCookie() (*visitor, error) {
	cookie := v.round.Jar.Cookie(v.fleet.url, sessionCookie)
	if cookie == nil {
		return nil, errNoCookie
	}
	stale := v.fleet.visitor(v.name, 0)
	for _, c := range stale.at {
		c.Header = http.Header{"Cookie": {cookie.Name + "=" + cookie.Value}}
	}
	return stale, nil
}

// awaitEnd asks an instance until it says that the session is over. What it serves before, for the news may still be on its
// way, must be the user's own.
func (v *visitor) awaitEnd(ctx context.Context, instance int) (served int, err error) {
	for begun := time.Now(); time.Since(begun) < patience; served++ {
		resp, err := v.at[instance].Fetch(ctx, http.MethodGet, v.fleet.site+"/api", "")
		switch {
		case err != nil:
			return 0, err
		case resp.Status == http.StatusUnauthorized:
			return served, nil
		case resp.Status != http.StatusOK:
			return 0, fmt.Errorf("%s after the logout, at instance %d: %v", v.name, instance, resp)
		}
		if err := v.checkUser(resp); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%s is still served at instance %d", v.name, instance)
}

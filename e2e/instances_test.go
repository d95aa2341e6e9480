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

const (
	roundTrips       = 1000 // sessions
	roundTripsAtOnce = 8    // sessions in parallel
)

// TestInstancesRoundRobin starts each login at one instance, finishes it at the next, uses the session at the third, and
// logs out at the first. The logout ends the session at all instances.
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
	var workers sync.WaitGroup
	for range roundTripsAtOnce {
		workers.Go(func() {
			for n := int(next.Add(1)); n <= runs && ctx.Err() == nil; n = int(next.Add(1)) {
				v := f.visitor(fmt.Sprintf("visitor-%d", n), n)
				served, err := v.logInAndOut(ctx, n)
				if err != nil {
					stop(fmt.Errorf("run %d: %w", n, err))
				}
				late.Add(int64(served))
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d runs; instances served %d requests before they got the notification of the logout", runs, late.Load())
	f.wantNoTokenReuse(t, runs)
	stats := f.as.Stats()
	if n := stats.Granted[fakeas.GrantCode]; n != runs || len(stats.Refused) != 0 {
		t.Errorf("got %d granted codes and refusals %v, want %d and none", n, stats.Refused, runs)
	}
	f.wantNoErrorLog(t)
}

// logInAndOut logs in, uses the session once and logs out. The instance with number first gets the first request of the
// login. It returns the number of requests that instances served after the logout.
func (v *visitor) logInAndOut(ctx context.Context, first int) (served int, err error) {
	if err := v.login(ctx, "/wanted?q=1"); err != nil {
		return 0, err
	}
	at := func(i int) int { return (first + i) % len(v.fleet.nodes) }
	stale, err := v.withFixedCookie()
	if err != nil {
		return 0, err
	}
	resp, err := v.at[at(0)].Fetch(ctx, http.MethodPost, v.fleet.site+"/oauth2/logout", "")
	if err != nil {
		return 0, err
	}
	if resp.Status != http.StatusOK {
		return 0, fmt.Errorf("logging %s out: got %v, want 200", v.name, resp)
	}
	for i := range v.fleet.nodes {
		n, err := stale.awaitLogout(ctx, at(i))
		if err != nil {
			return 0, err
		}
		served += n
	}
	return served, nil
}

var errNoCookie = errors.New("got no session cookie")

// withFixedCookie returns a visitor who sends the current session cookie, also after its deletion.
func (v *visitor) withFixedCookie() (*visitor, error) {
	cookie := v.roundRobin.Jar.Cookie(v.fleet.url, sessionCookie)
	if cookie == nil {
		return nil, errNoCookie
	}
	stale := v.fleet.visitor(v.name, 0)
	for _, c := range stale.at {
		c.Header = http.Header{"Cookie": {cookie.Name + "=" + cookie.Value}}
	}
	return stale, nil
}

// awaitLogout sends requests to an instance until it answers 401. Until the instance gets the notification of the logout, it
// may serve requests with the right user. awaitLogout returns their number.
func (v *visitor) awaitLogout(ctx context.Context, instance int) (served int, err error) {
	for begun := time.Now(); time.Since(begun) < patience; served++ {
		resp, err := v.at[instance].Fetch(ctx, http.MethodGet, v.fleet.site+"/api", "")
		switch {
		case err != nil:
			return 0, err
		case resp.Status == http.StatusUnauthorized:
			return served, nil
		case resp.Status != http.StatusOK:
			return 0, fmt.Errorf("%s after the logout at instance %d: got %v, want 200 or 401", v.name, instance, resp)
		}
		if err := v.checkUser(resp); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%s after the logout at instance %d: got no 401 within %v", v.name, instance, patience)
}

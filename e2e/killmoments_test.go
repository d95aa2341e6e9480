package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// kills is the number of kills in TestKillAtRandomMoments.
var kills = flag.Int("kills", 20, "number of kills of Caddy during refreshes")

// A persistentUser keeps one session over all runs of Caddy. Each request needs a new token.
type persistentUser struct {
	client *client.Client
	// waiting is set if the last run ended during a request.
	waiting bool
}

// TestKillAtRandomMoments kills Caddy at random moments while ten sessions refresh with single use tokens. A session survives
// if its user got all answers. No process sends a refresh token twice. Only a user whose request got no answer may have to
// log in again.
func TestKillAtRandomMoments(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	as, s := startFake(t, site+"/oauth2/callback")
	as.Set(func(k *fakeas.Knobs) {
		k.AccessTokenLifetime = longLife
		k.LatencyBefore, k.LatencyAfter = 100*time.Millisecond, 100*time.Millisecond
	})
	caddy := caddyserver.Start(t, protected(site, s, "scope openid offline_access\nrefresh_if_older * 0s", echo.Start(t, echo.Options{})))
	users := make([]*persistentUser, 10)
	for i := range users {
		users[i] = &persistentUser{client: login(t, s, site+"/")}
	}
	interrupted, relogins := 0, 0
	for range *kills {
		before := as.Stats().Presented
		runUntilKill(t, caddy, users, site)
		for token, n := range as.Stats().Presented {
			if n-before[token] > 1 {
				t.Fatalf("one process sent the refresh token %s %d times, want at most once", token, n-before[token])
			}
		}
		caddy.Restart(t)
		for _, u := range users {
			if u.waiting {
				interrupted++
			}
		}
		relogins += wantSessionsOrLogins(t, users, site)
	}
	stats := as.Stats()
	t.Logf("%d interrupted requests, %d refreshes, %d repeated logins", interrupted, stats.Granted["refresh_token"], relogins)
	if len(stats.RedeemedTwice) != 0 || stats.Reuses > relogins {
		t.Errorf("got tokens redeemed twice %v and %d reuses, want none and at most %d", stats.RedeemedTwice, stats.Reuses, relogins)
	}
	if interrupted < *kills || relogins == 0 {
		t.Errorf("got %d interrupted requests and %d repeated logins, want at least %d and 1: the kills show nothing", interrupted, relogins, *kills)
	}
}

// runUntilKill lets all users send requests in parallel, and kills Caddy at a random moment.
func runUntilKill(t *testing.T, caddy *caddyserver.Server, users []*persistentUser, site string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var requests sync.WaitGroup
	for _, u := range users {
		u.waiting = false
		requests.Go(func() {
			time.Sleep(rand.N(400 * time.Millisecond)) // the kill meets the sessions in different phases of their refreshes
			for ctx.Err() == nil {
				resp, err := u.client.Fetch(ctx, http.MethodGet, site+"/", "")
				if err != nil {
					u.waiting = true
					return
				}
				if bearer(resp) == "" {
					t.Errorf("before the kill: got %v, want the app's answer", resp)
					return
				}
			}
		})
	}
	// A session refreshes at most once per second, and a refresh takes 0.2 s.
	time.Sleep(800*time.Millisecond + rand.N(900*time.Millisecond))
	caddy.Kill(t)
	stop()
	requests.Wait()
}

// wantSessionsOrLogins fails the test unless all sessions work. For a user whose last request got no answer, one login without
// a form is also accepted. It returns the number of logins.
func wantSessionsOrLogins(t *testing.T, users []*persistentUser, site string) (logins int) {
	t.Helper()
	relogins, errs := make([]bool, len(users)), make([]error, len(users))
	var checks sync.WaitGroup
	for i, u := range users {
		checks.Go(func() { relogins[i], errs[i] = u.useOrLogIn(t.Context(), site) })
	}
	checks.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("after the kill: %v", err)
	}
	for _, relogin := range relogins {
		if relogin {
			logins++
		}
	}
	return logins
}

// useOrLogIn uses the session, or logs in if the last request got no answer and the session is lost.
func (u *persistentUser) useOrLogIn(ctx context.Context, site string) (relogin bool, err error) {
	resp, err := u.client.Fetch(ctx, http.MethodGet, site+"/", "")
	switch {
	case err != nil:
		return false, err
	case bearer(resp) != "":
		return false, nil
	case resp.Status != http.StatusUnauthorized || !u.waiting:
		return false, fmt.Errorf("got %v, want the app's answer (last request unanswered: %t)", resp, u.waiting)
	}
	page, err := u.client.Visit(ctx, site+"/wanted")
	if err != nil {
		return false, err
	}
	return true, checkAppPage(page, site+"/wanted")
}

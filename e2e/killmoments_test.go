package e2e

import (
	"context"
	"flag"
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

// kills is how often TestKillAtRandomMoments ends Caddy. Every kill meets the refreshes of ten sessions.
var kills = flag.Int("kills", 20, "how often Caddy is killed in the midst of refreshes")

// killed is a user whose every request needs a new token, and who goes on through all lives of Caddy.
type killed struct {
	client *client.Client
	// waiting: the last life ended while a request had no answer.
	waiting bool
}

// TestKillAtRandomMoments ends Caddy again and again while ten sessions refresh with single-use tokens. What was answered
// is never lost; no process sends a refresh token twice; and only who waited for an answer may have to log in once more.
func TestKillAtRandomMoments(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	as, s := startFake(t, site+"/oauth2/callback")
	as.Set(func(k *fakeas.Knobs) {
		k.AccessTokenLifetime = longLife
		k.LatencyBefore, k.LatencyAfter = 100*time.Millisecond, 100*time.Millisecond
	})
	caddy := caddyserver.Start(t, protected(site, s, "scope openid offline_access\nrefresh_if_older * 0s", echo.Start(t, echo.Options{})))
	users := make([]*killed, 10)
	for i := range users {
		users[i] = &killed{client: login(t, s, site+"/")}
	}
	interrupted, relogins := 0, 0
	for range *kills {
		before := as.Stats().Presented
		live(t, caddy, users, site)
		for token, n := range as.Stats().Presented {
			if n-before[token] > 1 {
				t.Fatalf("one process sent the refresh token %s %d times", token, n-before[token])
			}
		}
		caddy.Restart(t)
		for i, u := range users {
			if u.waiting {
				interrupted++
			}
			if goOn(t, i, u, site) {
				relogins++
			}
		}
	}
	stats := as.Stats()
	t.Logf("%d kills of refreshes under way, %d refreshes, %d logins over again", interrupted, stats.Granted["refresh_token"], relogins)
	if len(stats.RedeemedTwice) != 0 || stats.Reuses > relogins {
		t.Errorf("redeemed twice: %v; spent tokens sent: %d, for %d logins over again", stats.RedeemedTwice, stats.Reuses, relogins)
	}
	if interrupted < *kills || relogins == 0 {
		t.Errorf("the kills met only %d refreshes and cost %d logins: the test does not see what it is for", interrupted, relogins)
	}
}

// live lets all users ask at once and again, and kills Caddy at a random moment.
func live(t *testing.T, caddy *caddyserver.Server, users []*killed, site string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var asking sync.WaitGroup
	for _, u := range users {
		u.waiting = false
		asking.Go(func() {
			for ctx.Err() == nil {
				resp, err := u.client.Fetch(ctx, http.MethodGet, site+"/", "")
				if err != nil {
					u.waiting = true
					return
				}
				if bearer(resp) == "" {
					t.Errorf("in the midst of a life: %v", resp)
					return
				}
			}
		})
	}
	// A session refreshes once a second at most, and each takes 0.2 s.
	time.Sleep(800*time.Millisecond + rand.N(900*time.Millisecond))
	caddy.Kill(t)
	stop()
	asking.Wait()
}

// goOn demands that a session is alive, or, if it waited for an answer, that one unseen login brings it back. It reports
// whether there was one.
func goOn(t *testing.T, i int, u *killed, site string) bool {
	t.Helper()
	resp := fetch(t, u.client, site+"/")
	switch {
	case bearer(resp) != "":
		return false
	case resp.Status != http.StatusUnauthorized || !u.waiting:
		t.Fatalf("session %d after the kill: %v; was it waiting for an answer: %v", i, resp, u.waiting)
	}
	page, err := u.client.Visit(t.Context(), site+"/wanted")
	if err != nil {
		t.Fatal(err)
	}
	landed(t, page, site+"/wanted")
	return true
}

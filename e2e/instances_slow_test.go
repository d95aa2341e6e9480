package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const (
	slowBursts    = 10
	slowBurstSize = 200
)

// TestScenesSlowStorm sends 200 requests over three instances in parallel, with an expired token, at a server whose refresh
// takes up to longer than requests wait. Each rotation takes one redemption, and all requests succeed after their Retry-After.
// With FULL=1, it repeats that ten times, also with a server that takes 20 s.
func TestScenesSlowStorm(t *testing.T) {
	t.Parallel()
	for _, took := range []time.Duration{6 * time.Second, 12 * time.Second, 20 * time.Second} {
		t.Run(took.String(), func(t *testing.T) {
			bursts := slowBursts
			if !fullScenes {
				bursts = 1
				if took > 12*time.Second {
					t.Skip("takes minutes; FULL=1 runs it")
				}
			}
			t.Parallel()
			f := startFleet(t, fleetPlan{options: "refresh_timeout 10s"})
			// A token's lifetime counts from its token request, and it is due for a refresh after 70 %.
			life := 2 * took
			f.setExpiresIn(shortLife)
			v := f.loginVisitor(t, "stormy", 0)
			f.setExpiresIn(life)
			f.as.Fail(fakeas.Slow(took).For(fakeas.GrantRefresh).Repeat(-1))
			expires := time.Now().Add(shortLife)
			refreshes := 0
			for n := range bursts {
				time.Sleep(time.Until(expires))
				start := time.Now()
				retries, err := v.slowBurst(t.Context())
				if err != nil {
					t.Fatalf("burst %d: %v", n, err)
				}
				expires = time.Now().Add(life - took)
				lasted := time.Since(start)
				got := f.as.Stats().Grants[fakeas.GrantRefresh] - refreshes
				refreshes += got
				t.Logf("burst %d: %d requests served within %v, with %d retries; %d redemptions",
					n, slowBurstSize, lasted.Round(time.Millisecond), retries, got)
				// On a slow machine, a burst may last until the next refresh.
				if most := 1 + int(lasted/(life*7/10)); got < 1 || got > most {
					t.Errorf("burst %d: got %d redemptions within %v, want 1 to %d", n, got, lasted, most)
				}
			}
			f.wantNoTokenReuse(t, 1)
			stats := f.as.Stats()
			for _, n := range stats.Presented {
				if n != 1 {
					t.Errorf("a refresh token was sent %d times, want once", n)
				}
			}
			if n := stats.MaxConcurrentRefreshes(); n != 1 {
				t.Errorf("got %d simultaneous refreshes, want 1", n)
			}
			if len(stats.Refused) != 0 {
				t.Errorf("got refusals %v, want none", stats.Refused)
			}
			t.Logf("%d redemptions in %d bursts, %d reuses", stats.Granted[fakeas.GrantRefresh], bursts, stats.Reuses)
		})
	}
}

// slowBurst sends requests to all instances in parallel and retries each until it is served. It returns the number of
// retries.
func (v *visitor) slowBurst(ctx context.Context) (retries int, err error) {
	errs, perRequest := make([]error, slowBurstSize), make([]int, slowBurstSize)
	var requests sync.WaitGroup
	for i := range slowBurstSize {
		requests.Go(func() { perRequest[i], errs[i] = v.askUntilServed(ctx, i%len(v.at)) })
	}
	requests.Wait()
	for _, n := range perRequest {
		retries += n
	}
	return retries, errors.Join(errs...)
}

// askUntilServed sends a request to one instance and retries it after its Retry-After until it is served.
func (v *visitor) askUntilServed(ctx context.Context, instance int) (retries int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		resp, err := v.at[instance].Fetch(ctx, http.MethodGet, v.fleet.site+"/api", "")
		if err != nil {
			return retries, err
		}
		if resp.Status != http.StatusServiceUnavailable {
			_, err := v.checkAnswer(resp)
			return retries, err
		}
		after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || after < 1 || time.Duration(after)*time.Second > longestWait {
			return retries, fmt.Errorf("got Retry-After %q, want 1 to %v", resp.Header.Get("Retry-After"), longestWait)
		}
		retries++
		select {
		case <-time.After(time.Duration(after) * time.Second):
		case <-ctx.Done():
			return retries, ctx.Err()
		}
	}
}

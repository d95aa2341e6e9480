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

// TestScenesSlowStorm has 200 requests at once, over three instances, find that the token of their session has expired, at
// a server that takes longer for a refresh than requests wait. Each rotation is one redemption, all requests get its token
// when they come again, and nothing is lost. With FULL=1 that is so ten times in a row, also with a server that takes 20 s.
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
			// The life of a token counts from the request for it, and the token is due after 70 % of it.
			life := 2 * took
			f.tell(shortLife)
			v := f.welcome(t, "stormy", 0)
			f.tell(life)
			f.as.Fail(fakeas.Slow(took).For(fakeas.GrantRefresh).Repeat(-1))
			expires := time.Now().Add(shortLife)
			refreshes := 0
			for n := range bursts {
				time.Sleep(time.Until(expires))
				begun := time.Now()
				later, err := v.slowBurst(t.Context())
				if err != nil {
					t.Fatalf("burst %d: %v", n, err)
				}
				expires = time.Now().Add(life - took)
				lasted := time.Since(begun)
				got := f.as.Stats().Grants[fakeas.GrantRefresh] - refreshes
				refreshes += got
				t.Logf("burst %d: %d requests served within %v, after %d answers to come again; %d redemptions",
					n, slowBurstSize, lasted.Round(time.Millisecond), later, got)
				// A burst that the machine makes last longer than the life of its token brings the next refresh with it.
				if most := 1 + int(lasted/(life*7/10)); got < 1 || got > most {
					t.Errorf("burst %d: got %d redemptions within %v, want 1", n, got, lasted)
				}
			}
			f.unspoiled(t, 1)
			stats := f.as.Stats()
			for _, times := range stats.Presented {
				if times != 1 {
					t.Errorf("a refresh token was sent %d times", times)
				}
			}
			if n := stats.MaxConcurrentRefreshes(); n != 1 {
				t.Errorf("%d refreshes of one session were under way at once", n)
			}
			if len(stats.Refused) != 0 {
				t.Errorf("refused: %v", stats.Refused)
			}
			t.Logf("%d redemptions in %d bursts, %d reuses", stats.Granted[fakeas.GrantRefresh], bursts, stats.Reuses)
		})
	}
}

// slowBurst asks all instances at once, again and again until each request was served, and returns how often one was told
// to come again.
func (v *visitor) slowBurst(ctx context.Context) (later int, err error) {
	errs, laters := make([]error, slowBurstSize), make([]int, slowBurstSize)
	var asking sync.WaitGroup
	for i := range slowBurstSize {
		asking.Go(func() { laters[i], errs[i] = v.askPatiently(ctx, i%len(v.at)) })
	}
	asking.Wait()
	for _, n := range laters {
		later += n
	}
	return later, errors.Join(errs...)
}

// askPatiently asks one instance until it is served, and comes again when it is told to.
func (v *visitor) askPatiently(ctx context.Context, instance int) (later int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		resp, err := v.at[instance].Fetch(ctx, http.MethodGet, v.fleet.site+"/api", "")
		if err != nil {
			return later, err
		}
		if resp.Status != http.StatusServiceUnavailable {
			_, err := v.own(resp)
			return later, err
		}
		after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || after < 1 || time.Duration(after)*time.Second > longestWait {
			return later, fmt.Errorf("told to come again after %q", resp.Header.Get("Retry-After"))
		}
		later++
		select {
		case <-time.After(time.Duration(after) * time.Second):
		case <-ctx.Done():
			return later, ctx.Err()
		}
	}
}

package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const (
	stormSessions  = 40
	stormRotations = 25
	// stormBurst is how many requests each instance gets at the end of a token.
	stormBurst = 3

	// stormLife is what the server says of its tokens' life: as short as it can be said.
	stormLife = time.Second
)

// TestInstancesStorm sends a burst over all instances whenever the token of a session has expired, in many sessions at a
// time: each rotation is one redemption, and every answer is good.
func TestInstancesStorm(t *testing.T) {
	t.Parallel()
	rule := newStormRule()
	f := startFleet(t, fleetPlan{options: "refresh_timeout 50s"})
	f.as.Set(func(k *fakeas.Knobs) { k.Mutate = rule.issue })
	sessions := stormSessions
	if testing.Short() {
		sessions /= 10
	}
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	var storming sync.WaitGroup
	for i := range sessions {
		storming.Go(func() {
			v := f.visitor(fmt.Sprintf("stormy-%d", i), i)
			if err := v.storm(ctx, rule); err != nil {
				stop(err)
			}
		})
	}
	storming.Wait()
	if err := context.Cause(ctx); err != nil {
		t.Fatal(err)
	}
	f.unspoiled(t, sessions)
	stats := f.as.Stats()
	for token, n := range stats.Presented {
		if n != 1 {
			t.Errorf("the refresh token %s was sent %d times", token, n)
		}
	}
	if n, want := stats.Granted[fakeas.GrantRefresh], sessions*stormRotations; n != want || len(stats.Refused) != 0 {
		t.Errorf("got %d redemptions, want %d; refused: %v", n, want, stats.Refused)
	}
	if n := stats.MaxConcurrentRefreshes(); n != 1 {
		t.Errorf("%d refreshes of one session were under way at once", n)
	}
	f.quiet(t)
}

// storm logs in and sends bursts until all instances have the lasting token.
func (v *visitor) storm(ctx context.Context, rule *stormRule) error {
	if err := v.login(ctx, "/"); err != nil {
		return err
	}
	for calm := false; !calm; {
		// Nothing is synchronised by that: what is waited for is the expiry itself.
		select {
		case <-time.After(stormLife):
		case <-ctx.Done():
			return ctx.Err()
		}
		tokens, err := v.burst(ctx, rule)
		if err != nil {
			return err
		}
		calm = true
		for _, token := range tokens {
			calm = calm && rule.lasting(v.name, token)
		}
	}
	return nil
}

// burst asks all instances at once, stormBurst times each.
func (v *visitor) burst(ctx context.Context, rule *stormRule) ([]string, error) {
	tokens := make([]string, stormBurst*len(v.at))
	errs := make([]error, len(tokens))
	var asking sync.WaitGroup
	for i := range tokens {
		asking.Go(func() {
			sent := time.Now()
			if tokens[i], errs[i] = v.ask(ctx, i%len(v.at)); errs[i] == nil {
				errs[i] = rule.served(tokens[i], sent)
			}
		})
	}
	asking.Wait()
	return tokens, errors.Join(errs...)
}

// TestInstancesKilledHolder kills an instance whose refresh is under way. If the server has not got to it, the others take
// over and nobody notices; if it has, the tokens are lost with the instance, and a navigation leads through one login that
// the user does not see.
func TestInstancesKilledHolder(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		// fault holds the first refresh until the test is over.
		fault fakeas.Fault
		lost  bool
	}{
		{"before the redemption", fakeas.Fault{Delay: longLife, Status: 503}, false},
		{"after the redemption", fakeas.Slow(longLife), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := startFleet(t, fleetPlan{options: "refresh_timeout 50s"})
			f.tell(longLife)
			other := f.welcome(t, "other", 0)
			f.tell(heldLife)
			f.as.Fail(tc.fault.For(fakeas.GrantRefresh))
			mine := f.welcome(t, fakeas.DefaultUser, 0) // who logs in again if nobody says another name
			f.tell(longLife)
			former := mine.holdRefresh(t, 0)
			f.nodes[0].Kill(t)
			if tc.lost {
				mine.awaitLogin(t, 1, former)
			} else {
				mine.awaitNew(t, 1, former)
			}
			f.nodes[0].Restart(t)
			token := mine.awaitNew(t, 1, former)
			for i, got := range mine.everywhere(t) {
				if got != token {
					t.Errorf("instance %d has another token", i)
				}
			}
			other.everywhere(t)
			stats := f.as.Stats()
			if tc.lost {
				if n := stats.Requests[fakeas.EndpointAuthorize]; n != 3 || stats.Reuses != 1 {
					t.Errorf("got %d logins and %d dead tokens sent, want the two visitors' logins, one more, and one", n, stats.Reuses)
				}
				return
			}
			f.unspoiled(t, 2)
			if n := stats.Grants[fakeas.GrantRefresh]; n != 2 || stats.Granted[fakeas.GrantRefresh] != 1 {
				t.Errorf("got %d refresh requests, %d granted: want one of the dead and one of its heir", n, stats.Granted[fakeas.GrantRefresh])
			}
		})
	}
}

// holdRefresh asks one instance until its refresh is under way at the authorization server, and returns the token until
// that. Every answer must be good; the one that waits for the refresh is left to its fate.
func (v *visitor) holdRefresh(t testing.TB, instance int) (token string) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var failure error
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			got, err := v.ask(ctx, instance)
			if err != nil {
				if ctx.Err() == nil {
					failure = err
				}
				return
			}
			token = got
		}
	}()
	v.fleet.awaitRefreshes(t, 1)
	leave()
	<-done
	if failure != nil || token == "" {
		t.Fatalf("before the refresh: %v", failure)
	}
	return token
}

// awaitLogin navigates at one instance until it has another token than the former, as a user does who has lost the session:
// every navigation must end on the wanted page.
func (v *visitor) awaitLogin(t testing.TB, instance int, former string) {
	t.Helper()
	eventually(t, "login without a word", func() bool {
		page, err := v.at[instance].Visit(t.Context(), v.fleet.site+"/wanted?q=2")
		if err != nil {
			t.Fatal(err)
		}
		landed(t, page, v.fleet.site+"/wanted?q=2")
		return bearer(page) != former
	})
}

// standstill is how long a holder does nothing: many times what the others watch before they take over.
const standstill = 20 * time.Second

// TestInstancesStoppedHolder freezes an instance while its refresh is under way. Another takes over, and the others go on.
// When the first comes back it has tokens that are older than those in the store, or none, and follows the others.
//
// No proxy can save the session from a server that revokes everything at the second use of a token, as the one that stands
// still has already used it. The server here accepts the token before the newest, too, and gives each of its users another.
// Had the late one written what it got, the next refresh would be with a token that even this server takes for stolen.
func TestInstancesStoppedHolder(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		answered bool // while the instance stands still
	}{
		{"answer meanwhile", true},
		{"no answer", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := startFleet(t, fleetPlan{options: "refresh_timeout 50s"})
			f.as.Set(func(k *fakeas.Knobs) { k.Rotation, k.Overlap = fakeas.RotateOverlap, 1 })
			f.tell(heldLife)
			answer := fakeas.NewGate()
			t.Cleanup(answer.Open) // an instance that is stopped waits for its refresh
			f.as.Fail(fakeas.Hold(answer).For(fakeas.GrantRefresh))
			v := f.welcome(t, "mine", 0)
			f.tell(shortLife)
			former := v.holdRefresh(t, 0)
			late := secondToken(t, f.as)
			v.standStill(t, former, func() {
				if tc.answered {
					answer.Open()
				}
			})
			if v.seen[late] {
				t.Error("the token that came too late was used")
			}
			f.oneRepetition(t)
		})
	}
}

// TestInstancesLateCommit freezes an instance between the two writes of a refresh: the new refresh token is kept, and the
// access token waits for the keys to judge the ID token by. Others go on from there. When the first comes back its second
// write is refused, and even a server that accepts no token twice sees nothing of it.
func TestInstancesLateCommit(t *testing.T) {
	t.Parallel()
	f := startFleet(t, fleetPlan{options: "refresh_timeout 50s"})
	f.tell(heldLife)
	v := f.welcome(t, "mine", 0) // another instance has checked the login
	f.tell(shortLife)
	keys := f.as.Stats().Requests[fakeas.EndpointJWKS]
	answer := fakeas.NewGate()
	f.as.Fail(fakeas.Hold(answer).At(fakeas.EndpointJWKS))
	former := v.holdRefresh(t, 0)
	late := secondToken(t, f.as)
	eventually(t, "question for the keys", func() bool { return f.as.Stats().Requests[fakeas.EndpointJWKS] > keys })
	v.standStill(t, former, answer.Open)
	if v.seen[late] {
		t.Error("the token that came too late was used")
	}
	f.unspoiled(t, 1)
}

// standStill freezes the first instance for a while, with a request that waits there, and visits the others; frozen is
// called as soon as it stands still. Then all have to go on with one another. The former token lives for heldLife.
func (v *visitor) standStill(t testing.TB, former string, frozen func()) {
	t.Helper()
	waiting := make(chan error, 1)
	go func() {
		token, err := former, error(nil)
		for token == former && err == nil {
			token, err = v.ask(t.Context(), 0)
		}
		waiting <- err
	}()
	time.Sleep(heldRest) // with that the token is over, and the request waits for the refresh
	first := v.fleet.nodes[0].Process
	first.Pause(t)
	frozen()
	v.visitOthers(t)
	first.Resume(t)
	if err := <-waiting; err != nil {
		t.Errorf("the request that waited for the one that stood still: %v", err)
	}
	token := ""
	for _, i := range []int{0, 1, 2, 0} {
		token = v.awaitNew(t, i, token)
	}
}

// visitOthers goes to all instances but the first for as long as that stands still, and until there have been enough
// refreshes for the test to show something.
func (v *visitor) visitOthers(t testing.TB) {
	t.Helper()
	ends := time.Now().Add(standstill)
	eventually(t, "refreshes while an instance stands still", func() bool {
		for i := 1; i < len(v.at); i++ {
			if _, err := v.ask(t.Context(), i); err != nil {
				t.Fatalf("at instance %d, while another stands still: %v", i, err)
			}
		}
		return time.Now().After(ends) && v.fleet.as.Stats().Granted[fakeas.GrantRefresh] >= 4
	})
}

// oneRepetition demands that a single refresh token was sent twice, and accepted both times, and that all went on with the
// one login.
func (f *fleet) oneRepetition(t testing.TB) {
	t.Helper()
	stats := f.as.Stats()
	if len(stats.RedeemedTwice) != 1 || stats.Reuses != 0 || stats.Requests[fakeas.EndpointAuthorize] != 1 {
		t.Fatalf("redeemed twice: %v; spent tokens sent: %d; logins: %d", stats.RedeemedTwice, stats.Reuses, stats.Requests[fakeas.EndpointAuthorize])
	}
	for token, n := range stats.Presented {
		if n > 1 && token != stats.RedeemedTwice[0] || n > 2 {
			t.Errorf("the refresh token %s was sent %d times", token, n)
		}
	}
}

// secondToken waits for the second access token that the server issues, and returns it.
func secondToken(t testing.TB, as *fakeas.Server) string {
	t.Helper()
	var second string
	eventually(t, "second access token", func() bool {
		n := 0
		for _, issued := range as.Tokens() {
			if issued.Kind == fakeas.KindAccess {
				if n++; n == 2 {
					second = issued.Value
				}
			}
		}
		return second != ""
	})
	return second
}

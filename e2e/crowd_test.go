package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"
)

const (
	// crowdRegulars is the number of regulars from the start, crowdLateRegulars of those who log in later.
	crowdRegulars     = 4
	crowdLateRegulars = 4
	// crowdPause is the pause of each visitor between two rounds.
	crowdPause = 300 * time.Millisecond
)

// A crowd is a load on a fleet without any wrong answer. Regulars keep their sessions. Passers-by log in, use the session
// and log out.
type crowd struct {
	fleet   *fleet
	ctx     context.Context
	stop    context.CancelCauseFunc
	running sync.WaitGroup

	mu     sync.Mutex
	rounds map[*visitor]int // rounds over all instances, by regular
}

var errCrowdFinished = errors.New("the test has finished the crowd")

func startCrowd(t testing.TB, f *fleet) *crowd {
	t.Helper()
	c := &crowd{fleet: f, rounds: map[*visitor]int{}}
	c.ctx, c.stop = context.WithCancelCause(t.Context())
	for i := range crowdRegulars {
		c.running.Go(func() { c.check(c.join(fmt.Sprintf("regular-%d", i), i)) })
	}
	c.running.Go(func() { c.check(c.runPassersBy()) })
	t.Cleanup(func() {
		c.stop(errCrowdFinished)
		c.running.Wait()
	})
	return c
}

// check stops the crowd at an error.
func (c *crowd) check(err error) {
	if err != nil {
		c.stop(err)
	}
}

func (c *crowd) pause() {
	select {
	case <-time.After(crowdPause):
	case <-c.ctx.Done():
	}
}

// join logs a regular in and sends rounds of requests until the end of the crowd.
func (c *crowd) join(name string, first int) error {
	v := c.fleet.visitor(name, first)
	if err := v.login(c.ctx, "/"); err != nil {
		return err
	}
	c.mu.Lock()
	c.rounds[v] = 0
	c.mu.Unlock()
	for ; c.ctx.Err() == nil; c.pause() {
		for i := range c.fleet.nodes {
			if _, err := v.ask(c.ctx, i); err != nil {
				return fmt.Errorf("at instance %d: %w", i, err)
			}
		}
		c.mu.Lock()
		c.rounds[v]++
		c.mu.Unlock()
	}
	return nil
}

// runPassersBy runs one passer-by after another. Now and then, a late regular joins.
func (c *crowd) runPassersBy() error {
	for n := 0; c.ctx.Err() == nil; n++ {
		if n%10 == 5 && n/10 < crowdLateRegulars {
			c.running.Go(func() { c.check(c.join(fmt.Sprintf("late-regular-%d", n), n)) })
		}
		if _, err := c.fleet.visitor(fmt.Sprintf("passer-by-%d", n), n).logInAndOut(c.ctx, n); err != nil {
			return err
		}
		c.pause()
	}
	return nil
}

// awaitRounds waits until each current regular has done n more rounds.
func (c *crowd) awaitRounds(t testing.TB, n int) {
	t.Helper()
	var before map[*visitor]int
	eventually(t, "rounds of the regulars", func() bool {
		if err := context.Cause(c.ctx); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if before == nil && len(c.rounds) >= crowdRegulars {
			before = maps.Clone(c.rounds)
		}
		for v, rounds := range before {
			if c.rounds[v] < rounds+n {
				return false
			}
		}
		return before != nil
	})
}

// finish stops the crowd and fails the test if any answer was wrong.
func (c *crowd) finish(t testing.TB) {
	t.Helper()
	c.stop(errCrowdFinished)
	c.running.Wait()
	if err := context.Cause(c.ctx); !errors.Is(err, errCrowdFinished) {
		t.Fatal(err)
	}
}

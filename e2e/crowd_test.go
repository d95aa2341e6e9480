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
	// crowdRegulars come by all the time, from the beginning, crowdFriends from later on.
	crowdRegulars = 4
	crowdFriends  = 4
	// crowdPace is how long everybody waits between two rounds.
	crowdPace = 300 * time.Millisecond
)

// A crowd is load on a fleet in which no answer may be wrong: regulars, whose sessions go on, and passers-by, who log in,
// look round and log out.
type crowd struct {
	fleet   *fleet
	ctx     context.Context
	stop    context.CancelCauseFunc
	running sync.WaitGroup

	mu     sync.Mutex
	rounds map[*visitor]int // how often each regular has been at every instance
}

var errCrowdLeft = errors.New("the crowd was asked to leave")

func startCrowd(t testing.TB, f *fleet) *crowd {
	t.Helper()
	c := &crowd{fleet: f, rounds: map[*visitor]int{}}
	c.ctx, c.stop = context.WithCancelCause(t.Context())
	for i := range crowdRegulars {
		c.running.Go(func() { c.check(c.join(fmt.Sprintf("regular-%d", i), i)) })
	}
	c.running.Go(func() { c.check(c.passBy()) })
	t.Cleanup(func() {
		c.stop(errCrowdLeft)
		c.running.Wait()
	})
	return c
}

// check ends everything at the first error.
func (c *crowd) check(err error) {
	if err != nil {
		c.stop(err)
	}
}

func (c *crowd) wait() { // the pace of users, and nothing else waits for it
	select {
	case <-time.After(crowdPace):
	case <-c.ctx.Done():
	}
}

// join logs a regular in, who then comes by until the end.
func (c *crowd) join(name string, first int) error {
	v := c.fleet.visitor(name, first)
	if err := v.login(c.ctx, "/"); err != nil {
		return err
	}
	c.mu.Lock()
	c.rounds[v] = 0
	c.mu.Unlock()
	for ; c.ctx.Err() == nil; c.wait() {
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

// passBy is one passer-by after another. Now and then somebody stays.
func (c *crowd) passBy() error {
	for n := 0; c.ctx.Err() == nil; n++ {
		if n%10 == 5 && n/10 < crowdFriends {
			c.running.Go(func() { c.check(c.join(fmt.Sprintf("friend-%d", n), n)) })
		}
		if _, err := c.fleet.visitor(fmt.Sprintf("passer-by-%d", n), n).comeAndGo(c.ctx, n); err != nil {
			return err
		}
		c.wait()
	}
	return nil
}

// awaitRounds waits until everybody who is there has been at every instance n times more.
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

// leave ends the load. It is the test's error if any answer was wrong.
func (c *crowd) leave(t testing.TB) {
	t.Helper()
	c.stop(errCrowdLeft)
	c.running.Wait()
	if err := context.Cause(c.ctx); !errors.Is(err, errCrowdLeft) {
		t.Fatal(err)
	}
}

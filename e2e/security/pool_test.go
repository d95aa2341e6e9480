package security

import (
	"flag"
	"sync"
	"testing"
	"time"
)

// maxActive bounds the tests that run at the same time. Tests wait more than they compute, so four
// of them suit two processors.
const maxActive = 4

// active holds one element for each running test. Idle worlds and tests with plan.mostlyWaits
// hold none.
var active = make(chan struct{}, maxActive)

// letPoolsBoundParallelism raises the limit of -parallel. A test that waits for its turn counts
// against that limit, and could block the parallel subtests of a running test for ever.
func letPoolsBoundParallelism() error { return flag.Set("test.parallel", "1000") }

// awaitTurn makes a test parallel and waits until fewer than maxActive tests run. Call it before
// all other cleanups are registered: the turn ends after them.
func awaitTurn(t *testing.T) {
	t.Helper()
	t.Parallel()
	begun := time.Now()
	active <- struct{}{}
	t.Cleanup(func() { <-active })
	t.Logf("waited %v for its turn", time.Since(begun).Round(time.Millisecond)) // -v includes it in the test's time
}

// A worldPool keeps the worlds of one plan, so that tests need not start a Caddy each. One test
// at a time uses a world. If all worlds are in use, the pool starts one more: there are at most
// maxActive.
type worldPool struct {
	plan plan

	mu   sync.Mutex
	idle []*world
}

var (
	defaultPool = &worldPool{}
	redisPool   = &worldPool{plan: plan{redis: true}}
	barePool    = &worldPool{plan: plan{noBaseURL: true, moduleErrors: true}}
)

// shared returns a default world.
func shared(t *testing.T) *world {
	t.Helper()
	return defaultPool.take(t)
}

// sharedRedis returns a world with two instances that keep their sessions in Redis.
func sharedRedis(t *testing.T) *world {
	t.Helper()
	return redisPool.take(t)
}

// sharedBare returns a world without base_url, where the module makes the error pages.
func sharedBare(t *testing.T) *world {
	t.Helper()
	return barePool.take(t)
}

// newWorld starts a world for one test, which may stop or change its servers.
func newWorld(t *testing.T, p plan) *world {
	t.Helper()
	if p.mostlyWaits {
		t.Parallel()
	} else {
		awaitTurn(t)
	}
	w := startWorld(t, p)
	w.startTest(t)
	return w
}

// take returns a world that no other test uses until this test has ended. A test takes one world
// only: with two, tests could wait for each other.
func (p *worldPool) take(t *testing.T) *world {
	t.Helper()
	awaitTurn(t)
	w := p.popIdle()
	if w == nil {
		wholeSuite.run(func() { w = startWorld(wholeSuite, p.plan) })
	}
	if w == nil {
		t.Fatal("the shared world did not start")
	}
	t.Cleanup(func() { p.putBack(w) })
	w.startTest(t)
	return w
}

func (p *worldPool) popIdle() *world {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	w := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	return w
}

func (p *worldPool) putBack(w *world) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, w)
}

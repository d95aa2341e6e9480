package storetest

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// check is one sentence of the contract and the code that tries to refute it.
// It reports by error, not by testing.T, so that the tests of this package can
// see it refuse a broken store.
type check struct {
	name string
	rule string
	run  func(probe) error
}

// Run tests that the stores opened by open keep the contract of
// [session.Store]. Each subtest opens a store of its own; open registers what
// closes it with t.Cleanup. A store may hold other items before and during the
// test, as a shared server does: the IDs in use here are random.
//
// The promise that an acknowledged write survives a crash cannot be tested
// from inside the process and stays with the author of the store.
func Run(t *testing.T, open func(t *testing.T) session.Store) {
	for _, c := range allChecks() {
		t.Run(c.name, func(t *testing.T) {
			c.report(t, open(t))
		})
	}
}

// RunFakeTime tests how items age: that they stay until they expire, and that
// a write moves that moment. It opens each store inside a bubble of
// [testing/synctest], where an hour passes at once. The store must be closed
// by a t.Cleanup of open, must tell the time with [time.Now], and must not
// wait for the network.
func RunFakeTime(t *testing.T, open func(t *testing.T) session.Store) {
	for _, c := range agingChecks {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.report(t, open(t))
			})
		})
	}
}

// allChecks returns the checks that need no fake time.
func allChecks() []check {
	return slices.Concat(viewChecks, writeChecks, expiryChecks, concurrencyChecks)
}

func (c check) report(t *testing.T, store session.Store) {
	t.Helper()
	if err := c.run(newProbe(store)); err != nil {
		t.Errorf("%v\nbroken rule: %s", err, c.rule)
	}
}

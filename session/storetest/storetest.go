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
// [session.Store], and that of [session.SharedStore] if they are of that kind.
// Each subtest opens a store of its own; open registers what closes it with
// t.Cleanup, and leaves Watch to the test. A store may hold other items before
// and during the test, as a shared server does: the IDs in use here are random.
//
// The promise that an acknowledged write survives a crash cannot be tested
// from inside the process and stays with the author of the store.
func Run(t *testing.T, open func(t *testing.T) session.Store) {
	for _, c := range allChecks() {
		t.Run(c.name, func(t *testing.T) { c.report(t, newProbe(open(t))) })
	}
	if _, shared := open(t).(session.SharedStore); shared {
		t.Run("shared", func(t *testing.T) { runShared(t, alone(open)) })
	}
}

// RunShared tests what processes that share their data promise each other. Each
// subtest opens two stores on the same data, as two processes would; open
// registers what closes them with t.Cleanup, and leaves Watch to the test. It
// comes on top of [Run].
//
// Two promises need time to pass, and stay with the author of a store that does
// not pass [RunFakeTime]: a note is returned for a minute, and a lease lasts as
// long as its item, however often Replace moves that time. So does the demand
// that a lease be kept apart from its item, so that Acquire, Beat and Release
// do not make any process drop its copy of the item.
func RunShared(t *testing.T, open func(t *testing.T) (a, b session.SharedStore)) {
	for _, c := range allChecks() {
		t.Run("copies/"+c.name, func(t *testing.T) {
			p := newSharedProbe(open(t))
			p.store = settled{Store: p.a, reader: p.b}
			c.report(t, p)
		})
	}
	runShared(t, open)
}

func runShared(t *testing.T, open func(t *testing.T) (a, b session.SharedStore)) {
	for _, c := range allChecks() {
		t.Run("current/"+c.name, func(t *testing.T) { c.report(t, newSharedProbe(open(t))) })
	}
	for _, c := range sharedChecks() {
		t.Run(c.name, func(t *testing.T) { c.report(t, newSharedProbe(open(t))) })
	}
}

// RunFakeTime tests how items age: that they stay until they expire, and that
// a write moves that moment; and with a [session.SharedStore] how leases and
// notes do. It opens each store inside a bubble of [testing/synctest], where an
// hour passes at once. The store must be closed by a t.Cleanup of open, must
// tell the time with [time.Now], and must not wait for the network.
func RunFakeTime(t *testing.T, open func(t *testing.T) session.Store) {
	for _, c := range agingChecks {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.report(t, newProbe(open(t))) })
		})
	}
	var shared bool
	synctest.Test(t, func(t *testing.T) { _, shared = open(t).(session.SharedStore) })
	if !shared {
		return
	}
	for _, c := range sharedAgingChecks {
		t.Run("shared/"+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.report(t, newSharedProbe(alone(open)(t))) })
		})
	}
}

// alone lets one process play both parts.
func alone(open func(t *testing.T) session.Store) func(t *testing.T) (a, b session.SharedStore) {
	return func(t *testing.T) (a, b session.SharedStore) {
		s, ok := open(t).(session.SharedStore)
		if !ok {
			t.Fatal("open returns shared stores and others")
		}
		return s, s
	}
}

// allChecks returns the checks of every store that need no fake time.
func allChecks() []check {
	return slices.Concat(viewChecks, writeChecks, tagChecks, expiryChecks, concurrencyChecks)
}

// sharedChecks returns the checks of shared stores that need no fake time.
func sharedChecks() []check {
	return slices.Concat(watchChecks, leaseChecks, endChecks, leaseRaceChecks, noteChecks)
}

func (c check) report(t *testing.T, p probe) {
	t.Helper()
	if err := c.run(p); err != nil {
		t.Errorf("%v\nbroken rule: %s", err, c.rule)
	}
}

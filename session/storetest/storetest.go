package storetest

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// check is one rule of the contract with its test. It returns an error instead of using
// testing.T, so that the tests of this package can run it on a broken store.
type check struct {
	name string
	rule string
	run  func(probe) error
}

// Run tests that a store keeps the contract of [session.Store], and that of
// [session.SharedStore] if it implements it. Each subtest opens a store. The function
// open registers its Close with t.Cleanup, and does not call Watch. A store may have
// other items before and during the test, as a shared server does: the IDs of the test
// are random.
//
// A process cannot test that its own acknowledged writes survive a crash. The author of
// the store tests that.
func Run(t *testing.T, open func(t *testing.T) session.Store) {
	for _, c := range allChecks() {
		t.Run(c.name, func(t *testing.T) { c.report(t, newProbe(open(t))) })
	}
	if _, shared := open(t).(session.SharedStore); shared {
		t.Run("shared", func(t *testing.T) { runShared(t, sameStoreTwice(open)) })
	}
}

// RunShared tests the contract of [session.SharedStore] between two processes. Each
// subtest opens two stores on the same data, as two processes would. The function open
// registers their Close with t.Cleanup, and does not call Watch. Call [Run] as well.
//
// Some rules need time to pass. The author of a store that cannot use [RunFakeTime]
// tests them: Announce returns an announcement for a minute, and a lease lasts as long as
// its item, however often Replace moves Expires. The author also tests that a lease is
// stored apart from its item, so that Acquire, Beat and Release make no process drop its
// copy of the item.
func RunShared(t *testing.T, open func(t *testing.T) (a, b session.SharedStore)) {
	for _, c := range allChecks() {
		t.Run("copies/"+c.name, func(t *testing.T) {
			p := newSharedProbe(open(t))
			p.store = copyReader{Store: p.a, reader: p.b}
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

// RunFakeTime tests that items stay until they expire, and that a write moves that time.
// With a [session.SharedStore] it also tests the life of leases and announcements. It
// opens each store inside a bubble of [testing/synctest], where an hour passes at once.
// The function open must register Close with t.Cleanup. The store must use [time.Now]
// and must not wait for the network.
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
			synctest.Test(t, func(t *testing.T) { c.report(t, newSharedProbe(sameStoreTwice(open)(t))) })
		})
	}
}

// sameStoreTwice makes one store both processes of a shared check.
func sameStoreTwice(open func(t *testing.T) session.Store) func(t *testing.T) (a, b session.SharedStore) {
	return func(t *testing.T) (a, b session.SharedStore) {
		s, ok := open(t).(session.SharedStore)
		if !ok {
			t.Fatal("open returned a session.SharedStore before and now another type")
		}
		return s, s
	}
}

// allChecks returns the checks of all stores, without those that need fake time.
func allChecks() []check {
	return slices.Concat(viewChecks, writeChecks, tagChecks, listChecks, labelChecks, expiryChecks, concurrencyChecks)
}

// sharedChecks returns the checks of shared stores, without those that need fake time.
func sharedChecks() []check {
	return slices.Concat(watchChecks, leaseChecks, endChecks, leaseRaceChecks, announceChecks)
}

func (c check) report(t *testing.T, p probe) {
	t.Helper()
	if err := c.run(p); err != nil {
		t.Errorf("%v\nbroken rule: %s", err, c.rule)
	}
}

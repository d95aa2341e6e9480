package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/oauth-session/caddy-oauth-session/session"
)

var leaseChecks = []check{
	{
		"Acquire/free",
		"Acquire gives a free lease to holder, with beat 0. All processes see it.",
		acquireFree,
	},
	{
		"Acquire/held",
		"Acquire of a held lease returns ErrLeased with the current lease, also to its holder, and changes nothing.",
		acquireHeld,
	},
	{
		"Acquire/missing",
		"Acquire returns ErrNotFound if there is no item.",
		acquireMissing,
	},
	{
		"Acquire/other version",
		"Acquire returns ErrConflict if the item has another version, even if the lease is held, and changes nothing.",
		acquireOtherVersion,
	},
	{
		"Acquire/as seen",
		"Acquire takes over a lease that is equal to seen. The lease then has the new holder and beat 0.",
		acquireAsSeen,
	},
	{
		"Acquire/other than seen",
		"Acquire takes over no lease that has another holder or another beat than seen.",
		acquireOtherThanSeen,
	},
	{
		"Acquire/ids",
		"Each session has its own lease: all bytes of the ID count.",
		acquireIDs,
	},
	{
		"Acquire/item",
		"Acquire, Beat and Release do not change the item.",
		leaseKeepsItem,
	},
	{
		"Replace/lease",
		"A lease lasts until it is released or its item is gone: Replace does not change it.",
		replaceKeepsLease,
	},
	{
		"Beat/holder",
		"Beat raises the beat of a lease. All processes see it.",
		beatRaises,
	},
	{
		"Beat/late",
		"Beat raises the beat: a late call with a lower beat does not lower it.",
		beatLate,
	},
	{
		"Beat/not the holder",
		"Beat returns ErrConflict if the holder does not hold the lease, or no longer holds it, and changes nothing.",
		beatNotHolder,
	},
	{
		"Release/holder",
		"Release frees the lease if holder has it.",
		releaseFrees,
	},
	{
		"Release/not the holder",
		"If holder does not have the lease, Release does nothing and returns nil.",
		releaseNotHolder,
	},
	{
		"shared context",
		"All methods honour the deadline of their context. Their error is then neither ErrNotFound nor ErrConflict nor ErrLeased.",
		sharedEndedContext,
	},
}

// held creates an item, acquires its lease as process a, and raises it to the given beat.
func (p probe) held(beat uint64) (session.ID, session.Lease, error) {
	id, lease := newID(), session.Lease{Holder: newHolder()}
	err := errors.Join(p.creates(id, p.item(1, "first")), p.a.acquires(id, 1, lease.Holder, session.Lease{}))
	if lease.Beat = beat; beat > 0 {
		err = errors.Join(err, p.a.beats(id, lease))
	}
	return id, lease, err
}

func acquireFree(p probe) error {
	return p.both(func(s peer) error {
		id, h := newID(), newHolder()
		return errors.Join(
			p.creates(id, p.item(1, "first")),
			s.acquires(id, 1, h, session.Lease{}),
			p.leaseIs(id, 1, session.Lease{Holder: h}),
		)
	})
}

func acquireHeld(p probe) error {
	id, lease, err := p.held(0)
	return errors.Join(err, p.both(func(s peer) error {
		got, err := s.Acquire(p.ctx, id, 1, lease.Holder, session.Lease{})
		if got != lease {
			return fmt.Errorf("Acquire by the holder: got %s, want %s", leaseText(got), leaseText(lease))
		}
		return errors.Join(
			wantErr("Acquire by the holder", err, session.ErrLeased),
			p.leaseIs(id, 1, lease),
			s.beats(id, lease),
		)
	}))
}

func acquireMissing(p probe) error {
	id, expired, deleted := newID(), newID(), newID()
	return errors.Join(
		p.creates(expired, p.expired(1)),
		p.creates(deleted, p.item(1, "first")),
		p.deletes(deleted),
		p.both(func(s peer) error {
			return errors.Join(
				s.acquireFails(id, 0, session.ErrNotFound),
				s.acquireFails(id, 1, session.ErrNotFound),
				s.acquireFails(expired, 1, session.ErrNotFound),
				s.acquireFails(deleted, 1, session.ErrNotFound),
			)
		}),
		p.creates(deleted, p.item(1, "again")),
		p.leaseFree(deleted, 1),
	)
}

func acquireOtherVersion(p probe) error {
	id, h := newID(), newHolder()
	errs := []error{
		p.creates(id, p.item(1, "first")),
		p.replaces(id, p.item(2, "second")),
		p.replaces(id, p.item(3, "third")),
	}
	others := func(s peer) error {
		var errs []error
		for _, version := range []uint64{0, 1, 2, 4, 5, 259, math.MaxUint64} {
			errs = append(errs, s.acquireFails(id, version, session.ErrConflict))
		}
		return errors.Join(errs...)
	}
	errs = append(errs,
		p.both(others),
		p.leaseFree(id, 3),
		p.b.acquires(id, 3, h, session.Lease{}),
		p.both(others),
		p.leaseIs(id, 3, session.Lease{Holder: h}),
	)
	return errors.Join(errs...)
}

func acquireAsSeen(p probe) error {
	var errs []error
	for _, beat := range []uint64{0, 1, 7, 1 << 40} {
		id, old, err := p.held(beat)
		second, third := session.Lease{Holder: newHolder()}, session.Lease{Holder: newHolder()}
		errs = append(errs, err,
			p.b.acquires(id, 1, second.Holder, old),
			p.leaseIs(id, 1, second),
			p.a.acquires(id, 1, third.Holder, second),
			p.leaseIs(id, 1, third),
		)
	}
	return errors.Join(errs...)
}

func acquireOtherThanSeen(p probe) error {
	id, lease, err := p.held(7)
	errs := []error{err}
	for _, seen := range []session.Lease{
		{},
		{Beat: 7},
		{Holder: newHolder(), Beat: 7},
		{Holder: lease.Holder, Beat: 0},
		{Holder: lease.Holder, Beat: 6},
		{Holder: lease.Holder, Beat: 8},
		{Holder: lease.Holder, Beat: 7 + 256},
	} {
		errs = append(errs,
			p.both(func(s peer) error { return s.leased(id, 1, lease, seen) }),
			p.leaseIs(id, 1, lease))
	}
	// A free lease does not have to be equal to seen.
	errs = append(errs,
		p.a.releases(id, lease.Holder),
		p.b.acquires(id, 1, newHolder(), session.Lease{Holder: lease.Holder, Beat: 6}))
	return errors.Join(errs...)
}

func acquireIDs(p probe) error {
	first, h := newID(), newHolder()
	second, third := first, first
	second[0] ^= 1
	third[len(third)-1] ^= 1
	errs := []error{}
	for _, id := range []session.ID{first, second, third} {
		errs = append(errs, p.creates(id, p.item(1, "first")))
	}
	errs = append(errs,
		p.a.acquires(first, 1, h, session.Lease{}),
		p.leaseFree(second, 1),
		p.leaseFree(third, 1),
		p.leaseIs(first, 1, session.Lease{Holder: h}),
	)
	return errors.Join(errs...)
}

func leaseKeepsItem(p probe) error {
	id, item, h := newID(), p.item(1, "first"), newHolder()
	item.Expires = p.hours(9)
	lease := session.Lease{Holder: h}
	next := session.Lease{Holder: newHolder()}
	return errors.Join(
		p.creates(id, item),
		p.a.acquires(id, 1, h, session.Lease{}),
		p.holds(id, item),
		p.a.beats(id, session.Lease{Holder: h, Beat: 1}),
		p.a.beats(id, session.Lease{Holder: h, Beat: 2}),
		p.holds(id, item),
		p.leaseIs(id, 1, session.Lease{Holder: h, Beat: 2}),
		p.b.acquires(id, 1, next.Holder, session.Lease{Holder: lease.Holder, Beat: 2}),
		p.holds(id, item),
		p.b.releases(id, next.Holder),
		p.holds(id, item),
		p.replaces(id, p.item(2, "second")),
		p.holds(id, p.item(2, "second")),
	)
}

func replaceKeepsLease(p probe) error {
	id, lease, err := p.held(1)
	raised := session.Lease{Holder: lease.Holder, Beat: 2}
	later := p.item(3, "third")
	later.Expires = p.hours(9)
	return errors.Join(err,
		p.replaces(id, p.item(2, "second")),
		p.leaseIs(id, 2, lease),
		p.a.beats(id, raised),
		p.replaces(id, later),
		p.leaseIs(id, 3, raised),
		p.a.releases(id, lease.Holder),
		p.leaseFree(id, 3),
	)
}

func beatRaises(p probe) error {
	id, lease, err := p.held(0)
	errs := []error{err}
	for _, lease.Beat = range []uint64{1, 2, 3, 300, 1 << 40} {
		errs = append(errs, p.a.beats(id, lease), p.leaseIs(id, 1, lease))
	}
	return errors.Join(errs...)
}

func beatLate(p probe) error {
	id, lease, err := p.held(12)
	for _, beat := range []uint64{0, 9, 11} {
		// The contract does not define the error of a late call.
		_ = p.a.Beat(p.ctx, id, session.Lease{Holder: lease.Holder, Beat: beat})
	}
	return errors.Join(err, p.leaseIs(id, 1, lease))
}

func beatNotHolder(p probe) error {
	id, old, err := p.held(1)
	next, gone := session.Lease{Holder: newHolder()}, newID()
	errs := []error{
		err,
		p.b.beatConflicts(id, session.Lease{Holder: newHolder(), Beat: 2}),
		p.leaseIs(id, 1, old),
		// After a takeover.
		p.b.acquires(id, 1, next.Holder, old),
		p.a.beatConflicts(id, session.Lease{Holder: old.Holder, Beat: 2}),
		p.leaseIs(id, 1, next),
		// After a release.
		p.b.releases(id, next.Holder),
		p.b.beatConflicts(id, session.Lease{Holder: next.Holder, Beat: 2}),
		p.leaseFree(id, 1),
		// After Delete, and after Create of a new item under the ID.
		p.a.acquires(id, 1, old.Holder, session.Lease{}),
		p.deletes(id),
		p.a.beatConflicts(id, session.Lease{Holder: old.Holder, Beat: 2}),
		p.lacks(id),
		p.creates(id, p.item(1, "again")),
		p.a.beatConflicts(id, session.Lease{Holder: old.Holder, Beat: 2}),
		p.leaseFree(id, 1),
		// Without an item.
		p.a.beatConflicts(gone, old),
		p.lacks(gone),
	}
	return errors.Join(errs...)
}

func releaseFrees(p probe) error {
	id, lease, err := p.held(3)
	return errors.Join(err,
		p.a.releases(id, lease.Holder),
		p.leaseFree(id, 1),
		p.b.acquires(id, 1, newHolder(), session.Lease{}),
	)
}

func releaseNotHolder(p probe) error {
	id, old, err := p.held(1)
	next := session.Lease{Holder: newHolder()}
	return errors.Join(err,
		p.b.releases(id, newHolder()),
		p.leaseIs(id, 1, old),
		// After a takeover.
		p.b.acquires(id, 1, next.Holder, old),
		p.a.releases(id, old.Holder),
		p.leaseIs(id, 1, next),
		// Late, after the same process has acquired the lease again.
		p.b.releases(id, next.Holder),
		p.b.acquires(id, 1, old.Holder, session.Lease{}),
		p.b.releases(id, next.Holder),
		p.leaseIs(id, 1, session.Lease{Holder: old.Holder}),
		// Twice, and without an item.
		p.b.releases(id, old.Holder),
		p.b.releases(id, old.Holder),
		p.a.releases(newID(), old.Holder),
		p.leaseFree(id, 1),
		p.holds(id, p.item(1, "first")),
	)
}

func sharedEndedContext(p probe) error {
	id, lease, err := p.held(0)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(p.ctx)
	cancel()
	acquire := func(id session.ID, version uint64) error {
		_, err := p.a.Acquire(ctx, id, version, newHolder(), session.Lease{})
		return err
	}
	_, announced := p.a.Announce(ctx, session.Topic(newID()), newHolder(), []byte("text"))
	return endedCalls(map[string]error{
		"ViewCurrent":              p.a.ViewCurrent(ctx, id, func(session.Item) error { return nil }),
		"ViewCurrent of no item":   p.a.ViewCurrent(ctx, newID(), func(session.Item) error { return nil }),
		"Acquire":                  acquire(id, 1),
		"Acquire of other version": acquire(id, 2),
		"Acquire of no item":       acquire(newID(), 1),
		"Beat":                     p.a.Beat(ctx, id, lease),
		"Beat of another":          p.a.Beat(ctx, id, session.Lease{Holder: newHolder()}),
		"Release":                  p.a.Release(ctx, id, newHolder()),
		"DeleteAt":                 p.a.DeleteAt(ctx, newID(), 1, session.Holder{}),
		"Announce":                 announced,
	})
}

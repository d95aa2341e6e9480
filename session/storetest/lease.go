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
		"Acquire gives a free lease to holder, with beat 0; every process sees it.",
		acquireFree,
	},
	{
		"Acquire/held",
		"Acquire of a held lease returns ErrLeased and the lease as it is, to its own holder too, and changes nothing.",
		acquireHeld,
	},
	{
		"Acquire/missing",
		"Acquire returns ErrNotFound if there is no item.",
		acquireMissing,
	},
	{
		"Acquire/other version",
		"Acquire returns ErrConflict if the item has another version, whether or not the lease is free, and changes nothing.",
		acquireOtherVersion,
	},
	{
		"Acquire/as seen",
		"Acquire takes over a lease that is still exactly what was seen; it then has the new holder, and beat 0.",
		acquireAsSeen,
	},
	{
		"Acquire/seen otherwise",
		"Acquire takes over nothing that has another holder or another beat than was seen.",
		acquireSeenOtherwise,
	},
	{
		"Acquire/each its own",
		"Each session has a lease of its own.",
		acquireEachItsOwn,
	},
	{
		"Acquire/item",
		"Acquire, Beat and Release do not change the item.",
		leaseKeepsItem,
	},
	{
		"Replace/lease",
		"A lease lasts until it is released or its item is gone: Replace leaves it as it is.",
		replaceKeepsLease,
	},
	{
		"Beat/holder",
		"Beat raises the beat of a lease; every process sees it.",
		beatRaises,
	},
	{
		"Beat/late",
		"Beat raises the beat: an earlier one that comes late does not lower it.",
		beatLate,
	},
	{
		"Beat/not the holder",
		"Beat returns ErrConflict if the lease is not the holder's (any more), and changes nothing.",
		beatNotHolder,
	},
	{
		"Release/holder",
		"Release frees the lease if holder has it.",
		releaseFrees,
	},
	{
		"Release/not the holder",
		"If holder does not have the lease, Release does nothing, which is no error.",
		releaseNotHolder,
	},
	{
		"shared context",
		"All methods honour the deadline of their context; an ended context is none of the answers.",
		sharedEndedContext,
	},
}

// held creates an item whose lease is held, and beats it to the given beat.
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
			return fmt.Errorf("Acquire by the holder: shows %s, want %s", leaseText(got), leaseText(lease))
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

func acquireSeenOtherwise(p probe) error {
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
	// Freed meanwhile: what was seen is no condition then.
	errs = append(errs,
		p.a.releases(id, lease.Holder),
		p.b.acquires(id, 1, newHolder(), session.Lease{Holder: lease.Holder, Beat: 6}))
	return errors.Join(errs...)
}

func acquireEachItsOwn(p probe) error {
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
		// What it answers does not matter: nobody waits for it any more.
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
		// Taken over.
		p.b.acquires(id, 1, next.Holder, old),
		p.a.beatConflicts(id, session.Lease{Holder: old.Holder, Beat: 2}),
		p.leaseIs(id, 1, next),
		// Released.
		p.b.releases(id, next.Holder),
		p.b.beatConflicts(id, session.Lease{Holder: next.Holder, Beat: 2}),
		p.leaseFree(id, 1),
		// Removed, and come again as another session.
		p.a.acquires(id, 1, old.Holder, session.Lease{}),
		p.deletes(id),
		p.a.beatConflicts(id, session.Lease{Holder: old.Holder, Beat: 2}),
		p.lacks(id),
		p.creates(id, p.item(1, "again")),
		p.a.beatConflicts(id, session.Lease{Holder: old.Holder, Beat: 2}),
		p.leaseFree(id, 1),
		// Never there.
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
		// Taken over.
		p.b.acquires(id, 1, next.Holder, old),
		p.a.releases(id, old.Holder),
		p.leaseIs(id, 1, next),
		// Late, when the same process has acquired it once more.
		p.b.releases(id, next.Holder),
		p.b.acquires(id, 1, old.Holder, session.Lease{}),
		p.b.releases(id, next.Holder),
		p.leaseIs(id, 1, session.Lease{Holder: old.Holder}),
		// Twice, and of what is not there.
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
	_, announced := p.a.Announce(ctx, session.Topic(newID()), newHolder(), []byte("note"))
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

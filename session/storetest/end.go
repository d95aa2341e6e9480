package storetest

import (
	"errors"
	"math"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// endChecks test that a lease ends with its item.
var endChecks = []check{
	{
		"DeleteAt/holder",
		"DeleteAt removes the item if it has the given version and holder has the lease.",
		deleteAtHolder,
	},
	{
		"DeleteAt/any holder",
		"The zero Holder of DeleteAt matches every state of the lease.",
		deleteAtAnyHolder,
	},
	{
		"DeleteAt/other version",
		"DeleteAt returns ErrConflict if the item has another version, and changes nothing.",
		deleteAtOtherVersion,
	},
	{
		"DeleteAt/other holder",
		"DeleteAt returns ErrConflict if holder does not have the lease, and changes nothing.",
		deleteAtOtherHolder,
	},
	{
		"DeleteAt/missing",
		"DeleteAt returns ErrConflict if there is no item.",
		deleteAtMissing,
	},
	{
		"DeleteAt/lease",
		"DeleteAt removes the lease with the item: the lease of a new item under the ID is free.",
		func(p probe) error {
			return p.endsLease(func(id session.ID, h session.Holder) error { return p.b.deletesAt(id, 1, h) })
		},
	},
	{
		"DeleteAt/lease of another",
		"DeleteAt with the zero Holder removes the lease with the item.",
		func(p probe) error {
			return p.endsLease(func(id session.ID, _ session.Holder) error { return p.b.deletesAt(id, 1, session.Holder{}) })
		},
	},
	{
		"Delete/lease",
		"Delete also removes the lease: the lease of a new item under the ID is free.",
		func(p probe) error {
			return p.endsLease(func(id session.ID, _ session.Holder) error { return p.deletes(id) })
		},
	},
	{
		"expired/lease",
		"A lease ends with its item, also if the item expires: the lease of a new item under the ID is free.",
		func(p probe) error {
			return p.endsLease(func(id session.ID, _ session.Holder) error { return p.replaces(id, p.expired(2)) })
		},
	},
	{
		"expired/DeleteAt",
		"An expired item is gone: DeleteAt returns ErrConflict.",
		deleteAtExpired,
	},
}

func deleteAtHolder(p probe) error {
	id, lease, err := p.held(5)
	other := newID()
	return errors.Join(err,
		p.creates(other, p.item(1, "other")),
		p.replaces(id, p.item(2, "second")),
		p.b.deletesAt(id, 2, lease.Holder),
		p.lacks(id),
		p.replaceConflicts(id, p.item(3, "third")),
		p.holds(other, p.item(1, "other")),
	)
}

func deleteAtAnyHolder(p probe) error {
	free := newID()
	held, _, err := p.held(5)
	return errors.Join(err,
		p.creates(free, p.item(1, "first")),
		p.b.deletesAt(free, 1, session.Holder{}),
		p.lacks(free),
		p.b.deletesAt(held, 1, session.Holder{}),
		p.lacks(held),
	)
}

func deleteAtOtherVersion(p probe) error {
	id, lease, err := p.held(5)
	errs := []error{err, p.replaces(id, p.item(2, "second")), p.replaces(id, p.item(3, "third"))}
	for _, version := range []uint64{0, 1, 2, 4, 259, math.MaxUint64} {
		errs = append(errs,
			p.b.deleteAtConflicts(id, version, session.Holder{}),
			p.b.deleteAtConflicts(id, version, lease.Holder))
	}
	errs = append(errs, p.holds(id, p.item(3, "third")), p.leaseIs(id, 3, lease))
	return errors.Join(errs...)
}

func deleteAtOtherHolder(p probe) error {
	id, old, err := p.held(5)
	next := session.Lease{Holder: newHolder()}
	return errors.Join(err,
		p.b.deleteAtConflicts(id, 1, newHolder()),
		p.leaseIs(id, 1, old),
		// After a takeover.
		p.b.acquires(id, 1, next.Holder, old),
		p.a.deleteAtConflicts(id, 1, old.Holder),
		p.leaseIs(id, 1, next),
		// After a release.
		p.b.releases(id, next.Holder),
		p.b.deleteAtConflicts(id, 1, next.Holder),
		p.leaseFree(id, 1),
		p.holds(id, p.item(1, "first")),
	)
}

func deleteAtMissing(p probe) error {
	var errs []error
	for _, version := range []uint64{0, 1, 2} {
		for _, h := range []session.Holder{{}, newHolder()} {
			errs = append(errs, p.a.deleteAtConflicts(newID(), version, h))
		}
	}
	id, lease, err := p.held(0)
	errs = append(errs, err,
		p.b.deletesAt(id, 1, lease.Holder),
		p.a.deleteAtConflicts(id, 1, lease.Holder),
		p.a.deleteAtConflicts(id, 1, session.Holder{}))
	return errors.Join(errs...)
}

func deleteAtExpired(p probe) error {
	id, lease, err := p.held(0)
	return errors.Join(err,
		p.replaces(id, p.expired(2)),
		p.a.deleteAtConflicts(id, 2, lease.Holder),
		p.a.deleteAtConflicts(id, 2, session.Holder{}),
		p.lacks(id),
	)
}

// endsLease checks that a lease is gone after its item has ended.
func (p probe) endsLease(end func(id session.ID, holder session.Holder) error) error {
	id, lease, err := p.held(5)
	if err := errors.Join(err, end(id, lease.Holder), p.creates(id, p.item(1, "again"))); err != nil {
		return err
	}
	return errors.Join(
		p.a.beatConflicts(id, session.Lease{Holder: lease.Holder, Beat: 6}),
		p.a.deleteAtConflicts(id, 1, lease.Holder),
		p.leaseFree(id, 1),
		p.holds(id, p.item(1, "again")),
	)
}

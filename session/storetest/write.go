package storetest

import (
	"errors"
	"math"
)

var writeChecks = []check{
	{
		"Create/twice",
		"Create returns ErrConflict if the ID has an item.",
		createTwice,
	},
	{
		"Create/after Delete",
		"Create stores a new item, also under an ID that was deleted before.",
		createAfterDelete,
	},
	{
		"Create/copy",
		"The store copies Value: the caller may change its slice after Create has returned.",
		createCopies,
	},
	{
		"Replace/next",
		"Replace overwrites the item under id if its version is item.Version-1.",
		replaceNext,
	},
	{
		"Replace/other version",
		"Replace returns ErrConflict if the version is not item.Version-1, and changes nothing.",
		replaceOtherVersion,
	},
	{
		"Replace/missing",
		"Replace returns ErrConflict if there is no item.",
		replaceMissing,
	},
	{
		"Replace/after Delete",
		"A write never restores a deleted item.",
		replaceAfterDelete,
	},
	{
		"Replace/copy",
		"The store copies Value: the caller may change its slice after Replace has returned.",
		replaceCopies,
	},
	{
		"Delete/any version",
		"Delete removes the item, whatever its version.",
		deleteAnyVersion,
	},
	{
		"Delete/missing",
		"Deleting a missing item is no error.",
		deleteMissing,
	},
}

func createTwice(p probe) error {
	id, item := newID(), p.item(1, "first")
	return errors.Join(
		p.creates(id, item),
		p.createConflicts(id, item),
		p.createConflicts(id, p.item(1, "second")),
		p.createConflicts(id, p.item(2, "next version")),
		p.holds(id, item),
	)
}

func createAfterDelete(p probe) error {
	id, again := newID(), p.item(1, "again")
	return errors.Join(
		p.creates(id, p.item(1, "first")),
		p.deletes(id),
		p.creates(id, again),
		p.holds(id, again),
		p.replaces(id, p.item(2, "next")),
		p.holds(id, p.item(2, "next")),
	)
}

func createCopies(p probe) error {
	id, item := newID(), p.item(1, "value")
	err := p.creates(id, item)
	clear(item.Value)
	return errors.Join(err, p.holds(id, p.item(1, "value")))
}

func replaceNext(p probe) error {
	id := newID()
	last := p.item(4, "fourth")
	last.Expires = p.hours(9)
	return errors.Join(
		p.creates(id, p.item(1, "first")),
		p.replaces(id, p.item(2, "second")),
		p.holds(id, p.item(2, "second")),
		p.replaces(id, p.item(3, "third")),
		p.replaces(id, last),
		p.holds(id, last),
	)
}

func replaceOtherVersion(p probe) error {
	id := newID()
	errs := []error{
		p.creates(id, p.item(1, "first")),
		p.replaces(id, p.item(2, "second")),
		p.replaces(id, p.item(3, "third")),
	}
	for _, version := range []uint64{0, 1, 2, 3, 5, 6, 260, math.MaxUint64} {
		errs = append(errs,
			p.replaceConflicts(id, p.item(version, "stray")),
			p.holds(id, p.item(3, "third")))
	}
	return errors.Join(errs...)
}

func replaceMissing(p probe) error {
	var errs []error
	for _, version := range []uint64{0, 1, 2, 7} {
		id := newID()
		errs = append(errs, p.replaceConflicts(id, p.item(version, "value")), p.lacks(id))
	}
	return errors.Join(errs...)
}

func replaceAfterDelete(p probe) error {
	id := newID()
	return errors.Join(
		p.creates(id, p.item(1, "first")),
		p.replaces(id, p.item(2, "second")),
		p.deletes(id),
		p.replaceConflicts(id, p.item(3, "third")),
		p.replaceConflicts(id, p.item(1, "restart")),
		p.lacks(id),
	)
}

func replaceCopies(p probe) error {
	id, item := newID(), p.item(2, "value")
	err := errors.Join(p.creates(id, p.item(1, "first")), p.replaces(id, item))
	clear(item.Value)
	return errors.Join(err, p.holds(id, p.item(2, "value")))
}

func deleteAnyVersion(p probe) error {
	first, third, other := newID(), newID(), newID()
	return errors.Join(
		p.creates(first, p.item(1, "first")),
		p.creates(other, p.item(1, "other")),
		p.creates(third, p.item(1, "first")),
		p.replaces(third, p.item(2, "second")),
		p.replaces(third, p.item(3, "third")),
		p.deletes(first),
		p.lacks(first),
		p.deletes(third),
		p.lacks(third),
		p.holds(other, p.item(1, "other")),
	)
}

func deleteMissing(p probe) error {
	id := newID()
	return errors.Join(
		p.deletes(id),
		p.creates(id, p.item(1, "value")),
		p.deletes(id),
		p.deletes(id),
		p.lacks(id),
	)
}

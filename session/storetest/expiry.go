package storetest

import (
	"errors"
	"fmt"
	"time"
)

var expiryChecks = []check{
	{
		"expired/View",
		"An item is gone once Expires has passed, whether or not it was collected.",
		expiredView,
	},
	{
		"expired/Create",
		"An expired item is no obstacle to Create.",
		expiredCreate,
	},
	{
		"expired/Replace",
		"An expired item is gone: Replace returns ErrConflict.",
		expiredReplace,
	},
}

// agingChecks let time pass: they run in a bubble of testing/synctest.
var agingChecks = []check{
	{
		"expires on time",
		"An item stays until Expires and is gone after it.",
		expiresOnTime,
	},
	{
		"Replace moves Expires",
		"Replace overwrites the item, and with it the time when it expires.",
		replaceMovesExpires,
	},
	{
		"outlives a sweep",
		"Collecting garbage takes no item before its time.",
		outlivesSweep,
	},
}

func expiredView(p probe) error {
	fresh, replaced := newID(), newID()
	return errors.Join(
		p.creates(fresh, p.expired(1)),
		p.lacks(fresh),
		p.creates(replaced, p.item(1, "first")),
		p.replaces(replaced, p.expired(2)),
		p.lacks(replaced),
		p.deletes(replaced),
	)
}

func expiredCreate(p probe) error {
	id, item := newID(), p.item(1, "new")
	return errors.Join(
		p.creates(id, p.expired(1)),
		p.creates(id, item),
		p.holds(id, item),
		p.createConflicts(id, item),
	)
}

func expiredReplace(p probe) error {
	id := newID()
	return errors.Join(
		p.creates(id, p.expired(1)),
		p.replaceConflicts(id, p.item(2, "too late")),
		p.lacks(id),
	)
}

func expiresOnTime(p probe) error {
	id, item := newID(), p.item(1, "value")
	errs := []error{p.creates(id, item)}
	time.Sleep(time.Until(item.Expires) - time.Second)
	errs = append(errs, p.holds(id, item))
	time.Sleep(2 * time.Second)
	errs = append(errs, p.lacks(id), p.replaceConflicts(id, p.item(2, "too late")))
	return errors.Join(errs...)
}

func replaceMovesExpires(p probe) error {
	longer, shorter := newID(), newID()
	long, short := p.item(2, "long"), p.item(2, "short")
	long.Expires, short.Expires = p.hours(30), p.hours(2)
	first := p.item(1, "first")
	first.Expires = p.hours(10)
	errs := []error{
		p.creates(longer, first), p.replaces(longer, long),
		p.creates(shorter, first), p.replaces(shorter, short),
	}
	time.Sleep(3 * time.Hour)
	errs = append(errs, p.lacks(shorter))
	time.Sleep(26 * time.Hour)
	errs = append(errs, p.holds(longer, long))
	time.Sleep(2 * time.Hour)
	errs = append(errs, p.lacks(longer))
	return errors.Join(errs...)
}

// outlivesSweep looks once an hour, and touches the item as a used session
// does, so that whatever collects garbage in the background meets it in every
// state.
func outlivesSweep(p probe) error {
	id, item := newID(), p.item(1, "value")
	item.Expires = p.hours(8)
	if err := p.creates(id, item); err != nil {
		return err
	}
	for hour := range 48 {
		time.Sleep(time.Until(p.hours(hour)))
		if err := p.holds(id, item); err != nil {
			return fmt.Errorf("after %d hours: %w", hour, err)
		}
		item.Version++
		item.Expires = p.hours(hour + 8)
		if err := p.replaces(id, item); err != nil {
			return fmt.Errorf("after %d hours: %w", hour, err)
		}
	}
	return nil
}

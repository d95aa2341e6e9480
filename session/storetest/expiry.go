package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

var expiryChecks = []check{
	{
		"expired/View",
		"An item is gone once Expires has passed, whether or not the store has removed it.",
		expiredView,
	},
	{
		"expired/Create",
		"Create succeeds over an expired item.",
		expiredCreate,
	},
	{
		"expired/Replace",
		"An expired item is gone: Replace returns ErrConflict.",
		expiredReplace,
	},
}

// agingChecks run in a bubble of testing/synctest, so that they can wait for hours.
var agingChecks = []check{
	{
		"expires on time",
		"An item stays until Expires and is gone after it.",
		expiresOnTime,
	},
	{
		"Replace moves Expires",
		"Replace overwrites the item with its Expires.",
		replaceMovesExpires,
	},
	{
		"outlives a sweep",
		"A sweep removes no item that has not expired.",
		outlivesSweep,
	},
	{
		"tagged for its life",
		"Tagged finds an item until it is gone, however often Replace moves Expires.",
		taggedForLife,
	},
	{
		"listed for its life",
		"List finds an item until it is gone, however often Replace moves Expires, and Labels does not find it after that.",
		listedForLife,
	},
}

// sharedAgingChecks are the agingChecks of shared stores.
var sharedAgingChecks = []check{
	{
		"lease lasts",
		"A lease lasts until it is released or its item is gone, however long that takes.",
		leaseLasts,
	},
	{
		"lease expires with its item",
		"The lease ends when its item expires.",
		leaseExpires,
	},
	{
		"announcements for a minute",
		"Announce returns the announcements that all processes made within the last minute.",
		announcementsForAMinute,
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

// outlivesSweep reads and replaces the item once an hour, like a session in use, so that
// a sweep in the background runs between all its versions.
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

// leaseLasts sends no heartbeat: the store must not end a lease for lack of them.
func leaseLasts(p probe) error {
	id, lease, err := p.held(1)
	errs := []error{err}
	for version := uint64(2); version < 50; version++ {
		item := p.item(version, "next")
		item.Expires = time.Now().Add(3 * time.Hour)
		errs = append(errs, p.replaces(id, item))
		time.Sleep(time.Hour)
		errs = append(errs, p.leaseIs(id, version, lease))
	}
	return errors.Join(errs...)
}

func leaseExpires(p probe) error {
	id, lease, err := p.held(1)
	again := p.item(1, "again")
	again.Expires = p.hours(9)
	time.Sleep(2 * time.Hour)
	return errors.Join(err,
		p.a.beatConflicts(id, lease),
		p.a.deleteAtConflicts(id, 1, lease.Holder),
		p.a.acquireFails(id, 1, session.ErrNotFound),
		p.creates(id, again),
		p.leaseFree(id, 1),
	)
}

func announcementsForAMinute(p probe) error {
	topic, first, second := newTopic(), newHolder(), newHolder()
	errs := []error{p.a.announces(topic, first, "first", "first")}
	time.Sleep(40 * time.Second)
	errs = append(errs, p.b.announces(topic, second, "second", "first", "second"))
	time.Sleep(15 * time.Second)
	errs = append(errs, p.b.announces(topic, second, "again", "first", "again"))
	time.Sleep(10 * time.Second)
	errs = append(errs, p.b.announces(topic, second, "again", "again"))
	time.Sleep(50 * time.Second)
	errs = append(errs, p.a.announces(topic, first, "back", "again", "back"))
	time.Sleep(2 * time.Minute)
	errs = append(errs, p.a.announces(topic, first, "alone", "alone"))
	return errors.Join(errs...)
}

package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

var tagChecks = []check{
	{
		"Tagged/Create",
		"Tagged returns the IDs of the items that carry a tag.",
		taggedCreate,
	},
	{
		"Tagged/both",
		"Tagged finds an item by each of its tags.",
		taggedBoth,
	},
	{
		"Tagged/none",
		"Tagged never returns the ID of an item that did not have the tag.",
		taggedNone,
	},
	{
		"Tagged/tags",
		"Tags are kept apart by all their bytes.",
		taggedTags,
	},
	{
		"Tagged/many",
		"Any number of items may carry the same tag.",
		taggedMany,
	},
	{
		"Tagged/once",
		"Tagged returns each ID once.",
		taggedOnce,
	},
	{
		"Tagged/Replace",
		"Each write replaces the tags of an item: Tagged finds it by the tags that Replace was given.",
		taggedReplace,
	},
	{
		"Tagged/late",
		"Each write replaces the tags of an item: an item without tags can get them.",
		taggedLate,
	},
	{
		"Tagged/again",
		"Tagged finds an item by its tags, also under an ID that was deleted before.",
		taggedAgain,
	},
	{
		"Tagged/copy",
		"The store copies Tags: the caller may change its slice after the write has returned.",
		taggedCopies,
	},
	{
		"Tagged/context",
		"Tagged honours the deadline of its context.",
		taggedContext,
	},
	{
		"concurrent/Tagged",
		"Tagged finds an item once its write has returned nil, also during writes of other items with its tags.",
		concurrentTagged,
	},
}

func newTag() session.Tag {
	var tag session.Tag
	_, _ = rand.Read(tag[:]) // never fails
	return tag
}

// tagged returns an item with tags.
func (p probe) tagged(version uint64, tags ...session.Tag) session.Item {
	item := p.item(version, "value")
	item.Tags = tags
	return item
}

// finds checks that Tagged returns exactly the given IDs.
func (p probe) finds(tag session.Tag, want ...session.ID) error {
	got, err := p.store.Tagged(p.ctx, tag)
	if err != nil {
		return wantNil("Tagged", err)
	}
	listed := map[session.ID]int{}
	for _, id := range got {
		listed[id]++
	}
	for _, id := range want {
		if listed[id] != 1 {
			return fmt.Errorf("Tagged: got an item with the tag %d times, want once", listed[id])
		}
		delete(listed, id)
	}
	if len(listed) > 0 {
		return fmt.Errorf("Tagged: got %d items that never had the tag, besides the %d that had it", len(listed), len(want))
	}
	return nil
}

func taggedCreate(p probe) error {
	tag, id := newTag(), newID()
	return errors.Join(
		p.finds(tag),
		p.creates(id, p.tagged(1, tag)),
		p.finds(tag, id),
		p.holds(id, p.tagged(1, tag)),
	)
}

func taggedBoth(p probe) error {
	first, second, third := newTag(), newTag(), newTag()
	a, b := newID(), newID()
	return errors.Join(
		p.creates(a, p.tagged(1, first, second)),
		p.creates(b, p.tagged(1, second, third)),
		p.finds(first, a),
		p.finds(second, a, b),
		p.finds(third, b),
	)
}

func taggedNone(p probe) error {
	tag, other, plain, mine := newTag(), newID(), newID(), newID()
	return errors.Join(
		p.creates(other, p.tagged(1, newTag())),
		p.creates(plain, p.item(1, "value")),
		p.creates(mine, p.tagged(1, tag)),
		p.finds(tag, mine),
		p.finds(newTag()),
		p.finds(session.Tag{}),
	)
}

func taggedTags(p probe) error {
	tag := newTag()
	first, last := tag, tag
	first[0] ^= 1
	last[len(last)-1] ^= 1
	a, b, c := newID(), newID(), newID()
	return errors.Join(
		p.creates(a, p.tagged(1, tag)),
		p.creates(b, p.tagged(1, first)),
		p.creates(c, p.tagged(1, last)),
		p.finds(tag, a),
		p.finds(first, b),
		p.finds(last, c),
	)
}

func taggedMany(p probe) error {
	const many = 300
	tag := newTag()
	ids := make([]session.ID, many)
	for i := range ids {
		ids[i] = newID()
		if err := p.creates(ids[i], p.tagged(1, newTag(), tag)); err != nil {
			return err
		}
	}
	return p.finds(tag, ids...)
}

func taggedOnce(p probe) error {
	tag, id := newTag(), newID()
	errs := []error{p.creates(id, p.tagged(1, tag))}
	for version := uint64(2); version < 10; version++ {
		next := p.tagged(version, tag)
		next.Expires = p.hours(int(version))
		errs = append(errs, p.replaces(id, next), p.finds(tag, id))
	}
	return errors.Join(errs...)
}

func taggedReplace(p probe) error {
	stays, old, next, id := newTag(), newTag(), newTag(), newID()
	return errors.Join(
		p.creates(id, p.tagged(1, old, stays)),
		p.replaces(id, p.tagged(2, stays, next)),
		p.finds(stays, id),
		p.finds(next, id),
		// And back to the first tag.
		p.replaces(id, p.tagged(3, old, next)),
		p.finds(old, id),
		p.finds(next, id),
	)
}

func taggedLate(p probe) error {
	tag, id := newTag(), newID()
	return errors.Join(
		p.creates(id, p.item(1, "value")),
		p.finds(tag),
		p.replaces(id, p.tagged(2, tag)),
		p.finds(tag, id),
	)
}

func taggedAgain(p probe) error {
	tag, id, other := newTag(), newID(), newID()
	return errors.Join(
		p.creates(id, p.tagged(1, tag)),
		p.creates(other, p.tagged(1, tag)),
		p.deletes(id),
		p.creates(id, p.tagged(1, tag)),
		p.finds(tag, id, other),
		p.replaces(id, p.tagged(2, tag)),
		p.finds(tag, id, other),
	)
}

func taggedCopies(p probe) error {
	first, second, id := newTag(), newTag(), newID()
	item := p.tagged(1, first)
	errs := []error{p.creates(id, item)}
	item.Tags[0] = newTag()
	errs = append(errs, p.finds(first, id), p.finds(item.Tags[0]))
	item = p.tagged(2, second)
	errs = append(errs, p.replaces(id, item))
	item.Tags[0] = newTag()
	return errors.Join(append(errs, p.finds(second, id), p.finds(item.Tags[0]))...)
}

func taggedContext(p probe) error {
	ctx, cancel := context.WithCancel(p.ctx)
	cancel()
	_, err := p.store.Tagged(ctx, newTag())
	return endedCalls(map[string]error{"Tagged": err})
}

func concurrentTagged(p probe) error {
	const each = 20
	tag := newTag()
	ids := make([]session.ID, racers*each)
	for i := range ids {
		ids[i] = newID()
	}
	errs := together(racers, func(racer int) error {
		for _, id := range ids[racer*each : (racer+1)*each] {
			err := errors.Join(p.creates(id, p.tagged(1, tag)), p.replaces(id, p.tagged(2, tag, newTag())))
			if err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(append(errs, p.finds(tag, ids...))...)
}

// taggedForLife replaces an item once an hour, like a session in use.
func taggedForLife(p probe) error {
	tag, id, item := newTag(), newID(), p.tagged(1)
	item.Tags, item.Expires = []session.Tag{tag}, p.hours(8)
	if err := p.creates(id, item); err != nil {
		return err
	}
	for hour := range 48 {
		time.Sleep(time.Until(p.hours(hour)))
		if err := p.finds(tag, id); err != nil {
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

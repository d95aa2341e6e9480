package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

var listChecks = []check{
	{
		"List/Create",
		"List returns the IDs of items with a label.",
		listCreate,
	},
	{
		"List/order",
		"List returns IDs in ascending order of their bytes.",
		listOrder,
	},
	{
		"List/after",
		"List returns the IDs that are greater than after.",
		listAfter,
	},
	{
		"List/limit",
		"List returns the first limit IDs, or all if there are fewer.",
		listLimit,
	},
	{
		"List/none",
		"List never returns the ID of an item that had no label.",
		listNone,
	},
	{
		"List/late",
		"Each write replaces the label: an item without a label can get one.",
		listLate,
	},
	{
		"List/again",
		"List returns an ID also if it was deleted before.",
		listAgain,
	},
	{
		"List/pages",
		"A caller that continues after the last ID of each page finds every item that exists during the whole list, and no ID twice.",
		listPages,
	},
	{
		"List/context",
		"List and Labels honour the deadline of their context.",
		listContext,
	},
	{
		"concurrent/List",
		"List finds an item once its write has returned nil, also during writes of other items.",
		concurrentList,
	},
}

// labelled returns an item with a label.
func (p probe) labelled(version uint64, label string) session.Item {
	item := p.item(version, "value")
	item.Label = []byte(label)
	return item
}

// neighbours returns n IDs in ascending order, and an ID before them. No other item is
// between them.
func neighbours(n int) (before session.ID, ids []session.ID) {
	before = newID()
	before[len(before)-1] = 0
	for i := range n {
		id := before
		id[len(id)-1] = byte(1 + i)
		ids = append(ids, id)
	}
	return before, ids
}

// createsLabelled creates items with the same label.
func (p probe) createsLabelled(ids ...session.ID) error {
	for _, id := range ids {
		if err := p.creates(id, p.labelled(1, "label")); err != nil {
			return err
		}
	}
	return nil
}

// lists checks a page of List.
func (p probe) lists(after session.ID, limit int, want ...session.ID) error {
	got, err := p.store.List(p.ctx, after, limit)
	if err != nil {
		return wantNil("List", err)
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("List of at most %d items: got %d IDs, want %d others or in another order", limit, len(got), len(want))
	}
	return nil
}

// listsAtFirst checks the beginning of the list after an ID.
func (p probe) listsAtFirst(after session.ID, want ...session.ID) error {
	return p.lists(after, max(1, len(want)), want...)
}

// listsAll reads the whole list in pages and returns how often each ID occurs.
func (p probe) listsAll(limit int, between func()) (map[session.ID]int, error) {
	all := map[session.ID]int{}
	var after session.ID
	for {
		page, err := p.store.List(p.ctx, after, limit)
		if err != nil {
			return nil, wantNil("List", err)
		}
		for _, id := range page {
			if bytes.Compare(id[:], after[:]) <= 0 {
				return nil, errors.New("List: got an ID that is not greater than the one before, want ascending order")
			}
			all[id]++
			after = id
		}
		if len(page) < limit {
			return all, nil
		}
		between()
	}
}

func listCreate(p probe) error {
	before, ids := neighbours(1)
	return errors.Join(
		p.creates(ids[0], p.labelled(1, "label")),
		p.listsAtFirst(before, ids[0]),
		p.hasLabels(label(ids[0], "label")),
		p.holds(ids[0], p.labelled(1, "label")),
	)
}

func listOrder(p probe) error {
	before, ids := neighbours(5)
	return errors.Join(
		p.createsLabelled(ids[3], ids[1], ids[4], ids[0], ids[2]),
		p.listsAtFirst(before, ids...),
	)
}

func listAfter(p probe) error {
	_, ids := neighbours(4)
	last := ids[3]
	last[len(last)-1] = 0xFF
	return errors.Join(
		p.createsLabelled(ids...),
		p.createsLabelled(last),
		p.listsAtFirst(ids[0], ids[1], ids[2], ids[3], last),
		p.listsAtFirst(ids[2], ids[3], last),
		p.listsAtFirst(ids[3], last),
	)
}

func listLimit(p probe) error {
	before, ids := neighbours(200)
	end := session.ID(bytes.Repeat([]byte{0xFF}, len(session.ID{})))
	return errors.Join(
		p.createsLabelled(ids...),
		p.lists(before, 1, ids[0]),
		p.lists(before, 7, ids[:7]...),
		p.lists(before, 199, ids[:199]...),
		p.lists(before, 200, ids...),
		p.lists(end, session.MaxListed),
	)
}

func listNone(p probe) error {
	before, ids := neighbours(3)
	return errors.Join(
		p.creates(ids[0], p.item(1, "value")),
		p.creates(ids[1], p.tagged(1, newTag())),
		p.creates(ids[2], p.labelled(1, "label")),
		p.listsAtFirst(before, ids[2]),
	)
}

func listLate(p probe) error {
	before, ids := neighbours(2)
	return errors.Join(
		p.creates(ids[0], p.item(1, "value")),
		p.createsLabelled(ids[1]),
		p.listsAtFirst(before, ids[1]),
		p.replaces(ids[0], p.labelled(2, "late")),
		p.listsAtFirst(before, ids...),
		p.hasLabels(label(ids[0], "late")),
	)
}

func listAgain(p probe) error {
	before, ids := neighbours(2)
	return errors.Join(
		p.createsLabelled(ids...),
		p.deletes(ids[0]),
		p.labels(ids, label(ids[1], "label")),
		p.creates(ids[0], p.labelled(1, "again")),
		p.listsAtFirst(before, ids...),
		p.hasLabels(label(ids[0], "again"), label(ids[1], "label")),
	)
}

func listPages(p probe) error {
	const many = 150
	var stay []session.ID
	for range many {
		stay = append(stay, newID())
	}
	if err := p.createsLabelled(stay...); err != nil {
		return err
	}
	for _, limit := range []int{1 << 4, 1 << 6, session.MaxListed} {
		var gone session.ID
		var errs []error
		all, err := p.listsAll(limit, func() {
			errs = append(errs, p.deletes(gone))
			gone = newID()
			errs = append(errs, p.createsLabelled(gone))
		})
		if err := errors.Join(append(errs, err)...); err != nil {
			return err
		}
		for _, id := range stay {
			if all[id] != 1 {
				return fmt.Errorf("pages of %d: got an item that existed all the time %d times, want once", limit, all[id])
			}
		}
	}
	return nil
}

func listContext(p probe) error {
	ctx, cancel := context.WithCancel(p.ctx)
	cancel()
	_, listErr := p.store.List(ctx, session.ID{}, 1)
	_, labelsErr := p.store.Labels(ctx, []session.ID{newID()})
	return endedCalls(map[string]error{"List": listErr, "Labels": labelsErr})
}

func concurrentList(p probe) error {
	const each = 10
	before, ids := neighbours(racers * each)
	errs := together(racers, func(racer int) error {
		for _, id := range ids[racer*each : (racer+1)*each] {
			if err := p.createsLabelled(id); err != nil {
				return err
			}
			var found []session.ID
			found, err := p.store.List(p.ctx, before, len(ids))
			if err != nil {
				return wantNil("List", err)
			}
			if !slices.Contains(found, id) {
				return errors.New("List: got no ID of an item whose write has returned nil")
			}
		}
		return nil
	})
	return errors.Join(append(errs, p.lists(before, len(ids), ids...))...)
}

// listedForLife replaces an item once an hour, like a session in use.
func listedForLife(p probe) error {
	before, ids := neighbours(1)
	item := p.labelled(1, "label")
	item.Expires = p.hours(8)
	if err := p.creates(ids[0], item); err != nil {
		return err
	}
	for hour := range 48 {
		time.Sleep(time.Until(p.hours(hour)))
		item.Version++
		item.Expires = p.hours(hour + 8)
		item.Label = fmt.Appendf(nil, "label %d", hour)
		err := errors.Join(p.listsAtFirst(before, ids[0]), p.replaces(ids[0], item), p.hasLabels(label(ids[0], string(item.Label))))
		if err != nil {
			return fmt.Errorf("after %d hours: %w", hour, err)
		}
	}
	time.Sleep(time.Until(p.hours(47 + 9)))
	return p.labels(ids)
}

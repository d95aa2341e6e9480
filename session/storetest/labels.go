package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/oauth-session/caddy-oauth-session/session"
)

var labelChecks = []check{
	{
		"Labels/Replace",
		"Each write replaces the label.",
		labelsReplace,
	},
	{
		"Labels/gone",
		"Labels returns the items under ids that exist.",
		labelsGone,
	},
	{
		"Labels/order",
		"Labels returns items in the order of ids.",
		labelsOrder,
	},
	{
		"Labels/empty",
		"Label is empty if the last write had none.",
		labelsEmpty,
	},
	{
		"Labels/values",
		"A label is any bytes: all 256 values, and MaxLabel of them.",
		labelsValues,
	},
	{
		"Labels/copy",
		"The store copies Label: the caller may change its slice after the write has returned.",
		labelsCopied,
	},
	{
		"Labels/copies",
		"The labels that Labels returns are copies: the caller may change them.",
		labelsAreCopies,
	},
	{
		"expired/Labels",
		"An item is gone once Expires has passed, also for Labels.",
		expiredLabels,
	},
}

// hasLabels checks the labels of items that exist.
func (p probe) hasLabels(want ...session.Labelled) error {
	ids := make([]session.ID, len(want))
	for i := range want {
		ids[i] = want[i].ID
	}
	return p.labels(ids, want...)
}

func (p probe) labels(ids []session.ID, want ...session.Labelled) error {
	got, err := p.store.Labels(p.ctx, ids)
	if err != nil {
		return wantNil("Labels", err)
	}
	same := func(a, b session.Labelled) bool { return a.ID == b.ID && bytes.Equal(a.Label, b.Label) }
	if !slices.EqualFunc(got, want, same) {
		return fmt.Errorf("Labels: got %d items, want %d others, or other labels", len(got), len(want))
	}
	return nil
}

func label(id session.ID, text string) session.Labelled {
	return session.Labelled{ID: id, Label: []byte(text)}
}

func labelsReplace(p probe) error {
	id := newID()
	errs := []error{p.creates(id, p.labelled(1, "first"))}
	for version := uint64(2); version < 6; version++ {
		text := fmt.Sprintf("label %d", version)
		errs = append(errs, p.replaces(id, p.labelled(version, text)), p.hasLabels(label(id, text)))
	}
	// Writes that fail change nothing.
	errs = append(errs,
		p.replaceConflicts(id, p.labelled(3, "old")), p.hasLabels(label(id, "label 5")),
		p.createConflicts(id, p.labelled(1, "new")), p.hasLabels(label(id, "label 5")))
	return errors.Join(errs...)
}

func labelsGone(p probe) error {
	first, gone, never, last := newID(), newID(), newID(), newID()
	return errors.Join(
		p.createsLabelled(first, gone, last),
		p.deletes(gone),
		p.labels([]session.ID{first, gone, never, last}, label(first, "label"), label(last, "label")),
		p.labels([]session.ID{never}),
		p.labels(nil),
	)
}

func labelsOrder(p probe) error {
	_, ids := neighbours(200)
	if err := p.createsLabelled(ids...); err != nil {
		return err
	}
	slices.Reverse(ids)
	want := make([]session.Labelled, len(ids))
	for i, id := range ids {
		want[i] = label(id, "label")
	}
	return p.hasLabels(want...)
}

func labelsEmpty(p probe) error {
	never, once := newID(), newID()
	return errors.Join(
		p.creates(never, p.item(1, "value")),
		p.creates(once, p.labelled(1, "label")),
		p.replaces(once, p.item(2, "value")),
		p.hasLabels(label(never, ""), label(once, "")),
		p.replaces(once, p.labelled(3, "label")),
		p.hasLabels(label(once, "label")),
	)
}

func labelsValues(p probe) error {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	var errs []error
	for _, text := range []string{"x", "\x00", string(all), string(bytes.Repeat(all, session.MaxLabel/len(all)))} {
		id := newID()
		errs = append(errs, p.creates(id, p.labelled(1, text)), p.hasLabels(label(id, text)))
	}
	return errors.Join(errs...)
}

func labelsCopied(p probe) error {
	id := newID()
	item := p.labelled(1, "first")
	errs := []error{p.creates(id, item)}
	clear(item.Label)
	errs = append(errs, p.hasLabels(label(id, "first")))
	item = p.labelled(2, "second")
	errs = append(errs, p.replaces(id, item))
	clear(item.Label)
	return errors.Join(append(errs, p.hasLabels(label(id, "second")))...)
}

func labelsAreCopies(p probe) error {
	id := newID()
	if err := p.creates(id, p.labelled(1, "label")); err != nil {
		return err
	}
	got, err := p.store.Labels(p.ctx, []session.ID{id})
	if err != nil || len(got) != 1 {
		return fmt.Errorf("Labels: got %d items and error %w, want one item", len(got), err)
	}
	clear(got[0].Label)
	return p.hasLabels(label(id, "label"))
}

func expiredLabels(p probe) error {
	id := newID()
	item := p.expired(1)
	item.Label = []byte("label")
	return errors.Join(p.creates(id, item), p.labels([]session.ID{id}))
}

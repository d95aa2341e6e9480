package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/oauth-session/caddy-oauth-session/session"
)

var viewChecks = []check{
	{
		"View/missing",
		"View calls f with the item under id, or returns ErrNotFound.",
		func(p probe) error { return p.lacks(newID()) },
	},
	{
		"View/found",
		"View calls f with the item under id: Version, Expires and Value as they were written.",
		viewFound,
	},
	{
		"View/ids",
		"Items are kept apart by all bytes of their ID.",
		viewIDs,
	},
	{
		"View/callback error",
		"View returns the error of f unchanged.",
		viewCallbackError,
	},
	{
		"View/values",
		"Value is any bytes of any length: none, all 256 values, 64 KiB and more.",
		viewValues,
	},
	{
		"context",
		"All methods honour the deadline of their context. Their error is then neither ErrNotFound nor ErrConflict.",
		endedContext,
	},
}

func viewFound(p probe) error {
	id, item := newID(), p.item(1, "value")
	return errors.Join(
		p.creates(id, item),
		p.holds(id, item),
		p.holds(id, item),
	)
}

func viewIDs(p probe) error {
	first := newID()
	second, third := first, first
	second[0] ^= 1
	third[len(third)-1] ^= 1
	return errors.Join(
		p.creates(first, p.item(1, "first")),
		p.lacks(second),
		p.lacks(third),
		p.creates(second, p.item(1, "second")),
		p.creates(third, p.item(1, "third")),
		p.deletes(third),
		p.holds(first, p.item(1, "first")),
		p.holds(second, p.item(1, "second")),
	)
}

func viewCallbackError(p probe) error {
	id := newID()
	if err := p.creates(id, p.item(1, "value")); err != nil {
		return err
	}
	// Also the errors of the contract, which f may have got from another store.
	for _, want := range []error{errors.New("made by f"), session.ErrNotFound, session.ErrConflict} {
		got := p.store.View(p.ctx, id, func(session.Item) error { return want })
		if got != want {
			return fmt.Errorf("View: got error %v, want the error of f itself, %q", got, want)
		}
	}
	return nil
}

func viewValues(p probe) error {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	var errs []error
	for _, value := range [][]byte{nil, {}, {0}, all, bytes.Repeat(all, 257), bytes.Repeat(all, 4096)} {
		id, item := newID(), p.item(1, "")
		item.Value = value
		errs = append(errs, p.creates(id, item), p.holds(id, item))

		// To a long value and back, so that a store that keeps bytes of the former value fails.
		item.Version, item.Value = 2, bytes.Repeat([]byte("long"), 1000)
		errs = append(errs, p.replaces(id, item), p.holds(id, item))
		item.Version, item.Value = 3, value
		errs = append(errs, p.replaces(id, item), p.holds(id, item))
	}
	return errors.Join(errs...)
}

func endedContext(p probe) error {
	id, item := newID(), p.item(1, "value")
	if err := p.creates(id, item); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(p.ctx)
	cancel()
	view := func(session.Item) error { return nil }
	return endedCalls(map[string]error{
		"View":                    p.store.View(ctx, id, view),
		"View of a missing item":  p.store.View(ctx, newID(), view),
		"Create":                  p.store.Create(ctx, newID(), item),
		"Create of an old ID":     p.store.Create(ctx, id, item),
		"Replace":                 p.store.Replace(ctx, id, p.item(2, "next")),
		"Replace of no next item": p.store.Replace(ctx, newID(), p.item(2, "next")),
		"Delete":                  p.store.Delete(ctx, newID()),
	})
}

// endedCalls checks that each call has returned an error that is no answer.
func endedCalls(calls map[string]error) error {
	for call, err := range calls {
		switch {
		case err == nil:
			return fmt.Errorf("%s with a cancelled context: got nil, want an error", call)
		case errors.Is(err, session.ErrNotFound), errors.Is(err, session.ErrConflict), errors.Is(err, session.ErrLeased):
			return fmt.Errorf("%s with a cancelled context: got %q, want an error that is none of the contract", call, err)
		}
	}
	return nil
}

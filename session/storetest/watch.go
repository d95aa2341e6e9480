package storetest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/oauth-session/caddy-oauth-session/session"
)

var watchChecks = []check{
	{
		"ViewCurrent/at once",
		"ViewCurrent shows all writes of all processes that were acknowledged before the call.",
		viewCurrentAtOnce,
	},
	{
		"Watch/Replace",
		"Changed is called soon after a write of an item that was read with View. View then returns no older copy.",
		func(p probe) error {
			return p.pushed(2, func(s peer, id session.ID) error { return s.Replace(s.ctx, id, p.item(2, "second")) })
		},
	},
	{
		"Watch/Delete",
		"Changed is called soon after Delete of an item that was read with View. View then returns no copy.",
		func(p probe) error {
			return p.pushed(0, func(s peer, id session.ID) error { return s.Delete(s.ctx, id) })
		},
	},
	{
		"Watch/DeleteAt",
		"Changed is called soon after DeleteAt of an item that was read with View. View then returns no copy.",
		func(p probe) error {
			return p.pushed(0, func(s peer, id session.ID) error { return s.DeleteAt(s.ctx, id, 1, session.Holder{}) })
		},
	},
	{
		"Watch/every change",
		"Changed is called for every change after the last View, however fast writes and reads follow each other.",
		watchEveryChange,
	},
}

func viewCurrentAtOnce(p probe) error {
	id := newID()
	if err := p.creates(id, p.item(1, "first")); err != nil {
		return err
	}
	readers, writers := []peer{p.b, p.a}, []peer{p.a, p.b}
	for v := uint64(2); v < 50; v++ {
		reader, writer := readers[v%2], writers[v%2]
		// The following Replace makes this copy outdated.
		if _, err := version(p.ctx, reader.View, id); err != nil {
			return wantNil("View", err)
		}
		if err := writer.Replace(p.ctx, id, p.item(v, "next")); err != nil {
			return wantNil("Replace", err)
		}
		got, err := version(p.ctx, reader.ViewCurrent, id)
		switch {
		case err != nil:
			return wantNil("ViewCurrent", err)
		case got != v:
			return fmt.Errorf("ViewCurrent: got version %d, want the acknowledged version %d", got, v)
		}
	}
	return errors.Join(p.deletes(id), p.lacks(id))
}

// pushed reads an item in one process and changes it in another or in the same. The
// reader's changed must be called, and its View must then show the version to, or no item
// if to is 0.
func (p probe) pushed(to uint64, change func(s peer, id session.ID) error) error {
	for _, pair := range []struct{ reader, writer peer }{{p.a, p.b}, {p.b, p.a}, {p.a, p.a}} {
		for range 10 {
			id := newID()
			if err := p.creates(id, p.item(1, "first")); err != nil {
				return err
			}
			if err := pair.reader.until(id, isVersion(1)); err != nil {
				return err
			}
			before := pair.reader.pushes.count(id)
			if err := wantNil("the change", change(pair.writer, id)); err != nil {
				return err
			}
			if !pair.reader.pushes.moreThan(before, id) {
				return fmt.Errorf("got no call of changed within %v", pushTimeout)
			}
			if err := pair.reader.until(id, isVersion(to)); err != nil {
				return err
			}
		}
	}
	return nil
}

func isVersion(want uint64) func(uint64) (bool, error) {
	return func(got uint64) (bool, error) { return got == want, nil }
}

// watchEveryChange makes many writes without a pause, while other goroutines read after
// each call of changed.
func watchEveryChange(p probe) error {
	const last = 100
	id := newID()
	if err := p.creates(id, p.item(1, "first")); err != nil {
		return err
	}
	var begun sync.WaitGroup
	begun.Add(racers)
	errs := together(racers+1, func(i int) error {
		if i < racers {
			_, err := version(p.ctx, p.racer(i).View, id)
			begun.Done()
			return errors.Join(wantNil("View", err), p.racer(i).until(id, isVersion(last)))
		}
		begun.Wait()
		for v := uint64(2); v <= last; v++ {
			if err := p.a.Replace(p.ctx, id, p.item(v, "next")); err != nil {
				return wantNil("Replace", err)
			}
		}
		return nil
	})
	return errors.Join(errs...)
}

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
		"ViewCurrent shows all writes that were acknowledged before the call, whoever made them.",
		viewCurrentAtOnce,
	},
	{
		"Watch/Replace",
		"Changed is called soon after an item that was read with View was written; no older copy is handed out then.",
		func(p probe) error {
			return p.pushed(2, func(s peer, id session.ID) error { return s.Replace(s.ctx, id, p.item(2, "second")) })
		},
	},
	{
		"Watch/Delete",
		"Changed is called soon after an item that was read with View was removed; no copy is handed out then.",
		func(p probe) error {
			return p.pushed(0, func(s peer, id session.ID) error { return s.Delete(s.ctx, id) })
		},
	},
	{
		"Watch/DeleteAt",
		"Changed is called soon after an item that was read with View was removed by DeleteAt; no copy is handed out then.",
		func(p probe) error {
			return p.pushed(0, func(s peer, id session.ID) error { return s.DeleteAt(s.ctx, id, 1, session.Holder{}) })
		},
	},
	{
		"Watch/every change",
		"Changed is called for the change after the last View, however fast writes and reads follow each other.",
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
		// A copy that is out of date as soon as it is made.
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
			return fmt.Errorf("ViewCurrent shows version %d after version %d was acknowledged", got, v)
		}
	}
	return errors.Join(p.deletes(id), p.lacks(id))
}

// pushed makes one process read an item, and one change it to a version (0:
// none), by turns and also each its own.
func (p probe) pushed(to uint64, change func(s peer, id session.ID) error) error {
	for _, who := range []struct{ reader, writer peer }{{p.a, p.b}, {p.b, p.a}, {p.a, p.a}} {
		for range 10 {
			id := newID()
			if err := p.creates(id, p.item(1, "first")); err != nil {
				return err
			}
			if err := who.reader.until(id, isVersion(1)); err != nil {
				return err
			}
			told := who.reader.pushes.count(id)
			if err := wantNil("the change", change(who.writer, id)); err != nil {
				return err
			}
			if !who.reader.pushes.moreThan(told, id) {
				return fmt.Errorf("changed was not called within %v", soon)
			}
			if err := who.reader.until(id, isVersion(to)); err != nil {
				return err
			}
		}
	}
	return nil
}

func isVersion(want uint64) func(uint64) (bool, error) {
	return func(got uint64) (bool, error) { return got == want, nil }
}

// watchEveryChange lets processes read as they are told, while one of them
// writes without waiting for them.
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

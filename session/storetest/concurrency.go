package storetest

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// racers is the number of goroutines that use one item at the same time.
const racers = 8

var concurrencyChecks = []check{
	{
		"concurrent/Create",
		"Create stores a new item: of concurrent calls with one ID, one succeeds and the others return ErrConflict.",
		concurrentCreate,
	},
	{
		"concurrent/Replace",
		"Replace compares and writes in one step: of concurrent calls with one version, exactly one succeeds.",
		concurrentReplace,
	},
	{
		"concurrent/Delete",
		"A Replace that starts after Delete has returned never succeeds.",
		concurrentDelete,
	},
	{
		"concurrent/View",
		"View shows the whole value of one version, and the value is valid until f returns.",
		concurrentView,
	},
	{
		"concurrent/results",
		"All methods are safe for concurrent use, and every call returns its own result.",
		concurrentResults,
	},
}

func concurrentCreate(p probe) error {
	for range 20 {
		id := newID()
		winner, err := race(racers, func(i int) error { return p.store.Create(p.ctx, id, racerItem(p, 1, i)) },
			session.ErrConflict)
		if err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		if err := p.holds(id, racerItem(p, 1, winner)); err != nil {
			return err
		}
	}
	return nil
}

func concurrentReplace(p probe) error {
	id := newID()
	if err := p.creates(id, p.item(1, "first")); err != nil {
		return err
	}
	for version := uint64(2); version < 30; version++ {
		winner, err := race(racers, func(i int) error { return p.store.Replace(p.ctx, id, racerItem(p, version, i)) },
			session.ErrConflict)
		if err != nil {
			return fmt.Errorf("Replace with version %d: %w", version, err)
		}
		if err := p.holds(id, racerItem(p, version, winner)); err != nil {
			return err
		}
	}
	return nil
}

// race makes n concurrent calls and returns the index of the one that succeeded. Exactly
// one must succeed, and the others must return one of the given errors.
func race(n int, call func(i int) error, losers ...error) (winner int, err error) {
	errs := together(n, call)
	winner = -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			return 0, errors.New("got two successful calls, want one")
		case err == nil:
			winner = i
		case !slices.ContainsFunc(losers, func(want error) bool { return errors.Is(err, want) }):
			return 0, fmt.Errorf("got error %w, want nil or one of %q", err, losers)
		}
	}
	if winner < 0 {
		return 0, fmt.Errorf("got no successful call, only errors of %q, want one", losers)
	}
	return winner, nil
}

func racerItem(p probe, version uint64, racer int) session.Item {
	return p.item(version, strings.Repeat(string(rune('a'+racer)), 1000+racer))
}

func concurrentDelete(p probe) error {
	for range 10 {
		id := newID()
		if err := p.creates(id, p.item(1, "first")); err != nil {
			return err
		}
		var deleted atomic.Bool
		errs := together(2, func(i int) error {
			if i == 0 {
				err := p.deletes(id)
				deleted.Store(true)
				return err
			}
			return replaceUntilGone(p, id, &deleted)
		})
		if err := errors.Join(append(errs, p.lacks(id))...); err != nil {
			return err
		}
	}
	return nil
}

// replaceUntilGone writes version after version until Replace returns ErrConflict, as it
// must once deleted is set.
func replaceUntilGone(p probe, id session.ID, deleted *atomic.Bool) error {
	for version := uint64(2); ; version++ {
		late := deleted.Load()
		err := p.store.Replace(p.ctx, id, p.item(version, "next"))
		switch {
		case errors.Is(err, session.ErrConflict):
			return nil
		case err != nil:
			return wantNil("Replace during Delete", err)
		case late:
			return errors.New("Replace that started after Delete had returned: got nil, want ErrConflict")
		}
	}
}

func concurrentView(p probe) error {
	id := newID()
	if err := p.creates(id, p.item(1, versionValue(1))); err != nil {
		return err
	}
	var done atomic.Bool
	errs := together(racers, func(i int) error {
		if i > 0 {
			return viewUntil(p, id, &done)
		}
		defer done.Store(true)
		for version := uint64(2); version < 60; version++ {
			if err := p.replaces(id, p.item(version, versionValue(version))); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(errs...)
}

func viewUntil(p probe, id session.ID, done *atomic.Bool) error {
	for seen, last := uint64(0), false; !last; {
		last = done.Load()
		err := p.store.View(p.ctx, id, func(item session.Item) error {
			if item.Version < seen {
				return fmt.Errorf("View: got version %d, want at least %d, which View has shown before", item.Version, seen)
			}
			seen = item.Version
			if err := wholeValue(item); err != nil {
				return err
			}
			runtime.Gosched() // so that a writer runs and may overwrite the value
			return wholeValue(item)
		})
		if err != nil {
			return wantNil("View during Replace", err)
		}
	}
	return nil
}

// versionValue returns a value that follows from the version.
func versionValue(version uint64) string {
	return strings.Repeat(string(rune('0'+version)), 500+int(version)*37)
}

func wholeValue(item session.Item) error {
	if string(item.Value) != versionValue(item.Version) {
		return fmt.Errorf("View: got a value that was not written as version %d", item.Version)
	}
	return nil
}

// concurrentResults mixes calls that must succeed with calls that must fail. A store that
// puts concurrent writes into one transaction must keep their results apart.
func concurrentResults(p probe) error {
	taken := newID()
	if err := p.creates(taken, p.item(1, "taken")); err != nil {
		return err
	}
	errs := together(4*racers, func(i int) error {
		id := newID()
		switch i % 4 {
		case 0:
			return p.createConflicts(taken, p.item(1, "stray"))
		case 1:
			return p.replaceConflicts(taken, p.item(7, "stray"))
		case 2:
			return errors.Join(p.creates(id, p.item(1, "one")), p.deletes(id), p.lacks(id))
		default:
			return errors.Join(p.creates(id, p.item(1, "one")), p.replaces(id, p.item(2, "two")),
				p.holds(id, p.item(2, "two")))
		}
	})
	return errors.Join(append(errs, p.holds(taken, p.item(1, "taken")))...)
}

// together makes n concurrent calls of f and returns their errors.
func together(n int, f func(i int) error) []error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

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

// racers is how many goroutines meet at one item.
const racers = 8

var concurrencyChecks = []check{
	{
		"concurrent/Create",
		"Create keeps a new item: of many that race for one ID, one wins and the others get ErrConflict.",
		concurrentCreate,
	},
	{
		"concurrent/Replace",
		"Replace compares and writes in one step: each version has exactly one winner.",
		concurrentReplace,
	},
	{
		"concurrent/Delete",
		"A Replace that begins after Delete returned never succeeds.",
		concurrentDelete,
	},
	{
		"concurrent/View",
		"View gives the whole value of one version, and it is valid until f returns.",
		concurrentView,
	},
	{
		"concurrent/answers",
		"All methods are safe for concurrent use, and every call gets its own answer.",
		concurrentAnswers,
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

// race makes n calls at the same time, of which one may win, and returns which
// one did. The others must have got one of the errors lost.
func race(n int, call func(i int) error, lost ...error) (winner int, err error) {
	errs := together(n, call)
	winner = -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			return 0, errors.New("two calls that exclude each other both returned nil")
		case err == nil:
			winner = i
		case !slices.ContainsFunc(lost, func(want error) bool { return errors.Is(err, want) }):
			return 0, fmt.Errorf("got error %w, want nil or one of %q", err, lost)
		}
	}
	if winner < 0 {
		return 0, fmt.Errorf("every call failed with one of %q, want one winner", lost)
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

// replaceUntilGone writes version after version until the store says that the
// item is gone, which it must do once deleted is set.
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
			return errors.New("Replace that began after Delete returned: got nil, want ErrConflict")
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
				return fmt.Errorf("saw version %d after version %d", item.Version, seen)
			}
			seen = item.Version
			if err := wholeValue(item); err != nil {
				return err
			}
			runtime.Gosched() // a chance for the writer to spoil the value
			return wholeValue(item)
		})
		if err != nil {
			return wantNil("View during Replace", err)
		}
	}
	return nil
}

// versionValue makes a value that can be told from its version alone.
func versionValue(version uint64) string {
	return strings.Repeat(string(rune('0'+version)), 500+int(version)*37)
}

func wholeValue(item session.Item) error {
	if string(item.Value) != versionValue(item.Version) {
		return fmt.Errorf("the value under version %d is not the one written with it", item.Version)
	}
	return nil
}

// concurrentAnswers mixes calls that must succeed with calls that must not, as
// a store that gathers writes into one transaction sees them.
func concurrentAnswers(p probe) error {
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

// together calls f n times at the same time and returns its answers.
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

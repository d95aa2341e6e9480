package storetest

import (
	"errors"
	"fmt"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// rounds is the number of repetitions of each race, because its timing is random.
const rounds = 30

var leaseRaceChecks = []check{
	{
		"concurrent/Acquire",
		"Acquire is one step: of concurrent calls for a free lease one succeeds, and the others return its lease.",
		concurrentAcquire,
	},
	{
		"concurrent/takeover",
		"Acquire is one step: of concurrent calls that have seen the same lease one takes it over.",
		concurrentTakeover,
	},
	{
		"concurrent/takeover and Beat",
		"Of Beat and a concurrent takeover, one succeeds and never both.",
		concurrentTakeoverAndBeat,
	},
	{
		"concurrent/Acquire and Replace",
		"Acquire compares the version and takes the lease in one step: it never succeeds with an old version.",
		concurrentAcquireAndReplace,
	},
	{
		"concurrent/DeleteAt and Replace",
		"DeleteAt compares and removes in one step: of it and a Replace from the same version one succeeds.",
		concurrentDeleteAtAndReplace,
	},
	{
		"concurrent/DeleteAt and takeover",
		"DeleteAt compares the lease and removes in one step: of it and a takeover one succeeds.",
		concurrentDeleteAtAndTakeover,
	},
}

// racer returns process a for even numbers and process b for odd ones.
func (p probe) racer(i int) peer {
	if i%2 == 0 {
		return p.a
	}
	return p.b
}

func concurrentAcquire(p probe) error {
	for range rounds {
		id := newID()
		if err := p.creates(id, p.item(1, "first")); err != nil {
			return err
		}
		if err := p.acquireRace(id, session.Lease{}); err != nil {
			return err
		}
	}
	return nil
}

func concurrentTakeover(p probe) error {
	for range rounds {
		id, old, err := p.held(3)
		if err != nil {
			return err
		}
		if err := p.acquireRace(id, old); err != nil {
			return err
		}
	}
	return nil
}

func (p probe) acquireRace(id session.ID, seen session.Lease) error {
	leases := make([]session.Lease, 2*racers)
	winner, err := race(len(leases), func(i int) (err error) {
		leases[i], err = p.racer(i).Acquire(p.ctx, id, 1, newHolder(), seen)
		return err
	}, session.ErrLeased)
	if err != nil {
		return fmt.Errorf("Acquire: %w", err)
	}
	for _, lease := range leases {
		if lease != leases[winner] {
			return fmt.Errorf("Acquire: got %s with ErrLeased, want that of the successful call, %s", leaseText(lease), leaseText(leases[winner]))
		}
	}
	return p.leaseIs(id, 1, leases[winner])
}

func concurrentTakeoverAndBeat(p probe) error {
	for range rounds {
		id, seen, err := p.held(0)
		if err != nil {
			return err
		}
		raised, next := session.Lease{Holder: seen.Holder, Beat: 1}, session.Lease{Holder: newHolder()}
		winner, err := race(2, func(i int) error {
			if i == 0 {
				return p.a.Beat(p.ctx, id, raised)
			}
			_, err := p.b.Acquire(p.ctx, id, 1, next.Holder, seen)
			return err
		}, session.ErrConflict, session.ErrLeased)
		if err != nil {
			return fmt.Errorf("concurrent Beat (nil or ErrConflict) and Acquire (nil or ErrLeased): %w", err)
		}
		if err := p.leaseIs(id, 1, []session.Lease{raised, next}[winner]); err != nil {
			return err
		}
	}
	return nil
}

// concurrentAcquireAndReplace has the calls of a refresh: the holder replaces the item and
// releases the lease, while others call Acquire with the former version. The lease is
// held while the item has that version, so no such call may succeed.
func concurrentAcquireAndReplace(p probe) error {
	for range rounds {
		id, lease, err := p.held(0)
		if err != nil {
			return err
		}
		errs := together(racers, func(i int) error {
			if i == 0 {
				return errors.Join(p.replaces(id, p.item(2, "second")), p.a.releases(id, lease.Holder))
			}
			return p.racer(i).acquireUntilReplaced(id)
		})
		if err := errors.Join(append(errs, p.leaseFree(id, 2))...); err != nil {
			return err
		}
	}
	return nil
}

func (s peer) acquireUntilReplaced(id session.ID) error {
	for {
		_, err := s.Acquire(s.ctx, id, 1, newHolder(), session.Lease{})
		switch {
		case errors.Is(err, session.ErrConflict):
			return nil
		case err == nil:
			return errors.New("Acquire with a version that was replaced before the lease became free: got nil, want ErrConflict")
		case !errors.Is(err, session.ErrLeased):
			return fmt.Errorf("Acquire: got error %w, want ErrLeased or ErrConflict", err)
		}
	}
}

func concurrentDeleteAtAndReplace(p probe) error {
	for range rounds {
		id := newID()
		if err := p.creates(id, p.item(1, "first")); err != nil {
			return err
		}
		winner, err := race(racers, func(i int) error {
			if i%4 < 2 {
				return p.racer(i).Replace(p.ctx, id, racerItem(p, 2, i))
			}
			return p.racer(i).DeleteAt(p.ctx, id, 1, session.Holder{})
		}, session.ErrConflict)
		if err != nil {
			return fmt.Errorf("concurrent Replace and DeleteAt: %w", err)
		}
		if winner%4 < 2 {
			err = p.holds(id, racerItem(p, 2, winner))
		} else {
			err = p.lacks(id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func concurrentDeleteAtAndTakeover(p probe) error {
	for range rounds {
		id, seen, err := p.held(0)
		if err != nil {
			return err
		}
		winner, err := race(2, func(i int) error {
			if i == 0 {
				return p.a.DeleteAt(p.ctx, id, 1, seen.Holder)
			}
			_, err := p.b.Acquire(p.ctx, id, 1, newHolder(), seen)
			return err
		}, session.ErrConflict, session.ErrNotFound)
		if err != nil {
			return fmt.Errorf("concurrent DeleteAt (nil or ErrConflict) and Acquire (nil or ErrNotFound): %w", err)
		}
		if winner == 0 {
			err = p.lacks(id)
		} else {
			err = p.holds(id, p.item(1, "first"))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

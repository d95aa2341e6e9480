package storetest

import (
	"errors"
	"fmt"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// rounds is how often each race is run: the worst moment comes by chance.
const rounds = 30

var leaseRaceChecks = []check{
	{
		"concurrent/Acquire",
		"Acquire is one step: of many that race for a free lease one wins, and the others see whose it is.",
		concurrentAcquire,
	},
	{
		"concurrent/takeover",
		"Acquire is one step: of many that have seen the same lease one takes it over.",
		concurrentTakeover,
	},
	{
		"concurrent/takeover and Beat",
		"A lease is either taken over as it was seen or beaten: never both.",
		concurrentTakeoverAndBeat,
	},
	{
		"concurrent/Acquire and Replace",
		"Acquire compares the version and takes the lease in one step: it never wins with an overtaken version.",
		concurrentAcquireAndReplace,
	},
	{
		"concurrent/DeleteAt and Replace",
		"DeleteAt compares and removes in one step: of it and the Replace of the same version one wins.",
		concurrentDeleteAtAndReplace,
	},
	{
		"concurrent/DeleteAt and takeover",
		"DeleteAt looks at the lease and removes in one step: either it wins, or who takes the lease over.",
		concurrentDeleteAtAndTakeover,
	},
}

// racer returns one process or the other.
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
			return fmt.Errorf("Acquire: a loser was shown %s, the winner %s", leaseText(lease), leaseText(leases[winner]))
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
			return fmt.Errorf("Beat (to win or to get ErrConflict) and Acquire (to win or to get ErrLeased): %w", err)
		}
		if err := p.leaseIs(id, 1, []session.Lease{raised, next}[winner]); err != nil {
			return err
		}
	}
	return nil
}

// concurrentAcquireAndReplace is what happens around each refresh: the holder
// commits and releases, while others still come with the version before. While
// the item has that version the lease is held; when it is free, the item has
// the next.
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
			return p.racer(i).acquireUntilOvertaken(id)
		})
		if err := errors.Join(append(errs, p.leaseFree(id, 2))...); err != nil {
			return err
		}
	}
	return nil
}

func (s peer) acquireUntilOvertaken(id session.ID) error {
	for {
		_, err := s.Acquire(s.ctx, id, 1, newHolder(), session.Lease{})
		switch {
		case errors.Is(err, session.ErrConflict):
			return nil
		case err == nil:
			return errors.New("Acquire won with a version that was overtaken before the lease became free")
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
			return fmt.Errorf("Replace and DeleteAt: %w", err)
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
			return fmt.Errorf("DeleteAt (to win or to get ErrConflict) and Acquire (to win or to get ErrNotFound): %w", err)
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

package storetest

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

func acquireForgets(b *brokenShared) {
	b.acquire = func(_ context.Context, _ session.ID, _ uint64, holder session.Holder, _ session.Lease) (session.Lease, error) {
		return session.Lease{Holder: holder}, nil
	}
}

// afterAcquire changes the results of a correct Acquire.
func afterAcquire(b *brokenShared, change func(lease session.Lease, err error) (session.Lease, error)) {
	b.acquire = func(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
		return change(b.process.Acquire(ctx, id, version, holder, seen))
	}
}

func hidesLease(b *brokenShared) {
	afterAcquire(b, func(lease session.Lease, err error) (session.Lease, error) {
		if err != nil {
			lease = session.Lease{}
		}
		return lease, err
	})
}

func missingIsConflict(b *brokenShared) {
	afterAcquire(b, func(lease session.Lease, err error) (session.Lease, error) {
		if errors.Is(err, session.ErrNotFound) {
			err = session.ErrConflict
		}
		return lease, err
	})
}

// acquireLocksMissing creates a lease without an item.
func acquireLocksMissing(b *brokenShared) {
	b.acquire = func(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
		lease, err := b.process.Acquire(ctx, id, version, holder, seen)
		if errors.Is(err, session.ErrNotFound) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.leases[id] = session.Lease{Holder: holder}
			b.dropLease = func(session.ID) {}
		}
		return lease, err
	}
}

// acquiresIf takes over a held lease if the condition is true, although the lease is not
// equal to seen.
func acquiresIf(b *brokenShared, condition func(holder session.Holder, current, seen session.Lease) bool) {
	b.acquire = func(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
		lease, err := b.process.Acquire(ctx, id, version, holder, seen)
		if errors.Is(err, session.ErrLeased) && condition(holder, lease, seen) {
			return b.process.Acquire(ctx, id, version, holder, lease)
		}
		return lease, err
	}
}

func acquireAgain(b *brokenShared) {
	acquiresIf(b, func(holder session.Holder, current, _ session.Lease) bool { return holder == current.Holder })
}

func acquireIgnoresBeat(b *brokenShared) {
	acquiresIf(b, func(_ session.Holder, current, seen session.Lease) bool { return seen.Holder == current.Holder })
}

func acquireIgnoresHolder(b *brokenShared) {
	acquiresIf(b, func(_ session.Holder, current, seen session.Lease) bool { return seen.Beat == current.Beat })
}

func acquireAnyVersion(b *brokenShared) {
	b.acquire = func(ctx context.Context, id session.ID, _ uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
		v, err := version(ctx, b.process.ViewCurrent, id)
		if err != nil {
			return session.Lease{}, err
		}
		return b.process.Acquire(ctx, id, v, holder, seen)
	}
}

// leasedBeforeVersion checks the lease before the version.
func leasedBeforeVersion(b *brokenShared) {
	b.acquire = func(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
		b.mu.Lock()
		lease, held := b.leases[id]
		b.mu.Unlock()
		if held && lease != seen {
			return lease, session.ErrLeased
		}
		return b.process.Acquire(ctx, id, version, holder, seen)
	}
}

func takeoverKeepsBeat(b *brokenShared) {
	b.acquire = func(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
		lease, err := b.process.Acquire(ctx, id, version, holder, seen)
		if err == nil && seen.Beat > 0 {
			err = b.process.Beat(ctx, id, session.Lease{Holder: holder, Beat: seen.Beat})
		}
		return lease, err
	}
}

func acquireNeverTakesOver(b *brokenShared) {
	b.acquire = func(ctx context.Context, id session.ID, version uint64, holder session.Holder, _ session.Lease) (session.Lease, error) {
		return b.process.Acquire(ctx, id, version, holder, session.Lease{})
	}
}

// freeMustEqualSeen refuses a free lease if seen is not zero.
func freeMustEqualSeen(b *brokenShared) {
	b.acquire = func(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
		b.mu.Lock()
		lease := b.leases[id]
		b.mu.Unlock()
		if lease != seen {
			return lease, session.ErrLeased
		}
		return b.process.Acquire(ctx, id, version, holder, seen)
	}
}

func oneLeaseForAll(b *brokenShared) {
	b.acquire = func(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
		b.mu.Lock()
		for lease := range maps.Values(b.leases) {
			b.mu.Unlock()
			return lease, session.ErrLeased
		}
		b.mu.Unlock()
		return b.process.Acquire(ctx, id, version, holder, seen)
	}
}

func acquireIgnoresContext(b *brokenShared) {
	b.acquire = func(_ context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
		return b.process.Acquire(context.Background(), id, version, holder, seen)
	}
}

// acquireInTwoSteps checks the item and the lease, and writes the lease in another step.
func acquireInTwoSteps(b *brokenShared) {
	slowly(b)
	b.acquire = func(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
		b.mu.Lock()
		before, held := b.leases[id]
		b.mu.Unlock()
		if item, err := b.read(ctx, id); err != nil {
			return session.Lease{}, err
		} else if item.Version != version {
			return session.Lease{}, session.ErrConflict
		}
		if held && before != seen {
			return before, session.ErrLeased
		}
		aMoment()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.leases[id] = session.Lease{Holder: holder}
		return b.leases[id], nil
	}
}

// acquireChecksVersionFirst checks the version, and the lease in another step.
func acquireChecksVersionFirst(b *brokenShared) {
	slowly(b)
	b.acquire = func(ctx context.Context, id session.ID, want uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
		got, err := version(ctx, b.process.ViewCurrent, id)
		switch {
		case err != nil:
			return session.Lease{}, err
		case got == 0:
			return session.Lease{}, session.ErrNotFound
		case got != want:
			return session.Lease{}, session.ErrConflict
		}
		aMoment()
		b.mu.Lock()
		defer b.mu.Unlock()
		if lease, held := b.leases[id]; held && lease != seen {
			return lease, session.ErrLeased
		}
		b.leases[id] = session.Lease{Holder: holder}
		return b.leases[id], nil
	}
}

// leaseExpiresEarly frees a lease after half an hour.
func leaseExpiresEarly(b *brokenShared) {
	b.acquire = func(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
		lease, err := b.process.Acquire(ctx, id, version, holder, seen)
		if err == nil {
			time.AfterFunc(30*time.Minute, func() { _ = b.process.Release(context.Background(), id, holder) })
		}
		return lease, err
	}
}

func beatWritesItem(b *brokenShared) {
	b.beat = func(ctx context.Context, id session.ID, lease session.Lease) error {
		item, err := b.read(ctx, id)
		if err != nil {
			return err
		}
		item.Version++
		return errors.Join(b.process.Beat(ctx, id, lease), b.process.Replace(ctx, id, item))
	}
}

func replaceFreesLease(b *brokenShared) {
	b.replace = func(ctx context.Context, id session.ID, item session.Item) error {
		b.mu.Lock()
		delete(b.leases, id)
		b.mu.Unlock()
		return b.process.Replace(ctx, id, item)
	}
}

func beatDoesNothing(b *brokenShared) {
	b.beat = func(context.Context, session.ID, session.Lease) error { return nil }
}

func beatLowers(b *brokenShared) {
	b.beat = func(ctx context.Context, id session.ID, lease session.Lease) error {
		if err := b.process.Beat(ctx, id, lease); err != nil {
			return err
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.leases[id] = lease
		return nil
	}
}

func beatOfAnyHolder(b *brokenShared) {
	b.beat = func(_ context.Context, id session.ID, lease session.Lease) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.leases[id] = lease
		return nil
	}
}

// beatAcquires gives a free lease to the caller.
func beatAcquires(b *brokenShared) {
	b.beat = func(ctx context.Context, id session.ID, lease session.Lease) error {
		b.mu.Lock()
		_, held := b.leases[id]
		b.mu.Unlock()
		if held {
			return b.process.Beat(ctx, id, lease)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.leases[id] = lease
		return nil
	}
}

func releaseDoesNothing(b *brokenShared) {
	b.release = func(context.Context, session.ID, session.Holder) error { return nil }
}

func releaseAny(b *brokenShared) {
	b.release = func(_ context.Context, id session.ID, _ session.Holder) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.leases, id)
		return nil
	}
}

func releaseOfOtherFails(b *brokenShared) {
	b.release = func(ctx context.Context, id session.ID, holder session.Holder) error {
		b.mu.Lock()
		lease := b.leases[id]
		b.mu.Unlock()
		if lease.Holder != holder {
			return session.ErrConflict
		}
		return b.process.Release(ctx, id, holder)
	}
}

func deleteAtDoesNothing(b *brokenShared) {
	b.deleteAt = func(context.Context, session.ID, uint64, session.Holder) error { return nil }
}

func deleteAtZeroIsAHolder(b *brokenShared) {
	b.deleteAt = func(ctx context.Context, id session.ID, version uint64, holder session.Holder) error {
		b.mu.Lock()
		lease := b.leases[id]
		b.mu.Unlock()
		if lease.Holder != holder {
			return session.ErrConflict
		}
		return b.process.DeleteAt(ctx, id, version, holder)
	}
}

func deleteAtAnyVersion(b *brokenShared) {
	b.deleteAt = func(ctx context.Context, id session.ID, _ uint64, holder session.Holder) error {
		v, err := version(ctx, b.process.ViewCurrent, id)
		if err != nil {
			return err
		}
		return b.process.DeleteAt(ctx, id, v, holder)
	}
}

func deleteAtIgnoresHolder(b *brokenShared) {
	b.deleteAt = func(ctx context.Context, id session.ID, version uint64, _ session.Holder) error {
		return b.process.DeleteAt(ctx, id, version, session.Holder{})
	}
}

func deleteAtMissingIsNil(b *brokenShared) {
	b.deleteAt = func(ctx context.Context, id session.ID, v uint64, holder session.Holder) error {
		if got, err := version(ctx, b.process.ViewCurrent, id); got == 0 && err == nil {
			return nil
		}
		return b.process.DeleteAt(ctx, id, v, holder)
	}
}

func deleteAtInTwoSteps(b *brokenShared) {
	slowly(b)
	b.deleteAt = func(ctx context.Context, id session.ID, want uint64, holder session.Holder) error {
		item, err := b.read(ctx, id)
		b.mu.Lock()
		lease := b.leases[id]
		b.mu.Unlock()
		switch {
		case errors.Is(err, session.ErrNotFound), item.Version != want,
			holder != session.Holder{} && lease.Holder != holder:
			return session.ErrConflict
		case err != nil:
			return err
		}
		aMoment()
		return b.process.Delete(ctx, id)
	}
}

// leaseStays keeps the lease of an item that has ended.
func leaseStays(b *brokenShared) {
	b.dropLease = func(session.ID) {}
}

package session

import (
	"context"
	"errors"
)

// SharedStore is a Store that several processes use at the same time. What it
// adds lets them agree on who redeems a refresh token (the lease), lets each of
// them keep copies of what it reads, and tells them of what the others do.
// docs/protocol says how it is used and why it is so; package storetest holds
// the tests.
//
// Every method is one step: it happens as a whole or not at all, also when its
// answer is lost.
type SharedStore interface {
	// View may answer from a copy that this process keeps, if Watch tells of
	// its change. What it shows is taken for current until then, for a second at
	// most. Delete also removes the lease.
	Store

	// ViewCurrent is View past every copy: it shows all writes that were
	// acknowledged before the call.
	ViewCurrent(ctx context.Context, id ID, f func(Item) error) error

	// Acquire gives the lease of a session to holder, with beat 0, if the item
	// has the given version and the lease is free, or is still exactly what was
	// seen. The zero Lease is never there to be seen. Otherwise the error is
	// ErrNotFound if there is no item, ErrConflict if it has another version, or
	// ErrLeased, and then the lease as it is. ErrLeased says that a beat would
	// have succeeded too: a store that takes no writes now returns another
	// error, or a holder that cannot beat would look dead.
	//
	// A lease lasts until it is released or its item is gone, however long that
	// is: only another process, watching, can tell that a holder is dead.
	Acquire(ctx context.Context, id ID, version uint64, holder Holder, seen Lease) (Lease, error)

	// Beat raises the beat of a lease to lease.Beat. It returns ErrConflict if
	// the lease is not lease.Holder's (any more).
	Beat(ctx context.Context, id ID, lease Lease) error

	// Release frees the lease if holder has it; if not, that is no error.
	Release(ctx context.Context, id ID, holder Holder) error

	// DeleteAt removes the item and its lease if the item has the given version
	// and holder has the lease; the zero Holder stands for any state of the
	// lease. Otherwise, also when there is no item, it returns ErrConflict.
	DeleteAt(ctx context.Context, id ID, version uint64, holder Holder) error

	// Watch makes the store call changed soon after an item that this process
	// has read with View was written or removed by anybody, this process
	// included; once is enough for each View. Nil IDs mean that any may have been. No copy from before the
	// change is handed out once changed was called. Changed does not block.
	// Watch is called once, before the store is used.
	Watch(changed func(ids []ID))

	// Announce keeps a note of this process on a topic beside those of the
	// others, in place of its note before, and returns all notes that were
	// announced within the last minute by the clock of the store, this one
	// included. A note has 4 KiB at most.
	Announce(ctx context.Context, topic Topic, from Holder, note []byte) (notes [][]byte, err error)
}

// ErrLeased: somebody else holds the lease of this session.
var ErrLeased = errors.New("the session's lease is held")

// Holder names who holds a lease: 16 random bytes, new for each acquisition.
// With a name per process a late release could free a lease that the same
// process has acquired since.
type Holder [16]byte

// Lease is the right to refresh one session.
type Lease struct {
	Holder Holder
	// Beat rises while the holder lives.
	Beat uint64
}

// Topic is what a note is about.
type Topic [32]byte

package session

import (
	"context"
	"errors"
)

// SharedStore is a Store that several processes use at the same time. It adds three
// things: a lease decides which process redeems a refresh token, each process may
// keep copies of items, and each process is notified of the changes of the others.
// docs/protocol describes the use of the methods and the reasons for their rules.
// Package storetest contains the tests.
//
// Every method is one atomic step: it happens as a whole or not at all, even if its
// response is lost.
type SharedStore interface {
	// View may return a copy that this process keeps, if the function given to Watch
	// is called when the item changes. The caller takes the item for current until
	// then, for at most a second. Delete also removes the lease.
	Store

	// ViewCurrent is View without copies: it shows all writes that were acknowledged
	// before the call.
	ViewCurrent(ctx context.Context, id ID, f func(Item) error) error

	// Acquire gives the lease of a session to holder, with beat 0. The item must have
	// the given version, and the lease must be free or be equal to seen. The zero
	// Lease equals no lease.
	//
	// Acquire returns ErrNotFound if there is no item, ErrConflict if the item has
	// another version, and ErrLeased with the current lease if the lease is held. It
	// returns ErrLeased only while the store accepts writes, and another error
	// otherwise: a holder that merely cannot write would be taken for dead.
	//
	// A lease lasts until it is released or its item is gone, however long that
	// takes: only another process can decide that a holder is dead, by watching the
	// lease.
	Acquire(ctx context.Context, id ID, version uint64, holder Holder, seen Lease) (Lease, error)

	// Beat raises the beat of a lease to lease.Beat. It returns ErrConflict if
	// lease.Holder does not hold the lease, or no longer holds it.
	Beat(ctx context.Context, id ID, lease Lease) error

	// Release frees the lease if holder has it. Otherwise it does nothing and returns
	// nil.
	Release(ctx context.Context, id ID, holder Holder) error

	// DeleteAt removes the item and its lease if the item has the given version and
	// holder has the lease. The zero Holder matches every state of the lease. DeleteAt
	// returns ErrConflict otherwise, also if there is no item.
	DeleteAt(ctx context.Context, id ID, version uint64, holder Holder) error

	// Watch makes the store call changed soon after any process, including this one,
	// has written or removed an item that this process has read with View. One call
	// for each View is enough. Nil means that any item may have changed. Once changed
	// was called, View returns no copy from before the change. Changed does not
	// block. Watch is called once, before the store is used.
	Watch(changed func(ids []ID))

	// Announce stores an announcement of this process on a topic, in place of its
	// previous one. It returns the announcements that all processes made within the
	// last minute by the store's clock, including this one. An announcement has at
	// most 4 KiB.
	Announce(ctx context.Context, topic Topic, from Holder, announcement []byte) (announcements [][]byte, err error)
}

// ErrLeased reports that another holder has the lease of this session.
var ErrLeased = errors.New("the session's lease is held")

// Holder identifies the holder of a lease: 16 random bytes, new for each
// acquisition. With one name per process, a late release could free a lease that the
// same process has acquired since.
type Holder [16]byte

// Lease is the right to refresh one session.
type Lease struct {
	Holder Holder
	// Beat is a heartbeat: the holder raises it as long as it lives.
	Beat uint64
}

// Topic groups the announcements that belong together.
type Topic [32]byte

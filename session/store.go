package session

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Errors a Store returns. Every other error means that the store could not
// answer: the keeper then neither ends a session nor lets a request through.
var (
	// ErrNotFound: no item is kept under this ID.
	ErrNotFound = errors.New("no such item")
	// ErrConflict: the item under this ID has another version than the write
	// was made from, or is gone.
	ErrConflict = errors.New("item was changed meanwhile")
	// ErrDamaged: there is something under this ID, and the store cannot read it
	// as an item. It is an ErrNotFound of which the keeper tells its observer.
	ErrDamaged = fmt.Errorf("damaged item: %w", ErrNotFound)
)

// Item is what a store keeps for one session: sealed bytes it cannot read,
// and the facts it needs in the clear.
type Item struct {
	// Version is 1 for a new item and rises by one with every write.
	Version uint64
	// Expires is when the item is gone: from then on it is not found, whether or
	// not the store has removed it. It is stored with at least one-second
	// precision. It removes expired items, and it ends WebSockets and event streams
	// of sessions that are not used any more; the times that end a session for new
	// requests are sealed inside Value.
	Expires time.Time
	// Value is the sealed record.
	Value []byte
	// Tags are what Tagged finds the item by: MaxTags at most, none of them
	// twice. Each write sets them anew. View need not tell them.
	Tags []Tag
}

// Tag is what items of one user, or of one login at the authorization server,
// have in common: a keyed hash, which tells the store nothing and is told by
// it to nobody.
type Tag [32]byte

const (
	// MaxTags is how many tags an item has at most.
	MaxTags = 2
	// MaxTagged is how many IDs Tagged returns at most.
	MaxTagged = 1 << 16
)

// Store keeps sealed session records. Package storetest holds the tests that
// every implementation passes.
//
// All methods are safe for concurrent use and honour the deadline of their
// context. A write that returned nil survives a crash of the process, except
// in a store that is documented to forget.
type Store interface {
	// View calls f with the item under id, or returns ErrNotFound. Item.Value
	// is only valid until f returns and must not be modified, so that a store
	// can hand out its own memory: this is the read of proxied requests.
	// f is short and does not call the store. Its error is returned unchanged.
	View(ctx context.Context, id ID, f func(Item) error) error

	// Create keeps a new item, with a copy of its value. It returns ErrConflict
	// when there is one.
	Create(ctx context.Context, id ID, item Item) error

	// Replace overwrites the item under id if its version is item.Version-1,
	// and returns ErrConflict otherwise, also when there is no item: a write
	// never brings back what was deleted.
	Replace(ctx context.Context, id ID, item Item) error

	// Delete removes the item, whatever its version. Deleting what is not
	// there is no error.
	Delete(ctx context.Context, id ID) error

	// Tagged returns the IDs of the items that carry a tag, in any order, each
	// once. An item whose write has returned nil is among them. An ID may be
	// listed whose item had the tag and is gone, or has other tags by now, or was
	// to get it by a write that failed, but no other. Of more than MaxTagged it
	// returns that many, those that expire last if it can tell.
	Tagged(ctx context.Context, tag Tag) ([]ID, error)
}

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
	// ErrNotFound reports that the store has no item under this ID.
	ErrNotFound = errors.New("no such item")
	// ErrConflict reports that the item does not have the version that the write
	// expects, or that it is gone.
	ErrConflict = errors.New("item was changed meanwhile")
	// ErrDamaged reports data under this ID that the store cannot decode as an
	// item. It wraps ErrNotFound. The keeper reports it to its observer.
	ErrDamaged = fmt.Errorf("damaged item: %w", ErrNotFound)
)

// Item is the stored form of one session: sealed bytes, and the facts that the
// store needs in the clear.
type Item struct {
	// Version is 1 for a new item and rises by one with every write.
	Version uint64
	// Expires is the time at which the item ends: from then on the store does not
	// find it, whether or not it has removed it. It is stored with at least
	// one-second precision. The store removes items by it, and the keeper ends
	// WebSockets and event streams of unused sessions by it. The times that end a
	// session for new requests are sealed inside Value.
	Expires time.Time
	// Value is the sealed record.
	Value []byte
	// Tags are the keys under which Tagged finds the item: at most MaxTags, all
	// different. Each write replaces them. View may leave them out.
	Tags []Tag
	// Label is sealed data about the item for operators, at most MaxLabel bytes. List
	// finds the items that have one. Each write replaces it. View may leave it out.
	Label []byte
}

// Tag is a value that the items of one user, or of one login at the authorization
// server, share. It is an HMAC: it reveals nothing to the store, which must not
// expose it.
type Tag [32]byte

const (
	// MaxTags is the largest number of tags of an item.
	MaxTags = 2
	// MaxTagged is the largest number of IDs that Tagged returns.
	MaxTagged = 1 << 16
)

// Store keeps sealed session records. Every implementation passes the tests of
// package storetest.
//
// All methods are safe for concurrent use and honour the deadline of their
// context. A write that returned nil survives a crash of the process, unless the
// store's documentation says that it does not.
type Store interface {
	// View calls f with the item under id, or returns ErrNotFound. Item.Value is
	// only valid until f returns and must not be modified. A store can therefore
	// hand out its own memory, which matters because proxied requests call View.
	// f is short and does not call the store. View returns the error of f unchanged.
	View(ctx context.Context, id ID, f func(Item) error) error

	// Create stores a new item with a copy of its value. It returns ErrConflict if
	// the ID has an item.
	Create(ctx context.Context, id ID, item Item) error

	// Replace overwrites the item under id if its version is item.Version-1. It
	// returns ErrConflict otherwise, also if there is no item: a write never
	// restores a deleted item.
	Replace(ctx context.Context, id ID, item Item) error

	// Delete removes the item, whatever its version. Deleting a missing item is no
	// error.
	Delete(ctx context.Context, id ID) error

	// Tagged returns the IDs of the items that carry a tag, in any order, each once.
	// An item is among them as soon as its write has returned nil. Tagged may also
	// return items that had the tag and are gone or have other tags now, and items
	// that a failed write would have given the tag, but no others. If more than
	// MaxTagged items carry the tag, it returns MaxTagged of them, preferably those
	// that expire last.
	Tagged(ctx context.Context, tag Tag) ([]ID, error)

	// List returns the IDs of items with a label that are greater than after, in
	// ascending order of their bytes: the first limit ones, or all if there are fewer.
	// An item is among them as soon as its write has returned nil, until it is gone.
	// List may also return IDs of items that are gone, or have no label now. So a
	// caller that continues after the last ID of each page finds every item that
	// exists during the whole list, and no ID twice. limit is between 1 and MaxListed.
	List(ctx context.Context, after ID, limit int) ([]ID, error)

	// Labels returns the items under ids that exist, with their labels, in the order of
	// ids. It shows all writes that returned nil before the call. There are at most
	// MaxListed ids. The labels are copies.
	Labels(ctx context.Context, ids []ID) ([]Labelled, error)
}

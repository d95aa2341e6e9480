// Package bolt keeps sessions in one file, with go.etcd.io/bbolt. Sessions
// survive a restart and a crash of the process.
//
// # One process
//
// The file belongs to one process and to one [Store] in it. A second [Open]
// waits for some seconds, long enough for the last process of a restart to
// finish, and then fails. Instances on several machines need another store.
//
// # Size
//
// Each item takes about 1.3 times its size on disk. Expired items are removed
// within about two hours of their end and their space is used again, but the
// file does not shrink. `bbolt compact` makes a small copy of a file that no
// process has open.
//
// # Failures
//
// On a full disk or a file system that became read-only, writes return errors
// and reads go on. An item that cannot be decoded counts as missing: an error
// would lock its browser out for good. A page of the file that cannot be read
// fails the calls that meet it; if bbolt meets one where it reorganises the
// file, the process ends. Such a file must be deleted: everybody logs in again.
package bolt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// errClosed is what every method returns after Close.
var errClosed = errors.New("session store is closed")

// Store is a [session.Store] in a bbolt file.
type Store struct {
	db       *bbolt.DB
	writes   chan *write
	replaces chan *write // which can wait for company

	quit       chan struct{}  // closed when Close begins
	background sync.WaitGroup // the goroutines that write
	close      func() error
}

// Open opens the store in the file at path, and creates the file (mode 0600)
// and its directory (mode 0700) if they are missing. A file or a directory
// that group or others can write is an error, except on Windows, and so is a
// file that another process keeps open for longer than five seconds.
//
// After a crash, opening reads the whole file to find its free pages: seconds for
// a million sessions, and as long as the disk takes for that if the computer was
// restarted too.
func Open(path string) (*Store, error) {
	db, err := openFile(path, openPrivate)
	if err != nil {
		return nil, fmt.Errorf("opening session store %s: %w", path, err)
	}
	return newStore(db), nil
}

func newStore(db *bbolt.DB) *Store {
	s := &Store{
		db:       db,
		writes:   make(chan *write),
		replaces: make(chan *write),
		quit:     make(chan struct{}),
	}
	s.close = sync.OnceValue(s.shutDown)
	s.background.Go(s.commitLoop)
	s.background.Go(s.sweepLoop)
	return s
}

// Close ends the store after the writes that were accepted and the views that
// are running. Every other call returns an error, now and later. Close can be
// called again, but not from the callback of View.
func (s *Store) Close() error { return s.close() }

func (s *Store) shutDown() error {
	close(s.quit)
	s.background.Wait()
	return closeFile(s.db)
}

// View implements [session.Store]. The callback must be short and must not
// call the store: while it runs, the store can neither reuse the pages it
// reads nor let the file grow, so that all writes may wait for it. The value
// is read-only memory; writing into it ends the process.
//
// The context is only looked at before: the read is one look into mapped
// memory, which nothing can interrupt.
func (s *Store) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("reading session: %w", err)
	}
	tx, err := s.db.Begin(false)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return errClosed
	}
	if err != nil {
		return fmt.Errorf("reading session: %w", err)
	}
	defer func() { _ = tx.Rollback() }()

	item, found, err := lookup(tx, id, time.Now())
	if err != nil {
		return err
	}
	switch {
	case found:
		return f(item)
	case item.Version == 0 && tx.Bucket(itemsBucket).Get(id[:]) != nil:
		return session.ErrDamaged
	}
	return session.ErrNotFound
}

// Create implements [session.Store]. If ctx ends first, the write may still
// happen.
func (s *Store) Create(ctx context.Context, id session.ID, item session.Item) error {
	encoded, tags := encodeItem(item), encodeTags(item.Tags)
	return s.write(ctx, s.writes, func(tx *bbolt.Tx) error {
		_, found, err := lookup(tx, id, time.Now())
		if err != nil {
			return err
		}
		if found {
			return session.ErrConflict
		}
		if err := putIndex(tx, id, item.Expires); err != nil {
			return err
		}
		if err := setTags(tx, id, tags); err != nil {
			return err
		}
		return putItem(tx, id, encoded)
	})
}

// Replace implements [session.Store]. If ctx ends first, the write may still
// happen.
func (s *Store) Replace(ctx context.Context, id session.ID, item session.Item) error {
	encoded, tags := encodeItem(item), encodeTags(item.Tags)
	return s.write(ctx, s.replaces, func(tx *bbolt.Tx) error {
		old, found, err := lookup(tx, id, time.Now())
		if err != nil {
			return err
		}
		if !found || old.Version+1 != item.Version {
			return session.ErrConflict
		}
		// The index is not touched: the sweep moves the old entry.
		if err := setTags(tx, id, tags); err != nil {
			return err
		}
		return putItem(tx, id, encoded)
	})
}

// Delete implements [session.Store]. If ctx ends first, the item may still be
// deleted.
func (s *Store) Delete(ctx context.Context, id session.ID) error {
	return s.write(ctx, s.writes, func(tx *bbolt.Tx) error {
		if _, _, err := lookup(tx, id, time.Now()); err != nil {
			return err
		}
		// Its entry in the index of the sweep stays until that comes by.
		return deleteItem(tx, id)
	})
}

// lookup returns the item under id, whose value is memory of the transaction.
// An item that cannot be decoded or has expired is not found.
//
// Every write looks first. A damaged page thus fails the one call that meets
// it, while a panic inside a write would end in bbolt's rollback, which reads
// the whole file.
func lookup(tx *bbolt.Tx, id session.ID, now time.Time) (item session.Item, found bool, err error) {
	defer recoverDamage(&err)
	item, ok := decodeItem(tx.Bucket(itemsBucket).Get(id[:]))
	return item, ok && now.Before(item.Expires), nil
}

func putItem(tx *bbolt.Tx, id session.ID, encoded []byte) error {
	if err := tx.Bucket(itemsBucket).Put(id[:], encoded); err != nil {
		return fmt.Errorf("writing session: %w", err)
	}
	return nil
}

func deleteItem(tx *bbolt.Tx, id session.ID) error {
	if err := tx.Bucket(itemsBucket).Delete(id[:]); err != nil {
		return fmt.Errorf("deleting session: %w", err)
	}
	return setTags(tx, id, nil)
}

// Interface guard
var _ session.Store = (*Store)(nil)

// Package bolt keeps sessions in one file, with go.etcd.io/bbolt. Sessions
// survive a restart and a crash of the process.
//
// # One process
//
// The file belongs to one process and to one [Store] in it. A second [Open] waits
// for 5 seconds, so that at a restart the former process can finish, and then
// fails. Instances on several machines need another store.
//
// # Size
//
// Each item takes about 1.3 times its size on disk. The sweep removes expired items
// within about two hours of their end. Their space is reused, but the file does not
// shrink. `bbolt compact` makes a small copy of a file that no process has open.
//
// # Failures
//
// If the disk is full or the file system has become read-only, writes return errors
// and reads succeed. An item that cannot be decoded counts as missing: an error would
// lock out its browser for good. A page of the file that cannot be read fails the
// calls that read it. If bbolt reads such a page while it reorganises the file, the
// process ends. Open finds most of such pages first, and returns ErrDamaged: see [SetAside].
//
// The package never decrypts a value, and never writes to another file.
package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// errClosed is the error of every method after Close.
var errClosed = errors.New("session store is closed")

// Store is a [session.Store] in a bbolt file.
type Store struct {
	db *bbolt.DB
	// writes has the changes that a user waits for, and those of the sweep.
	writes chan *write
	// replaces has the changes that may wait, so that more of them share a
	// transaction.
	replaces chan *write

	quit       chan struct{}  // closed when Close begins
	background sync.WaitGroup // the committer and the sweep
	close      func() error
}

// Open opens the store in the file at path. It creates the file (mode 0600) and its
// directory (mode 0700) if they are missing. It returns an error if group or others
// can write the file or the directory, except on Windows, if another process keeps the
// file open for longer than 5 seconds, and ErrDamaged.
//
// After a crash, Open reads the whole file to find its free pages. For a million
// sessions (4.6 GB) that takes 2 to 4 seconds, and 5 to 16 if the computer was
// restarted too and the file comes from the disk.
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

// Close waits for accepted writes and running views, and then closes the file. All
// other calls return an error from the start of Close. Close may be called again, but
// not from the callback of View.
func (s *Store) Close() error { return s.close() }

func (s *Store) shutDown() error {
	close(s.quit)
	s.background.Wait()
	return closeFile(s.db)
}

// View implements [session.Store]. The callback must be short and must not call the
// store: while it runs, the store cannot reuse the pages of the transaction and the
// file cannot grow, so all writes may wait for it. The value is read-only memory, and
// writing to it ends the process.
//
// View checks the context only before the read: nothing can interrupt an access to
// mapped memory.
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
	encoded, tags, label := encodeItem(item), encodeTags(item.Tags), bytes.Clone(item.Label)
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
		if err := describe(tx, id, tags, label); err != nil {
			return err
		}
		return putItem(tx, id, encoded)
	})
}

// Replace implements [session.Store]. If ctx ends first, the write may still
// happen.
func (s *Store) Replace(ctx context.Context, id session.ID, item session.Item) error {
	encoded, tags, label := encodeItem(item), encodeTags(item.Tags), bytes.Clone(item.Label)
	return s.write(ctx, s.replaces, func(tx *bbolt.Tx) error {
		old, found, err := lookup(tx, id, time.Now())
		if err != nil {
			return err
		}
		if !found || old.Version+1 != item.Version {
			return session.ErrConflict
		}
		// The sweep moves the old entry of the index.
		if err := describe(tx, id, tags, label); err != nil {
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
		// The sweep removes the entry of the index.
		return deleteItem(tx, id)
	})
}

// lookup returns the item under id. The item's value is memory of the transaction. An
// item that cannot be decoded or has expired is not found.
//
// Every write calls lookup first. A damaged page then fails only this call. After a
// panic in a later step, bbolt would read the whole file to find its free pages.
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
	return describe(tx, id, nil, nil)
}

// Interface guard
var _ session.Store = (*Store)(nil)

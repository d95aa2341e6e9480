package bolt

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/oauth-session/caddy-oauth-session/session"
)

const (
	// sweepInterval is the time between two sweeps. The first one starts at Open.
	// Expired items are invisible before the sweep, too.
	sweepInterval = time.Hour

	// sweepLimit is the number of index entries in one transaction. Each delays the
	// other writers by about 0.2 ms.
	sweepLimit = 20
)

func (s *Store) sweepLoop() {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		// The other writes report an error such as a full disk. The next sweep finds
		// the same entries again.
		_ = s.sweep(context.Background(), time.Now())
		select {
		case <-ticker.C:
		case <-s.quit:
			return
		}
	}
}

// sweep removes the items that had expired by the last full hour. Its transactions
// take turns with other writes.
func (s *Store) sweep(ctx context.Context, now time.Time) error {
	for handled := sweepLimit; handled == sweepLimit; {
		s.prefetchDue(now)
		err := s.write(ctx, s.writes, func(tx *bbolt.Tx) (err error) {
			handled, err = sweepStep(tx, now)
			return err
		})
		if err != nil {
			return fmt.Errorf("removing expired sessions: %w", err)
		}
	}
	return nil
}

// prefetchDue reads the pages of the next step into the page cache. Expired items have
// not been used for hours, so their pages may have to come from the disk. Inside the
// step's transaction, all writers would wait for these reads. The step reports errors.
func (s *Store) prefetchDue(now time.Time) {
	var due []indexKey
	_ = s.db.View(func(tx *bbolt.Tx) error {
		due = dueEntries(tx, now)
		return nil
	})
	for _, entry := range due {
		// One short view each, because a running view prevents the file from growing.
		_ = s.db.View(func(tx *bbolt.Tx) error {
			prefetch(tx, entry.id())
			return nil
		})
	}
}

// prefetch reads the leaf pages that deleteItem changes. It ignores damaged pages:
// sweepEntry handles them.
func prefetch(tx *bbolt.Tx, id session.ID) {
	var damage error
	defer recoverDamage(&damage)
	_ = bytes.Clone(tx.Bucket(itemsBucket).Get(id[:]))
	tx.Bucket(labelsBucket).Get(id[:])
	tags, _ := readTags(tx, id)
	_ = forEachTagKey(id, tags, func(key []byte) error {
		tx.Bucket(taggedBucket).Get(key)
		return nil
	})
}

// sweepStep handles the first due entries of the index and returns their number. The
// entry of a live item, which was replaced since, moves to the hour of its new expiry.
// That hour is always later than now, so no sweep handles an entry twice.
func sweepStep(tx *bbolt.Tx, now time.Time) (int, error) {
	due := dueEntries(tx, now)
	for _, entry := range due {
		if err := sweepEntry(tx, entry, now); err != nil {
			return 0, err
		}
	}
	return len(due), nil
}

// sweepEntry removes an entry and its item, or moves the entry of a live item.
func sweepEntry(tx *bbolt.Tx, entry indexKey, now time.Time) error {
	id := entry.id()
	item, live, err := lookup(tx, id, now)
	switch {
	case err != nil:
		// The page is damaged. The entry goes and the item stays, so that it does not
		// stop every later sweep.
	case live:
		if err := putIndex(tx, id, item.Expires); err != nil {
			return err
		}
	default:
		if err := deleteItem(tx, id); err != nil {
			return err
		}
	}
	if err := tx.Bucket(indexBucket).Delete(entry[:]); err != nil {
		return fmt.Errorf("deleting index entry: %w", err)
	}
	return nil
}

// dueEntries returns copies of the keys: a write to the bucket moves the memory that
// the cursor returns.
func dueEntries(tx *bbolt.Tx, now time.Time) []indexKey {
	var due []indexKey
	c := tx.Bucket(indexBucket).Cursor()
	for k, _ := c.First(); k != nil && len(due) < sweepLimit; k, _ = c.Next() {
		if len(k) != len(indexKey{}) {
			continue // not written by this package
		}
		entry := indexKey(k)
		if entry.hour() > hourOf(now) {
			break
		}
		due = append(due, entry)
	}
	return due
}

func putIndex(tx *bbolt.Tx, id session.ID, expires time.Time) error {
	key := newIndexKey(id, expires)
	if err := tx.Bucket(indexBucket).Put(key[:], nil); err != nil {
		return fmt.Errorf("writing index entry: %w", err)
	}
	return nil
}

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
	// sweepInterval is how often expired items are removed, besides at Open.
	// They are invisible from the moment they expire.
	sweepInterval = time.Hour

	// sweepLimit bounds the entries that one transaction handles, and so the
	// time that writers wait for it: some 0.2 ms for each.
	sweepLimit = 20
)

func (s *Store) sweepLoop() {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		// An error, such as a full disk, meets every other write too and is
		// reported there. The next round finds the same entries again.
		_ = s.sweep(context.Background(), time.Now())
		select {
		case <-ticker.C:
		case <-s.quit:
			return
		}
	}
}

// sweep removes what has expired by the last full hour. Its steps queue up
// with the writes of others.
func (s *Store) sweep(ctx context.Context, now time.Time) error {
	for handled := sweepLimit; handled == sweepLimit; {
		s.fetchDue(now)
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

// fetchDue reads what the next step will look at. Items that expire were not
// used for hours, so that it may have to come from the disk, one page after the
// other: inside a transaction everybody who writes would wait for that. An error
// meets the step itself.
func (s *Store) fetchDue(now time.Time) {
	var due []indexKey
	_ = s.db.View(func(tx *bbolt.Tx) error {
		due = dueEntries(tx, now)
		return nil
	})
	for _, entry := range due {
		// A view for each, as a view holds up the growth of the file.
		_ = s.db.View(func(tx *bbolt.Tx) error {
			fetch(tx, entry.id())
			return nil
		})
	}
}

// fetch reads the pages that deleteItem changes, as far as they are easily
// found. What it meets of damage is for settle to judge.
func fetch(tx *bbolt.Tx, id session.ID) {
	var damage error
	defer recoverDamage(&damage)
	_ = bytes.Clone(tx.Bucket(itemsBucket).Get(id[:]))
	tags, _ := tagsOf(tx, id)
	_ = eachTagged(id, tags, func(key []byte) error {
		tx.Bucket(taggedBucket).Get(key)
		return nil
	})
}

// sweepStep handles the first entries of the index that are due, and returns
// how many. An entry whose item lives, because it was replaced since, moves to
// the hour of its new expiry; that hour is always later than now, so that no
// entry is met twice.
func sweepStep(tx *bbolt.Tx, now time.Time) (int, error) {
	due := dueEntries(tx, now)
	for _, entry := range due {
		if err := settle(tx, entry, now); err != nil {
			return 0, err
		}
	}
	return len(due), nil
}

func settle(tx *bbolt.Tx, entry indexKey, now time.Time) error {
	id := entry.id()
	item, live, err := lookup(tx, id, now)
	switch {
	case err != nil:
		// A damaged page. Without its entry the item is not met again: it
		// must not keep the sweep from the others.
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

// dueEntries copies the keys, as the memory behind a cursor moves when its
// bucket changes.
func dueEntries(tx *bbolt.Tx, now time.Time) []indexKey {
	var due []indexKey
	c := tx.Bucket(indexBucket).Cursor()
	for k, _ := c.First(); k != nil && len(due) < sweepLimit; k, _ = c.Next() {
		if len(k) != len(indexKey{}) {
			continue // not ours
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

package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// listChunk is the number of items that one transaction of a list reads. Their pages may
// have to come from the disk, and while a transaction runs the file cannot grow.
const listChunk = 32

// List implements [session.Store]. It also lists expired items that the sweep has not
// removed yet. It checks the context between transactions.
func (s *Store) List(ctx context.Context, after session.ID, limit int) (ids []session.ID, err error) {
	for more := true; more && len(ids) < limit; {
		want := min(listChunk, limit-len(ids))
		err := s.inView(ctx, "listing sessions", func(tx *bbolt.Tx) error {
			page := labelledAfter(tx, after, want)
			ids, more = append(ids, page...), len(page) == want
			return nil
		})
		if err != nil {
			return nil, err
		}
		if more {
			after = ids[len(ids)-1]
		}
	}
	return ids, nil
}

// labelledAfter returns the first IDs in the bucket of labels that are greater than after.
func labelledAfter(tx *bbolt.Tx, after session.ID, limit int) (ids []session.ID) {
	c := tx.Bucket(labelsBucket).Cursor()
	for k, _ := c.Seek(after[:]); k != nil && len(ids) < limit; k, _ = c.Next() {
		if len(k) == len(after) && !bytes.Equal(k, after[:]) {
			ids = append(ids, session.ID(k))
		}
	}
	return ids
}

// Labels implements [session.Store]. It checks the context between transactions.
func (s *Store) Labels(ctx context.Context, ids []session.ID) (found []session.Labelled, err error) {
	for first := true; first || len(ids) > 0; first = false {
		chunk := ids[:min(len(ids), listChunk)]
		ids = ids[len(chunk):]
		err := s.inView(ctx, "reading labels", func(tx *bbolt.Tx) error {
			now := time.Now()
			for _, id := range chunk {
				_, exists, err := lookup(tx, id, now)
				if err != nil {
					return err
				}
				if exists {
					found = append(found, session.Labelled{ID: id, Label: bytes.Clone(tx.Bucket(labelsBucket).Get(id[:]))})
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// inView runs f in a read-only transaction. A damaged page is an error.
func (s *Store) inView(ctx context.Context, doing string, f func(*bbolt.Tx) error) (err error) {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	tx, err := s.db.Begin(false)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return errClosed
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer func() { _ = tx.Rollback() }()
	defer recoverDamage(&err)
	return f(tx)
}

// describe replaces the tags and the label of an item. It reads both before it writes
// either: a damaged page must fail the call before anything has changed.
func describe(tx *bbolt.Tx, id session.ID, tags, label []byte) error {
	if err := probeLabel(tx, id); err != nil {
		return err
	}
	if err := setTags(tx, id, tags); err != nil {
		return err
	}
	bucket := tx.Bucket(labelsBucket)
	var err error
	if len(label) == 0 {
		err = bucket.Delete(id[:])
	} else {
		err = bucket.Put(id[:], label)
	}
	if err != nil {
		return fmt.Errorf("writing label: %w", err)
	}
	return nil
}

// probeLabel returns an error if the page of an item's label is damaged.
func probeLabel(tx *bbolt.Tx, id session.ID) (err error) {
	defer recoverDamage(&err)
	tx.Bucket(labelsBucket).Get(id[:])
	return nil
}

package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/oauth-session/caddy-oauth-session/session"
)

const tagSize = len(session.Tag{})

// Tagged implements [session.Store]. It also lists expired items that the sweep has
// not removed yet.
func (s *Store) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("looking up a tag: %w", err)
	}
	tx, err := s.db.Begin(false)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return nil, errClosed
	}
	if err != nil {
		return nil, fmt.Errorf("looking up a tag: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	return lookupTag(tx, tag)
}

func lookupTag(tx *bbolt.Tx, tag session.Tag) (ids []session.ID, err error) {
	defer recoverDamage(&err)
	c := tx.Bucket(taggedBucket).Cursor()
	for k, _ := c.Seek(tag[:]); len(ids) < session.MaxTagged; k, _ = c.Next() {
		id, ok := bytes.CutPrefix(k, tag[:])
		if !ok || len(id) != len(session.ID{}) {
			break
		}
		ids = append(ids, session.ID(id))
	}
	return ids, nil
}

func encodeTags(tags []session.Tag) []byte {
	b := make([]byte, 0, session.MaxTags*tagSize)
	for _, tag := range tags {
		b = append(b, tag[:]...)
	}
	return b
}

// setTags replaces the tags of an item. It writes nothing if they are the same, as in
// most writes.
func setTags(tx *bbolt.Tx, id session.ID, tags []byte) error {
	old, err := readTags(tx, id)
	if err != nil || bytes.Equal(old, tags) {
		return err
	}
	bucket, tagged := tx.Bucket(tagsBucket), tx.Bucket(taggedBucket)
	err = forEachTagKey(id, old, tagged.Delete)
	if err == nil {
		err = forEachTagKey(id, tags, func(key []byte) error { return tagged.Put(key, nil) })
	}
	switch {
	case err != nil:
	case len(tags) == 0:
		err = bucket.Delete(id[:])
	default:
		err = bucket.Put(id[:], tags)
	}
	if err != nil {
		return fmt.Errorf("writing tags: %w", err)
	}
	return nil
}

// readTags returns a copy of an item's tags: a write moves bbolt's memory.
func readTags(tx *bbolt.Tx, id session.ID) (tags []byte, err error) {
	defer recoverDamage(&err)
	return bytes.Clone(tx.Bucket(tagsBucket).Get(id[:])), nil
}

// forEachTagKey calls f with the key in the tagged bucket for each tag of an item.
func forEachTagKey(id session.ID, tags []byte, f func(key []byte) error) error {
	for ; len(tags) >= tagSize; tags = tags[tagSize:] {
		key := append(bytes.Clone(tags[:tagSize]), id[:]...)
		if err := f(key); err != nil {
			return err
		}
	}
	return nil
}

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

// Tagged implements [session.Store]. It lists expired items until the sweep
// has removed them.
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

// setTags makes an item found by these tags alone. Most writes change none.
func setTags(tx *bbolt.Tx, id session.ID, tags []byte) error {
	old, err := tagsOf(tx, id)
	if err != nil || bytes.Equal(old, tags) {
		return err
	}
	bucket, tagged := tx.Bucket(tagsBucket), tx.Bucket(taggedBucket)
	err = eachTagged(id, old, tagged.Delete)
	if err == nil {
		err = eachTagged(id, tags, func(key []byte) error { return tagged.Put(key, nil) })
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

// tagsOf copies, as what is read moves when something is written.
func tagsOf(tx *bbolt.Tx, id session.ID) (tags []byte, err error) {
	defer recoverDamage(&err)
	return bytes.Clone(tx.Bucket(tagsBucket).Get(id[:])), nil
}

// eachTagged calls f with the key of each tag of an item.
func eachTagged(id session.ID, tags []byte, f func(key []byte) error) error {
	for ; len(tags) >= tagSize; tags = tags[tagSize:] {
		key := append(bytes.Clone(tags[:tagSize]), id[:]...)
		if err := f(key); err != nil {
			return err
		}
	}
	return nil
}

package bolt

import (
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/oauth-session/caddy-oauth-session/session"
)

func taggedItem(version uint64, life time.Duration, tags ...session.Tag) session.Item {
	item := newItem(version, life)
	item.Tags = tags
	return item
}

func wantTagged(t *testing.T, s *Store, tag session.Tag, want ...session.ID) {
	t.Helper()
	got, err := s.Tagged(t.Context(), tag)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Tagged: got %v, error %v, want %v", got, err, want)
	}
}

// wantTags compares the numbers of entries of the two buckets.
func wantTags(t *testing.T, s *Store, wantTagged, wantTags int) {
	t.Helper()
	err := s.db.View(func(tx *bbolt.Tx) error {
		tagged, tags := tx.Bucket(taggedBucket).Stats().KeyN, tx.Bucket(tagsBucket).Stats().KeyN
		if tagged != wantTagged || tags != wantTags {
			t.Errorf("got %d entries by tag and %d by item, want %d and %d", tagged, tags, wantTagged, wantTags)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestTagsAreRemovedWithTheirItem, by Delete, Replace and the sweep.
func TestTagsAreRemovedWithTheirItem(t *testing.T) {
	s := open(t, newPath(t))
	user, a, b := session.Tag{1}, session.Tag{2}, session.Tag{3}
	deleted, replaced, expires := session.ID{1}, session.ID{2}, session.ID{3}
	mustCreate(t, s, deleted, taggedItem(1, time.Hour, user, a))
	mustCreate(t, s, replaced, taggedItem(1, time.Hour, user, a))
	mustCreate(t, s, expires, taggedItem(1, time.Hour, user))
	wantTags(t, s, 5, 3)
	wantTagged(t, s, user, deleted, replaced, expires)
	if err := s.Delete(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	mustReplace(t, s, replaced, taggedItem(2, 9*time.Hour, user, b))
	wantTagged(t, s, user, replaced, expires)
	wantTagged(t, s, a)
	wantTagged(t, s, b, replaced)
	wantTags(t, s, 3, 2)
	mustSweep(t, s, time.Now().Add(3*time.Hour))
	wantTagged(t, s, user, replaced)
	wantTags(t, s, 2, 1)
	mustReplace(t, s, replaced, newItem(3, 9*time.Hour))
	wantTags(t, s, 0, 0)
}

func TestTagsSurviveClose(t *testing.T) {
	path := newPath(t)
	s := open(t, path)
	mustCreate(t, s, session.ID{1}, taggedItem(1, time.Hour, session.Tag{1}))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tagged(t.Context(), session.Tag{1}); err == nil {
		t.Error("Tagged of a closed store: got nil, want an error")
	}
	wantTagged(t, open(t, path), session.Tag{1}, session.ID{1})
}

// TestFileWithoutTagsGetsThem: files of the first release have no tags. Items get
// theirs with the next write.
func TestFileWithoutTagsGetsThem(t *testing.T) {
	path := newPath(t)
	s := open(t, path)
	mustCreate(t, s, session.ID{1}, newItem(1, time.Hour))
	err := s.write(t.Context(), s.writes, func(tx *bbolt.Tx) error {
		if err := tx.DeleteBucket(tagsBucket); err != nil {
			return err
		}
		return tx.DeleteBucket(taggedBucket)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	if err := view(t, s, session.ID{1}); err != nil {
		t.Errorf("View: got error %v, want nil", err)
	}
	wantTagged(t, s, session.Tag{1})
	mustReplace(t, s, session.ID{1}, taggedItem(2, time.Hour, session.Tag{1}))
	wantTagged(t, s, session.Tag{1}, session.ID{1})
}

package bolt

import (
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/oauth-session/caddy-oauth-session/session"
)

func labelledItem(version uint64, life time.Duration, label string) session.Item {
	item := newItem(version, life)
	item.Label = []byte(label)
	return item
}

// wantLabels checks the list and the number of entries in the bucket of labels.
func wantLabels(t *testing.T, s *Store, inBucket int, want ...session.ID) {
	t.Helper()
	ids, err := s.List(t.Context(), session.ID{}, session.MaxListed)
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.Labels(t.Context(), ids)
	if err != nil || len(found) != len(want) {
		t.Errorf("got %d labels and error %v, want %d", len(found), err, len(want))
	}
	for i := range min(len(found), len(want)) {
		if found[i].ID != want[i] || len(found[i].Label) == 0 {
			t.Errorf("label %d: got %v with %d bytes, want %v", i, found[i].ID, len(found[i].Label), want[i])
		}
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		if n := tx.Bucket(labelsBucket).Stats().KeyN; n != inBucket {
			t.Errorf("got %d entries in the bucket of labels, want %d", n, inBucket)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSweepRemovesLabels of expired items, and Delete those of ended sessions.
func TestSweepRemovesLabels(t *testing.T) {
	s := open(t, newPath(t))
	mustCreate(t, s, session.ID{1}, labelledItem(1, time.Hour, "expires"))
	mustCreate(t, s, session.ID{2}, labelledItem(1, 9*time.Hour, "stays"))
	mustCreate(t, s, session.ID{3}, labelledItem(1, 9*time.Hour, "ends"))
	wantLabels(t, s, 3, session.ID{1}, session.ID{2}, session.ID{3})
	if err := s.Delete(t.Context(), session.ID{3}); err != nil {
		t.Fatal(err)
	}
	mustSweep(t, s, time.Now().Add(3*time.Hour))
	wantLabels(t, s, 1, session.ID{2})
	mustReplace(t, s, session.ID{2}, newItem(2, 9*time.Hour))
	wantLabels(t, s, 0)
}

// TestFileWithoutLabelsGetsThem: files of earlier releases have no labels. Items get
// theirs with the next write. An earlier release leaves labels of items that it removes.
func TestFileWithoutLabelsGetsThem(t *testing.T) {
	path := newPath(t)
	s := open(t, path)
	mustCreate(t, s, session.ID{1}, newItem(1, time.Hour))
	err := s.write(t.Context(), s.writes, func(tx *bbolt.Tx) error { return tx.DeleteBucket(labelsBucket) })
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
	wantLabels(t, s, 0)
	mustReplace(t, s, session.ID{1}, labelledItem(2, time.Hour, "late"))
	wantLabels(t, s, 1, session.ID{1})
	err = s.write(t.Context(), s.writes, func(tx *bbolt.Tx) error {
		id := session.ID{1}
		return tx.Bucket(itemsBucket).Delete(id[:]) // as an earlier release does
	})
	if err != nil {
		t.Fatal(err)
	}
	wantLabels(t, s, 1)
}

package bolt

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// count returns the number of keys in the two buckets, including expired items.
func count(t *testing.T, s *Store) (items, index int) {
	t.Helper()
	err := s.db.View(func(tx *bbolt.Tx) error {
		items = tx.Bucket(itemsBucket).Stats().KeyN
		index = tx.Bucket(indexBucket).Stats().KeyN
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return items, index
}

func wantCount(t *testing.T, s *Store, wantItems, wantIndex int) {
	t.Helper()
	if items, index := count(t, s); items != wantItems || index != wantIndex {
		t.Errorf("got %d items and %d index entries, want %d and %d", items, index, wantItems, wantIndex)
	}
}

func mustSweep(t *testing.T, s *Store, now time.Time) {
	t.Helper()
	if err := s.sweep(t.Context(), now); err != nil {
		t.Fatalf("sweep: %v", err)
	}
}

func TestSweepRemovesExpiredItems(t *testing.T) {
	s := open(t, newPath(t))
	expires, replaced, deleted, damaged := session.ID{1}, session.ID{2}, session.ID{3}, session.ID{4}
	for _, id := range []session.ID{expires, replaced, deleted, damaged} {
		mustCreate(t, s, id, newItem(1, time.Hour))
	}
	mustReplace(t, s, replaced, newItem(2, 5*time.Hour))
	if err := s.Delete(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	if err := s.write(t.Context(), s.writes, func(tx *bbolt.Tx) error { return putItem(tx, damaged, nil) }); err != nil {
		t.Fatal(err)
	}
	now := time.Now()

	mustSweep(t, s, now)
	wantCount(t, s, 3, 4) // nothing is due
	mustSweep(t, s, now.Add(2*time.Hour))
	wantCount(t, s, 1, 1) // the replaced item, whose entry has moved
	if err := view(t, s, replaced); err != nil {
		t.Errorf("View of the item that Replace has extended: got error %v, want nil", err)
	}
	mustSweep(t, s, now.Add(4*time.Hour))
	wantCount(t, s, 1, 1)
	mustSweep(t, s, now.Add(6*time.Hour))
	wantCount(t, s, 0, 0)
}

func TestSweepStepHasAtMostSweepLimitEntries(t *testing.T) {
	for _, tt := range []struct{ items, wantTransactions int }{
		{sweepLimit - 1, 1},
		{sweepLimit, 2}, // the second one finds no entry
		{2*sweepLimit + sweepLimit/2, 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, newPath(t))
			synctest.Wait() // until the sweep of Open has ended
			err := s.write(t.Context(), s.writes, func(tx *bbolt.Tx) error {
				for i := range tt.items {
					id, item := session.ID{byte(i), byte(i >> 8)}, newItem(1, time.Hour)
					// Half of the items stay: the sweep moves their entries.
					item.Expires = item.Expires.Add(time.Duration(i%2) * 10 * time.Hour)
					if err := errors.Join(putIndex(tx, id, time.Now()), putItem(tx, id, encodeItem(item))); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			before := transactions(t, s)
			mustSweep(t, s, time.Now().Add(3*time.Hour))
			if got := transactions(t, s) - before; got != tt.wantTransactions {
				t.Errorf("%d due entries: got %d transactions, want %d", tt.items, got, tt.wantTransactions)
			}
			wantCount(t, s, tt.items/2, tt.items/2)
		})
	}
}

func TestSweepRunsAtOpenAndEveryHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		s := open(t, path)
		mustCreate(t, s, session.ID{1}, newItem(1, time.Minute))
		mustCreate(t, s, session.ID{2}, newItem(1, 10*time.Hour))
		time.Sleep(2*time.Hour + time.Minute)
		wantCount(t, s, 1, 1)

		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Hour)
		s = open(t, path)
		synctest.Wait()
		wantCount(t, s, 0, 0) // the sweep of Open
	})
}

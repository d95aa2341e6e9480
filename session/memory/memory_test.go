package memory

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(tb testing.TB) *Store {
	s := New()
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) session.Store { return open(t) })
}

func TestContractOverTime(t *testing.T) {
	storetest.RunFakeTime(t, func(t *testing.T) session.Store { return open(t) })
}

func BenchmarkStore(b *testing.B) {
	storetest.Benchmark(b, func(b *testing.B) session.Store { return open(b) })
}

func TestSweepFreesExpiredItems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		for i := range 100 {
			item := session.Item{Version: 1, Expires: time.Now().Add(time.Hour)}
			if i%2 == 0 {
				item.Expires = time.Now().Add(time.Minute)
			}
			if err := s.Create(t.Context(), session.ID{byte(i)}, item); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(sweepInterval + time.Second)
		if got := s.len(); got != 50 {
			t.Errorf("after a sweep: got %d items, want 50", got)
		}
		time.Sleep(time.Hour)
		if got := s.len(); got != 0 {
			t.Errorf("after all items expired: got %d items, want 0", got)
		}
	})
}

// TestSweepKeepsReplacedItem: the sweep saw the expired item before a write replaced it.
func TestSweepKeepsReplacedItem(t *testing.T) {
	s := open(t)
	id, seen := session.ID{1}, &session.Item{Version: 1} // expired long ago
	s.items.Store(id, seen)
	if err := s.Create(t.Context(), id, session.Item{Version: 1, Expires: time.Now().Add(time.Hour)}); err != nil {
		t.Fatalf("Create over an expired item: got error %q, want nil", err)
	}
	s.removeIfExpired(id, seen)
	if s.live(id) == nil {
		t.Error("the sweep removed the new item, want the expired one removed only")
	}
}

func TestItemsAreReadableAfterClose(t *testing.T) {
	s := New()
	item := session.Item{Version: 1, Expires: time.Now().Add(time.Hour)}
	if err := s.Create(t.Context(), session.ID{}, item); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.View(context.Background(), session.ID{}, func(session.Item) error { return nil }); err != nil {
		t.Errorf("View after Close: got error %q, want the item", err)
	}
}

func (s *Store) len() int {
	n := 0
	s.items.Range(func(any, any) bool { n++; return true })
	return n
}

// TestTagsAreRemovedWithTheirItem, by Replace, Delete and the sweep.
func TestTagsAreRemovedWithTheirItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		item := session.Item{Version: 1, Expires: time.Now().Add(time.Hour), Tags: []session.Tag{{1}, {2}}}
		for i := range 3 {
			if err := s.Create(t.Context(), session.ID{byte(i)}, item); err != nil {
				t.Fatal(err)
			}
		}
		next := item
		next.Version, next.Tags = 2, []session.Tag{{1}}
		if err := s.Replace(t.Context(), session.ID{0}, next); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), session.ID{1}); err != nil {
			t.Fatal(err)
		}
		tagged := func(tag byte) int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.tagged[session.Tag{tag}])
		}
		if a, b := tagged(1), tagged(2); a != 2 || b != 1 {
			t.Errorf("items of the two tags: got %d and %d, want 2 and 1", a, b)
		}
		time.Sleep(time.Hour + sweepInterval)
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.tagged) != 0 {
			t.Errorf("after all items expired: got %d tags, want 0", len(s.tagged))
		}
	})
}

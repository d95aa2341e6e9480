package redis

import (
	"crypto/rand"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

func open(tb testing.TB, c Config) *Store {
	tb.Helper()
	s, err := Open(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	return s
}

func newID() (id session.ID) {
	_, _ = rand.Read(id[:])
	return id
}

func newHolder() (h session.Holder) {
	_, _ = rand.Read(h[:])
	return h
}

func newItem(version uint64, value string) session.Item {
	return session.Item{Version: version, Expires: time.Now().Add(time.Hour), Value: []byte(value)}
}

func mustCreate(tb testing.TB, s *Store, id session.ID, item session.Item) {
	tb.Helper()
	if err := s.Create(tb.Context(), id, item); err != nil {
		tb.Fatalf("Create: %v", err)
	}
}

func mustReplace(tb testing.TB, s *Store, id session.ID, item session.Item) {
	tb.Helper()
	if err := s.Replace(tb.Context(), id, item); err != nil {
		tb.Fatalf("Replace: %v", err)
	}
}

func mustAcquire(tb testing.TB, s *Store, id session.ID, version uint64) session.Lease {
	tb.Helper()
	lease, err := s.Acquire(tb.Context(), id, version, newHolder(), session.Lease{})
	if err != nil {
		tb.Fatalf("Acquire: %v", err)
	}
	return lease
}

// view returns the value of an item as View reads it.
func view(tb testing.TB, s *Store, id session.ID) (value string, err error) {
	err = s.View(tb.Context(), id, func(item session.Item) error {
		value = string(item.Value)
		return nil
	})
	return value, err
}

// current returns the value of an item as ViewCurrent reads it.
func current(tb testing.TB, s *Store, id session.ID) (value string, err error) {
	err = s.ViewCurrent(tb.Context(), id, func(item session.Item) error {
		value = string(item.Value)
		return nil
	})
	return value, err
}

func wantView(tb testing.TB, s *Store, id session.ID, want string) {
	tb.Helper()
	if got, err := view(tb, s, id); err != nil || got != want {
		tb.Fatalf("View: got %q, error %v, want %q", got, err, want)
	}
}

func wantErr(tb testing.TB, call string, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("%s: got error %v, want %v", call, err, want)
	}
}

// wantServerError expects an error that is none of the answers of the contract.
func wantServerError(tb testing.TB, call string, err error) {
	tb.Helper()
	if err == nil || errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrConflict) || errors.Is(err, session.ErrLeased) {
		tb.Errorf("%s: got error %v, want an error other than ErrNotFound, ErrConflict and ErrLeased", call, err)
	}
}

// watcher counts the calls of changed.
type watcher struct {
	mu   sync.Mutex
	ids  map[session.ID]int
	nils int // calls with nil: any item may have changed
}

func watch(s *Store) *watcher {
	w := &watcher{ids: make(map[session.ID]int)}
	s.Watch(func(ids []session.ID) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if ids == nil {
			w.nils++
		}
		for _, id := range ids {
			w.ids[id]++
		}
	})
	return w
}

func (w *watcher) count(id session.ID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ids[id]
}

// resets returns the number of calls with nil.
func (w *watcher) resets() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nils
}

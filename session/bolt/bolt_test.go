package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/storetest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		crashChild(path)
	}
	goleak.VerifyTestMain(m)
}

// newPath returns a path in a directory that Open creates, because the directory of
// the test may be writable by a group.
func newPath(tb testing.TB) string {
	return filepath.Join(tb.TempDir(), "store", "sessions.db")
}

func open(tb testing.TB, path string) *Store {
	tb.Helper()
	s, err := Open(path)
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

func newItem(version uint64, life time.Duration) session.Item {
	return session.Item{Version: version, Expires: time.Now().Add(life), Value: []byte("value")}
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

func view(tb testing.TB, s *Store, id session.ID) error {
	return s.View(tb.Context(), id, func(session.Item) error { return nil })
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) session.Store { return open(t, newPath(t)) })
}

func TestContractOverTime(t *testing.T) {
	storetest.RunFakeTime(t, func(t *testing.T) session.Store { return open(t, newPath(t)) })
}

func TestItemsSurviveClose(t *testing.T) {
	path := newPath(t)
	s := open(t, path)
	mustCreate(t, s, session.ID{1}, newItem(1, time.Hour))
	mustReplace(t, s, session.ID{1}, newItem(2, time.Hour))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	err := open(t, path).View(t.Context(), session.ID{1}, func(item session.Item) error {
		if item.Version != 2 || string(item.Value) != "value" {
			t.Errorf("got version %d, value %q, want 2, \"value\"", item.Version, item.Value)
		}
		return nil
	})
	if err != nil {
		t.Errorf("View after Close and Open: got error %v, want nil", err)
	}
}

func TestDamagedItemCountsAsMissing(t *testing.T) {
	for _, size := range []int{0, 1, itemHeaderSize - 1} {
		s := open(t, newPath(t))
		id := session.ID{1}
		mustCreate(t, s, id, newItem(1, time.Hour))
		damage := func() {
			err := s.write(t.Context(), s.writes, func(tx *bbolt.Tx) error { return putItem(tx, id, make([]byte, size)) })
			if err != nil {
				t.Fatal(err)
			}
		}
		damage()
		if err := view(t, s, id); !errors.Is(err, session.ErrNotFound) || !errors.Is(err, session.ErrDamaged) {
			t.Errorf("View of %d bytes: got error %v, want ErrDamaged", size, err)
		}
		if err := s.Replace(t.Context(), id, newItem(1, time.Hour)); !errors.Is(err, session.ErrConflict) {
			t.Errorf("Replace of %d bytes: got error %v, want ErrConflict", size, err)
		}
		if err := s.Create(t.Context(), id, newItem(1, time.Hour)); err != nil {
			t.Errorf("Create over %d bytes: got error %v, want nil", size, err)
		}
		damage()
		if err := s.Delete(t.Context(), id); err != nil {
			t.Errorf("Delete of %d bytes: got error %v, want nil", size, err)
		}
		if err := view(t, s, id); !errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrDamaged) {
			t.Errorf("View of a missing item: got error %v, want ErrNotFound without ErrDamaged", err)
		}
	}
}

func TestViewCopiesNothing(t *testing.T) {
	s := open(t, newPath(t))
	item := newItem(1, time.Hour)
	item.Value = make([]byte, 1<<20)
	mustCreate(t, s, session.ID{1}, item)

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		if err := view(t, s, session.ID{1}); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("100 views of 1 MiB allocated %d bytes, want less than 1 MiB", n)
	}
}

func TestCallsDuringCloseSucceedOrReturnErrClosed(t *testing.T) {
	path := newPath(t)
	s := open(t, path)
	const workers = 16
	results := make(chan error, workers)
	running := make(chan struct{}, workers)
	for w := range workers {
		go func() {
			id := session.ID{byte(w)}
			err := s.Create(t.Context(), id, newItem(1, time.Hour))
			running <- struct{}{}
			for version := uint64(2); err == nil; version++ {
				err = errors.Join(s.Replace(t.Context(), id, newItem(version, time.Hour)), view(t, s, id))
			}
			results <- err
		}()
	}
	for range workers {
		<-running
	}
	closed := make(chan error, 2)
	for range 2 {
		go func() { closed <- s.Close() }()
	}
	for range 2 {
		if err := <-closed; err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for range workers {
		if err := <-results; !errors.Is(err, errClosed) {
			t.Errorf("a call during Close: got error %v, want errClosed", err)
		}
	}

	calls := map[string]error{
		"View":    view(t, s, session.ID{1}),
		"Create":  s.Create(t.Context(), session.ID{99}, newItem(1, time.Hour)),
		"Replace": s.Replace(t.Context(), session.ID{1}, newItem(2, time.Hour)),
		"Delete":  s.Delete(t.Context(), session.ID{1}),
		"sweep":   s.sweep(t.Context(), time.Now()),
	}
	for call, err := range calls {
		if !errors.Is(err, errClosed) {
			t.Errorf("%s after Close: got error %v, want errClosed", call, err)
		}
	}
	open(t, path) // fails if the file is still locked
}

func TestCloseWaitsForView(t *testing.T) {
	s := open(t, newPath(t))
	mustCreate(t, s, session.ID{1}, newItem(1, time.Hour))

	var left atomic.Bool
	inView, leaveView := make(chan struct{}), make(chan struct{})
	viewed, closed := make(chan error, 1), make(chan error, 1)
	go func() {
		viewed <- s.View(t.Context(), session.ID{1}, func(item session.Item) error {
			close(inView)
			<-leaveView
			defer left.Store(true)
			if string(item.Value) != "value" {
				return fmt.Errorf("value in the callback after Close began: got %q, want %q", item.Value, "value")
			}
			return nil
		})
	}()
	<-inView
	go func() {
		err := s.Close()
		if !left.Load() {
			err = errors.New("Close returned before the callback of View")
		}
		closed <- err
	}()
	<-s.quit
	s.background.Wait()
	close(leaveView)
	if err := errors.Join(<-viewed, <-closed); err != nil {
		t.Error(err)
	}
}

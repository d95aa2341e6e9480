package bolt

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// holdCommitter occupies the committer with a transaction until release is called, so
// that further writes queue up. It must be called in a synctest bubble in which the
// store was opened.
func holdCommitter(t *testing.T, s *Store) (release func()) {
	synctest.Wait() // until the sweep of Open has ended
	held := make(chan struct{})
	go func() {
		if err := s.write(context.Background(), s.writes, func(*bbolt.Tx) error { <-held; return nil }); err != nil {
			t.Error(err)
		}
	}()
	synctest.Wait()
	return func() { close(held) }
}

// transactions returns the number of write transactions since the file was created.
func transactions(t *testing.T, s *Store) int {
	t.Helper()
	tx, err := s.db.Begin(false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	return tx.ID()
}

func TestWaitingWritesShareATransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, newPath(t))
		taken := session.ID{255}
		mustCreate(t, s, taken, newItem(1, time.Hour))
		release := holdCommitter(t, s)
		before := transactions(t, s)

		const writers = 64
		created, conflicts := make(chan error, writers), make(chan error, writers)
		for i := range writers {
			go func() { created <- s.Create(t.Context(), session.ID{byte(i)}, newItem(1, time.Hour)) }()
			go func() { conflicts <- s.Create(t.Context(), taken, newItem(1, time.Hour)) }()
		}
		synctest.Wait()
		release()
		for range writers {
			if err := <-created; err != nil {
				t.Errorf("Create: got error %q, want nil", err)
			}
			if err := <-conflicts; !errors.Is(err, session.ErrConflict) {
				t.Errorf("Create of a taken ID: got error %v, want ErrConflict", err)
			}
		}
		// One more is the transaction of holdCommitter.
		if got := transactions(t, s) - before; got != 2 {
			t.Errorf("%d waiting writes: got %d transactions, want 1", 2*writers, got-1)
		}
	})
}

func TestTransactionHasAtMostMaxBatchWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, newPath(t))
		release := holdCommitter(t, s)
		before := transactions(t, s)
		results := make(chan error, maxBatch+1)
		for range maxBatch + 1 {
			go func() { results <- s.Delete(t.Context(), session.ID{}) }()
		}
		synctest.Wait()
		release()
		for range maxBatch + 1 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if got := transactions(t, s) - before; got != 3 {
			t.Errorf("%d waiting writes: got %d transactions, want 2", maxBatch+1, got-1)
		}
	})
}

func TestWriteReturnsAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, newPath(t))
		release := holdCommitter(t, s)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.Create(ctx, session.ID{1}, newItem(1, time.Hour)) // the committer never takes it
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a write in the queue: got error %v, want DeadlineExceeded", err)
		}
		release()
		synctest.Wait()
		if err := view(t, s, session.ID{1}); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("View of an item whose write left the queue: got error %v, want ErrNotFound", err)
		}

		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		leave := make(chan struct{})
		err = s.write(ctx, s.writes, func(tx *bbolt.Tx) error {
			<-leave
			return putItem(tx, session.ID{2}, encodeItem(newItem(1, time.Hour)))
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a write in a long transaction: got error %v, want DeadlineExceeded", err)
		}
		close(leave)
		synctest.Wait()
		if err := view(t, s, session.ID{2}); err != nil {
			t.Errorf("View after a write whose caller had returned: got error %q, want the item", err)
		}
	})
}

func TestCloseWaitsForAcceptedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		s := open(t, path)
		synctest.Wait()
		leave := make(chan struct{})
		written, closed := make(chan error, 1), make(chan error, 1)
		go func() {
			written <- s.write(t.Context(), s.writes, func(tx *bbolt.Tx) error {
				<-leave
				return putItem(tx, session.ID{1}, encodeItem(newItem(1, time.Hour)))
			})
		}()
		synctest.Wait()
		go func() { closed <- s.Close() }()
		synctest.Wait()
		if err := s.Delete(t.Context(), session.ID{1}); !errors.Is(err, errClosed) {
			t.Errorf("a write after Close: got error %v, want errClosed", err)
		}
		select {
		case <-closed:
			t.Error("Close returned before the running transaction ended")
		default:
		}
		close(leave)
		if err := errors.Join(<-written, <-closed); err != nil {
			t.Error(err)
		}
		if err := view(t, open(t, path), session.ID{1}); err != nil {
			t.Errorf("View of an acknowledged item after Close and Open: got error %v, want nil", err)
		}
	})
}

func TestFailedTransactionFailsTheWholeBatch(t *testing.T) {
	path := newPath(t)
	s := open(t, path)
	mustCreate(t, s, session.ID{1}, newItem(1, time.Hour))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	readOnly := openReadOnly(t, path)
	batch := []*write{
		{apply: func(tx *bbolt.Tx) error { return putItem(tx, session.ID{1}, nil) }, done: make(chan error, 1)},
		{apply: func(*bbolt.Tx) error { return session.ErrConflict }, done: make(chan error, 1)},
	}
	readOnly.commit(batch)
	for i, w := range batch {
		if err := <-w.done; err == nil || errors.Is(err, session.ErrConflict) {
			t.Errorf("write %d of a failed transaction: got error %v, want that of the transaction", i, err)
		}
	}
}

// TestReplacesPauseToShareATransaction: after a transaction, Replace pauses, unless
// another kind of write starts the next transaction earlier.
func TestReplacesPauseToShareATransaction(t *testing.T) {
	for name, tc := range map[string]struct {
		create time.Duration // when an item is created; 0 means never
		took   time.Duration
	}{
		"without a Create":            {took: minPause},
		"Create during the pause":     {create: minPause / 5, took: minPause / 5},
		"Create later than the pause": {create: 2 * minPause, took: minPause},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, newPath(t))
				const items = 20
				for i := range items {
					mustCreate(t, s, session.ID{byte(i)}, newItem(1, time.Hour))
				}
				time.Sleep(time.Second)
				start := time.Now()
				if err := s.Replace(t.Context(), session.ID{0}, newItem(2, time.Hour)); err != nil {
					t.Fatal(err)
				}
				if waited := time.Since(start); waited != 0 {
					t.Errorf("the first Replace waited %v, want 0s", waited)
				}
				before, replaced := transactions(t, s), make(chan error, items)
				for i := 1; i < items; i++ {
					go func() { replaced <- s.Replace(t.Context(), session.ID{byte(i)}, newItem(2, time.Hour)) }()
				}
				if tc.create > 0 {
					go func() {
						time.Sleep(tc.create)
						begun := time.Now()
						if err := s.Create(t.Context(), session.ID{255}, newItem(1, time.Hour)); err != nil {
							t.Error(err)
						}
						if waited := time.Since(begun); waited != 0 {
							t.Errorf("Create waited %v, want 0s", waited)
						}
					}()
				}
				for range items - 1 {
					if err := <-replaced; err != nil {
						t.Error(err)
					}
				}
				if took := time.Since(start); took != tc.took {
					t.Errorf("all writes took %v, want %v", took, tc.took)
				}
				if n := transactions(t, s) - before; n != 1 {
					t.Errorf("got %d transactions, want 1", n)
				}
				time.Sleep(time.Second)
			})
		})
	}
}

// TestNoPauseAfterAFullTransaction: the next transaction has enough waiting writes.
func TestNoPauseAfterAFullTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, newPath(t))
		time.Sleep(time.Second)
		mustCreate(t, s, session.ID{1}, newItem(1, time.Hour))
		start, results := time.Now(), make(chan error, 3*maxBatch)
		for range 3 * maxBatch {
			go func() { results <- s.Replace(t.Context(), session.ID{2}, newItem(2, time.Hour)) }()
		}
		for range 3 * maxBatch {
			if err := <-results; !errors.Is(err, session.ErrConflict) {
				t.Errorf("Replace with a wrong version: got error %v, want ErrConflict", err)
			}
		}
		if took := time.Since(start); took != minPause {
			t.Errorf("three full transactions took %v, want %v", took, minPause)
		}
		time.Sleep(time.Second)
	})
}

// TestPauseFollowsTheAverageTransaction: one slow flush is an exception, many show a
// slow disk.
func TestPauseFollowsTheAverageTransaction(t *testing.T) {
	const flush = 80 * time.Millisecond
	for name, tc := range map[string]struct {
		slow int
		want time.Duration
	}{
		"one slow":  {1, pauseFactor * flush / commitWeight},
		"many slow": {50, maxPause},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, newPath(t))
				mustCreate(t, s, session.ID{1}, newItem(1, time.Hour))
				time.Sleep(time.Second)
				for range tc.slow {
					slow := func(*bbolt.Tx) error { time.Sleep(flush); return nil }
					if err := s.write(t.Context(), s.writes, slow); err != nil {
						t.Fatal(err)
					}
				}
				for i, want := range []time.Duration{tc.want, minPause, minPause} {
					start := time.Now()
					if err := s.Replace(t.Context(), session.ID{1}, newItem(uint64(i+2), time.Hour)); err != nil {
						t.Fatal(err)
					}
					if waited := time.Since(start); waited != want {
						t.Errorf("Replace %d waited %v, want %v", i+1, waited, want)
					}
				}
				time.Sleep(time.Second)
			})
		})
	}
}

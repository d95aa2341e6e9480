package keeper

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

var errStoreDown = errors.New("the store is down")

type storeOp int

const (
	opView storeOp = iota
	opCreate
	opReplace
	opDelete
	opTagged
	opList // also Labels
)

func (op storeOp) writes() bool { return op != opView && op != opTagged && op != opList }

// storeFault is a fault of one operation. The zero value is none.
type storeFault struct {
	before time.Duration // delay before the operation
	after  time.Duration // delay before its answer
	err    error         // the answer
	done   bool          // the operation is done in spite of err
	freeze bool          // no answer until the context ends
}

// fakeStore is a store in memory that keeps strictly to the contract of session.Store,
// except for the faults that a test sets.
type fakeStore struct {
	mu     sync.Mutex
	items  map[session.ID]session.Item
	fault  func(op storeOp) storeFault
	counts [6]int       // completed operations by kind
	stale  []session.ID // additional answers of Tagged
}

func newFakeStore() *fakeStore { return &fakeStore{items: map[session.ID]session.Item{}} }

// fail makes every operation of the given kinds, or all, fail.
func (s *fakeStore) fail(ops ...storeOp) {
	s.setFault(func(op storeOp) (f storeFault) {
		if len(ops) == 0 {
			f.err = errStoreDown
		}
		for _, o := range ops {
			if o == op {
				f.err = errStoreDown
			}
		}
		return f
	})
}

func (s *fakeStore) clearFaults() { s.setFault(nil) }

func (s *fakeStore) setFault(f func(storeOp) storeFault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// faultOnce sets the fault of the nth operation of one kind from now on.
func (s *fakeStore) faultOnce(op storeOp, nth int, f storeFault) {
	var mu sync.Mutex
	s.setFault(func(got storeOp) storeFault {
		mu.Lock()
		defer mu.Unlock()
		if got != op {
			return storeFault{}
		}
		if nth--; nth == 0 {
			return f
		}
		return storeFault{}
	})
}

// do runs one operation with the fault that is set.
func (s *fakeStore) do(ctx context.Context, op storeOp, f func() error) error {
	s.mu.Lock()
	var fault storeFault
	if s.fault != nil {
		fault = s.fault(op)
	}
	s.mu.Unlock()
	if err := waitFor(ctx, fault.before); err != nil {
		return err
	}
	if fault.freeze {
		<-ctx.Done()
		return ctx.Err()
	}
	if fault.err != nil && !fault.done {
		return fault.err
	}
	s.mu.Lock()
	err := f()
	if err == nil {
		s.counts[op]++
	}
	s.mu.Unlock()
	if lost := waitFor(ctx, fault.after); lost != nil {
		return lost
	}
	if err != nil {
		return err
	}
	return fault.err
}

// waitFor waits for d, or until ctx ends.
func waitFor(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *fakeStore) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	var item session.Item
	err := s.do(ctx, opView, func() error {
		stored, ok := s.items[id]
		if !ok || !time.Now().Before(stored.Expires) {
			return session.ErrNotFound
		}
		item = stored
		item.Value = bytes.Clone(stored.Value)
		return nil
	})
	if err != nil {
		return err
	}
	// A caller that keeps a reference into the store's memory reads garbage.
	defer func() {
		for i := range item.Value {
			item.Value[i] = 0xEE
		}
	}()
	return f(item)
}

func (s *fakeStore) Create(ctx context.Context, id session.ID, item session.Item) error {
	return s.do(ctx, opCreate, func() error {
		if _, ok := s.items[id]; ok || item.Version != 1 {
			return session.ErrConflict
		}
		s.items[id] = cloneItem(item)
		return nil
	})
}

func (s *fakeStore) Replace(ctx context.Context, id session.ID, item session.Item) error {
	return s.do(ctx, opReplace, func() error {
		if stored, ok := s.items[id]; !ok || stored.Version != item.Version-1 {
			return session.ErrConflict
		}
		s.items[id] = cloneItem(item)
		return nil
	})
}

func (s *fakeStore) Delete(ctx context.Context, id session.ID) error {
	return s.do(ctx, opDelete, func() error {
		delete(s.items, id)
		return nil
	})
}

func (s *fakeStore) Tagged(ctx context.Context, tag session.Tag) (ids []session.ID, err error) {
	err = s.do(ctx, opTagged, func() error {
		ids = s.tagged(tag)
		return nil
	})
	return ids, err
}

// tagged also lists expired items. The caller holds the lock.
func (s *fakeStore) tagged(tag session.Tag) (ids []session.ID) {
	ids = slices.Clone(s.stale)
	for id, item := range s.items {
		if slices.Contains(item.Tags, tag) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (s *fakeStore) List(ctx context.Context, after session.ID, limit int) (ids []session.ID, err error) {
	err = s.do(ctx, opList, func() error {
		ids = labelledAfter(s.items, after, limit)
		return nil
	})
	return ids, err
}

// labelledAfter is List over a map. It also lists expired items.
func labelledAfter(items map[session.ID]session.Item, after session.ID, limit int) (ids []session.ID) {
	for id, item := range items {
		if len(item.Label) > 0 && bytes.Compare(id[:], after[:]) > 0 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b session.ID) int { return bytes.Compare(a[:], b[:]) })
	return ids[:min(len(ids), limit)]
}

func (s *fakeStore) Labels(ctx context.Context, ids []session.ID) (found []session.Labelled, err error) {
	err = s.do(ctx, opList, func() error {
		found = labelsOf(s.items, ids)
		return nil
	})
	return found, err
}

// labelsOf is Labels over a map.
func labelsOf(items map[session.ID]session.Item, ids []session.ID) (found []session.Labelled) {
	for _, id := range ids {
		if item, ok := items[id]; ok && time.Now().Before(item.Expires) {
			found = append(found, session.Labelled{ID: id, Label: bytes.Clone(item.Label)})
		}
	}
	return found
}

func cloneItem(item session.Item) session.Item {
	item.Value, item.Tags, item.Label = bytes.Clone(item.Value), slices.Clone(item.Tags), bytes.Clone(item.Label)
	return item
}

// item returns an item in spite of all faults, and whether it exists and has not expired.
func (s *fakeStore) item(id session.ID) (session.Item, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	item, ok := s.items[id]
	return cloneItem(item), ok && time.Now().Before(item.Expires)
}

// put sets an item in spite of all faults.
func (s *fakeStore) put(id session.ID, item session.Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items[id] = cloneItem(item)
}

// completed returns the number of completed operations of one kind.
func (s *fakeStore) completed(op storeOp) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[op]
}

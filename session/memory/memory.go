// Package memory keeps sessions in the memory of the process. They end with the
// process, so every restart logs all users out. The store is for tests, development,
// and sites that must not keep sessions on a disk.
//
// It never refuses an item for lack of space, and never writes a file.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// sweepInterval is the time between two sweeps. Expired items are invisible before the
// sweep, too, so it only frees memory.
const sweepInterval = 5 * time.Minute

// Store is a [session.Store] in memory. Memory alone limits the number of items: each
// is a completed login of a few kilobytes, until it expires. A store with a limit
// could only refuse logins or end sessions of other users.
//
// The callback of View may call the store and may take long: View holds no lock.
type Store struct {
	// items maps session.ID to *session.Item. A stored Item never changes: a write
	// swaps the pointer, so readers need no lock.
	items sync.Map

	// mu serializes the writers and protects tagged and labelled.
	mu sync.Mutex
	// tagged has the items of each tag, including expired items before their sweep.
	tagged map[session.Tag]map[session.ID]struct{}
	// labelled has the items with a label, in sets that are in the order of their IDs.
	labelled [labelSets]map[session.ID]struct{}

	stop    func()
	stopped chan struct{}
}

// New returns an empty store. Close stops its sweep of expired items.
func New() *Store {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Store{tagged: map[session.Tag]map[session.ID]struct{}{}, stop: cancel, stopped: make(chan struct{})}
	go s.sweepUntil(ctx.Done())
	return s
}

// Close stops the sweep of expired items and waits for its end. The items stay
// readable for calls that are still in progress.
func (s *Store) Close() error {
	s.stop()
	<-s.stopped
	return nil
}

// View implements [session.Store].
func (s *Store) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("reading session from memory: %w", err)
	}
	item := s.live(id)
	if item == nil {
		return session.ErrNotFound
	}
	return f(*item)
}

// Create implements [session.Store].
func (s *Store) Create(ctx context.Context, id session.ID, item session.Item) error {
	return s.write(ctx, id, item, func(old *session.Item) bool { return old == nil })
}

// Replace implements [session.Store].
func (s *Store) Replace(ctx context.Context, id session.ID, item session.Item) error {
	return s.write(ctx, id, item, func(old *session.Item) bool { return old != nil && old.Version+1 == item.Version })
}

// write stores a copy of the item if accepts allows it. The argument of accepts is the
// present item, or nil if there is none or it has expired.
func (s *Store) write(ctx context.Context, id session.ID, item session.Item, accepts func(old *session.Item) bool) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("writing session to memory: %w", err)
	}
	item.Value, item.Tags, item.Label = bytes.Clone(item.Value), slices.Clone(item.Tags), bytes.Clone(item.Label)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !accepts(s.live(id)) {
		return session.ErrConflict
	}
	old, _ := s.items.Swap(id, &item)
	s.setTags(id, old, item.Tags)
	s.setLabelled(id, len(item.Label) > 0)
	return nil
}

// Delete implements [session.Store].
func (s *Store) Delete(ctx context.Context, id session.ID) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("deleting session from memory: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, _ := s.items.LoadAndDelete(id)
	s.setTags(id, old, nil)
	s.setLabelled(id, false)
	return nil
}

// Tagged implements [session.Store].
func (s *Store) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("looking up a tag in memory: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]session.ID, 0, min(len(s.tagged[tag]), session.MaxTagged))
	for id := range s.tagged[tag] {
		if len(ids) == session.MaxTagged {
			break
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// setTags replaces the tags of an item in the index. The old item is nil or a
// *session.Item. The caller holds s.mu.
func (s *Store) setTags(id session.ID, old any, tags []session.Tag) {
	if old != nil {
		for _, tag := range old.(*session.Item).Tags {
			delete(s.tagged[tag], id)
			if len(s.tagged[tag]) == 0 {
				delete(s.tagged, tag)
			}
		}
	}
	for _, tag := range tags {
		if s.tagged[tag] == nil {
			s.tagged[tag] = map[session.ID]struct{}{}
		}
		s.tagged[tag][id] = struct{}{}
	}
}

// live returns the item under id, or nil if there is none or it has expired.
func (s *Store) live(id session.ID) *session.Item {
	if v, ok := s.items.Load(id); ok {
		if item := v.(*session.Item); !expired(item) {
			return item
		}
	}
	return nil
}

func (s *Store) sweepUntil(stop <-chan struct{}) {
	defer close(s.stopped)
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.sweep()
		case <-stop:
			return
		}
	}
}

// sweep removes the expired items. It holds the lock only for each removal.
func (s *Store) sweep() { s.items.Range(s.removeIfExpired) }

// removeIfExpired removes an entry of the map if it has expired, unless a write has
// replaced it since Range read it. It returns true, so that Range continues.
func (s *Store) removeIfExpired(id, item any) bool {
	if !expired(item.(*session.Item)) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.items.CompareAndDelete(id, item) {
		s.setTags(id.(session.ID), item, nil)
		s.setLabelled(id.(session.ID), false)
	}
	return true
}

func expired(item *session.Item) bool {
	return !time.Now().Before(item.Expires)
}

// Interface guard
var _ session.Store = (*Store)(nil)

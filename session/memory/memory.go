// Package memory keeps sessions in the memory of the process. It forgets them
// when the process ends: every restart logs everybody out. It serves tests,
// development, and sites that want no session on any disk.
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

// sweepInterval is how often expired items are collected. They are invisible
// from the moment they expire, so this only frees memory.
const sweepInterval = 5 * time.Minute

// Store is a [session.Store] in memory. Nothing but memory limits the number
// of items: each is a completed login, a few kilobytes large, until it
// expires. A full store could only refuse logins or end sessions of others.
//
// The callback of View may call the store again and may take its time: no lock
// is held.
type Store struct {
	// items maps session.ID to *session.Item. What an entry points to never
	// changes: a write swaps the pointer, so readers need no lock.
	items sync.Map

	mu sync.Mutex // of those who write
	// tagged has the items of each tag, expired ones too until they are swept.
	tagged map[session.Tag]map[session.ID]struct{}

	stop    func()
	stopped chan struct{}
}

// New returns an empty store. Close stops its sweep.
func New() *Store {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Store{tagged: map[session.Tag]map[session.ID]struct{}{}, stop: cancel, stopped: make(chan struct{})}
	go s.sweepUntil(ctx.Done())
	return s
}

// Close stops the sweep of expired items and waits for its end. The items stay
// readable for callers that are not done yet; they go when the store goes.
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

// write keeps a copy of the item if the one that lives, or nil, is right.
func (s *Store) write(ctx context.Context, id session.ID, item session.Item, right func(old *session.Item) bool) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("writing session to memory: %w", err)
	}
	item.Value, item.Tags = bytes.Clone(item.Value), slices.Clone(item.Tags)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !right(s.live(id)) {
		return session.ErrConflict
	}
	old, _ := s.items.Swap(id, &item)
	s.tag(id, old, item.Tags)
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
	s.tag(id, old, nil)
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

// tag makes an item found by these tags, and not any more by those that the old
// one had, which is nil or a *session.Item. The lock is held.
func (s *Store) tag(id session.ID, old any, tags []session.Tag) {
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

// live returns the item under id, or nil if there is none or its time is over.
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

// sweep drops the expired items. It holds no lock while it walks.
func (s *Store) sweep() { s.items.Range(s.collect) }

// collect drops an entry of the map if it has expired, unless it was replaced
// since the walk came by.
func (s *Store) collect(id, item any) bool {
	if !expired(item.(*session.Item)) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.items.CompareAndDelete(id, item) {
		s.tag(id.(session.ID), item, nil)
	}
	return true
}

func expired(item *session.Item) bool {
	return !time.Now().Before(item.Expires)
}

// Interface guard
var _ session.Store = (*Store)(nil)

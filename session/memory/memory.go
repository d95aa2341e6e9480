// Package memory keeps sessions in the memory of the process. It forgets them
// when the process ends: every restart logs everybody out. It serves tests,
// development, and sites that want no session on any disk.
package memory

import (
	"bytes"
	"context"
	"fmt"
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
	// changes: a write swaps the pointer, so readers need no lock, and an
	// unchanged pointer proves an unchanged item.
	items sync.Map

	stop    func()
	stopped chan struct{}
}

// New returns an empty store. Close stops its sweep.
func New() *Store {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Store{stop: cancel, stopped: make(chan struct{})}
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
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("writing session to memory: %w", err)
	}
	item.Value = bytes.Clone(item.Value)
	for {
		old, exists := s.items.LoadOrStore(id, &item)
		switch {
		case !exists:
			return nil
		case !expired(old.(*session.Item)):
			return session.ErrConflict
		case s.items.CompareAndSwap(id, old, &item):
			return nil
		}
		// The expired item was swept or overwritten this very moment.
	}
}

// Replace implements [session.Store].
func (s *Store) Replace(ctx context.Context, id session.ID, item session.Item) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("writing session to memory: %w", err)
	}
	old := s.live(id)
	if old == nil || old.Version+1 != item.Version {
		return session.ErrConflict
	}
	item.Value = bytes.Clone(item.Value)
	if !s.items.CompareAndSwap(id, old, &item) {
		return session.ErrConflict
	}
	return nil
}

// Delete implements [session.Store].
func (s *Store) Delete(ctx context.Context, id session.ID) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("deleting session from memory: %w", err)
	}
	s.items.Delete(id)
	return nil
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
	if expired(item.(*session.Item)) {
		s.items.CompareAndDelete(id, item)
	}
	return true
}

func expired(item *session.Item) bool {
	return !time.Now().Before(item.Expires)
}

// Interface guard
var _ session.Store = (*Store)(nil)

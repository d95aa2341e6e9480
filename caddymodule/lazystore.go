package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// lazyStore opens a store when it is first used, and again if that failed.
type lazyStore struct {
	open   func() (session.Store, error)
	shared bool
	opened atomic.Pointer[session.Store]
	mu     sync.Mutex
	closed bool
	// retryAt keeps requests from trying to open all the time.
	retryAt time.Time
	err     error
	// changed is what a shared store tells of changes, once it is open.
	changed func([]session.ID)
}

// reopenEvery spaces the attempts to open a store that does not open.
const reopenEvery = time.Second

func (s *lazyStore) get() (session.Store, error) {
	if store := s.opened.Load(); store != nil {
		return *store, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if store := s.opened.Load(); store != nil {
		return *store, nil
	}
	if s.closed {
		return nil, session.ErrClosed
	}
	if now := time.Now(); now.Before(s.retryAt) {
		return nil, s.err
	}
	store, err := s.open()
	if shared, ok := store.(session.SharedStore); err == nil && s.shared {
		if !ok {
			err = fmt.Errorf("%T says that several processes share it, and is no session.SharedStore", store)
		} else {
			shared.Watch(s.changed)
		}
	}
	if err != nil {
		s.err, s.retryAt = fmt.Errorf("opening store: %w", err), time.Now().Add(reopenEvery)
		return nil, s.err
	}
	s.opened.Store(&store)
	return store, nil
}

func (s *lazyStore) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if store := s.opened.Load(); store != nil {
		if c, ok := (*store).(io.Closer); ok {
			return c.Close()
		}
	}
	return nil
}

func (s *lazyStore) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	store, err := s.get()
	if err != nil {
		return err
	}
	return store.View(ctx, id, f)
}

func (s *lazyStore) Create(ctx context.Context, id session.ID, item session.Item) error {
	store, err := s.get()
	if err != nil {
		return err
	}
	return store.Create(ctx, id, item)
}

func (s *lazyStore) Replace(ctx context.Context, id session.ID, item session.Item) error {
	store, err := s.get()
	if err != nil {
		return err
	}
	return store.Replace(ctx, id, item)
}

func (s *lazyStore) Delete(ctx context.Context, id session.ID) error {
	store, err := s.get()
	if err != nil {
		return err
	}
	return store.Delete(ctx, id)
}

// ready returns why the store cannot be used now, or nil.
func (s *lazyStore) ready(ctx context.Context) error {
	store, err := s.get()
	if err != nil {
		return err
	}
	view := store.View
	if shared, ok := store.(session.SharedStore); ok {
		view = shared.ViewCurrent
	}
	// There is no session of this ID, and a store that says so is at work.
	err = view(ctx, session.ID{}, func(session.Item) error { return nil })
	if errors.Is(err, session.ErrNotFound) {
		return nil
	}
	return err
}

// lazySharedStore is a lazyStore that several processes use.
type lazySharedStore struct{ *lazyStore }

func (s lazySharedStore) shared() (session.SharedStore, error) {
	store, err := s.get()
	if err != nil {
		return nil, err
	}
	return store.(session.SharedStore), nil
}

func (s lazySharedStore) ViewCurrent(ctx context.Context, id session.ID, f func(session.Item) error) error {
	store, err := s.shared()
	if err != nil {
		return err
	}
	return store.ViewCurrent(ctx, id, f)
}

func (s lazySharedStore) Acquire(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
	store, err := s.shared()
	if err != nil {
		return session.Lease{}, err
	}
	return store.Acquire(ctx, id, version, holder, seen)
}

func (s lazySharedStore) Beat(ctx context.Context, id session.ID, lease session.Lease) error {
	store, err := s.shared()
	if err != nil {
		return err
	}
	return store.Beat(ctx, id, lease)
}

func (s lazySharedStore) Release(ctx context.Context, id session.ID, holder session.Holder) error {
	store, err := s.shared()
	if err != nil {
		return err
	}
	return store.Release(ctx, id, holder)
}

func (s lazySharedStore) DeleteAt(ctx context.Context, id session.ID, version uint64, holder session.Holder) error {
	store, err := s.shared()
	if err != nil {
		return err
	}
	return store.DeleteAt(ctx, id, version, holder)
}

// Watch takes effect when the store is opened: nothing is read before.
func (s lazySharedStore) Watch(changed func([]session.ID)) { s.changed = changed }

func (s lazySharedStore) Announce(ctx context.Context, topic session.Topic, from session.Holder, note []byte) ([][]byte, error) {
	store, err := s.shared()
	if err != nil {
		return nil, err
	}
	return store.Announce(ctx, topic, from, note)
}

// Interface guards
var (
	_ session.Store       = (*lazyStore)(nil)
	_ session.SharedStore = lazySharedStore{}
)

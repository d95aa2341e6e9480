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
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// lazyStore opens a store when it is first used, and again if that failed.
type lazyStore struct {
	open   func() (session.Store, error)
	shared bool
	opened atomic.Pointer[session.Store]
	mu     sync.Mutex
	closed bool
	// opening is closed when the attempt that is under way is over.
	opening chan struct{}
	// retryAt keeps requests from trying to open all the time.
	retryAt time.Time
	err     error
	// changed is what a shared store tells of changes, once it is open.
	changed func([]session.ID)
}

// reopenEvery spaces the attempts to open a store that does not open.
const reopenEvery = time.Second

// get returns the store, and opens it if need be. One attempt is made for all
// who wait, and nobody waits for longer than the context.
func (s *lazyStore) get(ctx context.Context) (session.Store, error) {
	if store := s.opened.Load(); store != nil {
		return *store, nil
	}
	opening, err := s.begin()
	if err != nil {
		return nil, err
	}
	select {
	case <-opening:
	case <-ctx.Done():
		return nil, fmt.Errorf("opening store: %w", ctx.Err())
	}
	if store := s.opened.Load(); store != nil {
		return *store, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return nil, s.err
}

// begin returns the attempt that is under way, or begins one.
func (s *lazyStore) begin() (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, keeper.ErrClosed
	case s.opening != nil:
		return s.opening, nil
	case time.Now().Before(s.retryAt):
		return nil, s.err
	}
	s.opening = make(chan struct{})
	go s.attempt()
	return s.opening, nil
}

func (s *lazyStore) attempt() {
	store, err := s.openAndWatch()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.err, s.retryAt = fmt.Errorf("opening store: %w", err), time.Now().Add(reopenEvery)
	case s.closed:
		s.err = keeper.ErrClosed
		_ = closeStore(store)
	default:
		s.opened.Store(&store)
	}
	close(s.opening)
	s.opening = nil
}

func (s *lazyStore) openAndWatch() (session.Store, error) {
	store, err := s.open()
	if err != nil || !s.shared {
		return store, err
	}
	shared, ok := store.(session.SharedStore)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T says that several processes share it, and is no session.SharedStore", store), closeStore(store))
	}
	shared.Watch(s.changed)
	return store, nil
}

func closeStore(store session.Store) error {
	if c, ok := store.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func (s *lazyStore) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if store := s.opened.Load(); store != nil {
		return closeStore(*store)
	}
	return nil
}

func (s *lazyStore) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	store, err := s.get(ctx)
	if err != nil {
		return err
	}
	return store.View(ctx, id, f)
}

func (s *lazyStore) Create(ctx context.Context, id session.ID, item session.Item) error {
	store, err := s.get(ctx)
	if err != nil {
		return err
	}
	return store.Create(ctx, id, item)
}

func (s *lazyStore) Replace(ctx context.Context, id session.ID, item session.Item) error {
	store, err := s.get(ctx)
	if err != nil {
		return err
	}
	return store.Replace(ctx, id, item)
}

func (s *lazyStore) Delete(ctx context.Context, id session.ID) error {
	store, err := s.get(ctx)
	if err != nil {
		return err
	}
	return store.Delete(ctx, id)
}

func (s *lazyStore) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	store, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	return store.Tagged(ctx, tag)
}

// ready returns why the store cannot be used now, or nil.
func (s *lazyStore) ready(ctx context.Context) error {
	store, err := s.get(ctx)
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

func (s lazySharedStore) shared(ctx context.Context) (session.SharedStore, error) {
	store, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	return store.(session.SharedStore), nil
}

func (s lazySharedStore) ViewCurrent(ctx context.Context, id session.ID, f func(session.Item) error) error {
	store, err := s.shared(ctx)
	if err != nil {
		return err
	}
	return store.ViewCurrent(ctx, id, f)
}

func (s lazySharedStore) Acquire(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
	store, err := s.shared(ctx)
	if err != nil {
		return session.Lease{}, err
	}
	return store.Acquire(ctx, id, version, holder, seen)
}

func (s lazySharedStore) Beat(ctx context.Context, id session.ID, lease session.Lease) error {
	store, err := s.shared(ctx)
	if err != nil {
		return err
	}
	return store.Beat(ctx, id, lease)
}

func (s lazySharedStore) Release(ctx context.Context, id session.ID, holder session.Holder) error {
	store, err := s.shared(ctx)
	if err != nil {
		return err
	}
	return store.Release(ctx, id, holder)
}

func (s lazySharedStore) DeleteAt(ctx context.Context, id session.ID, version uint64, holder session.Holder) error {
	store, err := s.shared(ctx)
	if err != nil {
		return err
	}
	return store.DeleteAt(ctx, id, version, holder)
}

// Watch takes effect when the store is opened: nothing is read before.
func (s lazySharedStore) Watch(changed func([]session.ID)) { s.changed = changed }

func (s lazySharedStore) Announce(ctx context.Context, topic session.Topic, from session.Holder, note []byte) ([][]byte, error) {
	store, err := s.shared(ctx)
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

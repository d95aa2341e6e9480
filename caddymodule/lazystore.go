package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"golang.org/x/sync/singleflight"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// lazyStore opens a store at its first use, and tries again after a failure.
type lazyStore struct {
	name   string // in metrics
	open   func() (session.Store, error)
	shared bool
	opened atomic.Pointer[session.Store]
	mu     sync.Mutex
	closed bool
	// opening is closed at the end of the current attempt.
	opening chan struct{}
	// retryAt is the earliest time of the next attempt.
	retryAt time.Time
	err     error
	// changed is the callback for Watch of a shared store.
	changed func([]session.ID)
	// failed is called after a call that the store could not answer. It must not block.
	failed   atomic.Pointer[func()]
	checking singleflight.Group // see check
}

// reopenEvery is the pause after a failed attempt.
const reopenEvery = time.Second

// get returns the store, and opens it if necessary. All callers wait for one attempt,
// each at most until its context ends.
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

// begin starts an attempt, unless one is in progress, and returns its channel.
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
		return nil, errors.Join(fmt.Errorf("%T says that several processes share it, but is not a session.SharedStore", store), closeStore(store))
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
	if !isTraced(ctx) {
		return s.note(store.View(ctx, id, f))
	}
	ctx, span := startSpan(ctx, "session store read", attribute.String(storeAttribute, s.name))
	defer endSpan(span, nil) // the errors of f are no errors of the store
	return s.note(store.View(ctx, id, f))
}

func (s *lazyStore) Create(ctx context.Context, id session.ID, item session.Item) error {
	store, err := s.get(ctx)
	if err != nil {
		return err
	}
	return s.call(ctx, "create", func(ctx context.Context) error { return store.Create(ctx, id, item) })
}

func (s *lazyStore) Replace(ctx context.Context, id session.ID, item session.Item) error {
	store, err := s.get(ctx)
	if err != nil {
		return err
	}
	return s.call(ctx, "replace", func(ctx context.Context) error { return store.Replace(ctx, id, item) })
}

func (s *lazyStore) Delete(ctx context.Context, id session.ID) error {
	store, err := s.get(ctx)
	if err != nil {
		return err
	}
	return s.call(ctx, "delete", func(ctx context.Context) error { return store.Delete(ctx, id) })
}

func (s *lazyStore) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	store, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	return store.Tagged(ctx, tag)
}

func (s *lazyStore) List(ctx context.Context, after session.ID, limit int) ([]session.ID, error) {
	store, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	return store.List(ctx, after, limit)
}

func (s *lazyStore) Labels(ctx context.Context, ids []session.ID) ([]session.Labelled, error) {
	store, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	return store.Labels(ctx, ids)
}

// call measures and traces a call, and reports its failure.
func (s *lazyStore) call(ctx context.Context, operation string, f func(context.Context) error) error {
	ctx, span := startSpan(ctx, "session store "+operation, attribute.String(storeAttribute, s.name))
	start := time.Now()
	err := f(ctx)
	if isAnswer(err) {
		endSpan(span, nil)
	} else {
		endSpan(span, err)
	}
	observeStore(s.name, operation, time.Since(start), err)
	return s.note(err)
}

// note passes an error on, and reports one that is no answer of a store that works.
func (s *lazyStore) note(err error) error {
	if err == nil || isAnswer(err) {
		return err
	}
	if failed := s.failed.Load(); failed != nil {
		(*failed)()
	}
	return err
}

// isAnswer reports whether an error is one that a store returns while it works.
func isAnswer(err error) bool {
	return errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrConflict) || errors.Is(err, session.ErrLeased)
}

// lazySharedStore is a lazyStore for a store that several processes use.
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
	return s.call(ctx, "read_current", func(ctx context.Context) error { return store.ViewCurrent(ctx, id, f) })
}

func (s lazySharedStore) Acquire(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
	store, err := s.shared(ctx)
	if err != nil {
		return session.Lease{}, err
	}
	var lease session.Lease
	err = s.call(ctx, "acquire", func(ctx context.Context) (err error) {
		lease, err = store.Acquire(ctx, id, version, holder, seen)
		return err
	})
	return lease, err
}

func (s lazySharedStore) Beat(ctx context.Context, id session.ID, lease session.Lease) error {
	store, err := s.shared(ctx)
	if err != nil {
		return err
	}
	return s.call(ctx, "beat", func(ctx context.Context) error { return store.Beat(ctx, id, lease) })
}

func (s lazySharedStore) Release(ctx context.Context, id session.ID, holder session.Holder) error {
	store, err := s.shared(ctx)
	if err != nil {
		return err
	}
	return s.call(ctx, "release", func(ctx context.Context) error { return store.Release(ctx, id, holder) })
}

func (s lazySharedStore) DeleteAt(ctx context.Context, id session.ID, version uint64, holder session.Holder) error {
	store, err := s.shared(ctx)
	if err != nil {
		return err
	}
	return s.call(ctx, "delete", func(ctx context.Context) error { return store.DeleteAt(ctx, id, version, holder) })
}

// Watch takes effect when the store is opened. No item is read before.
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

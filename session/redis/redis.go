package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/oauth-session/caddy-oauth-session/session"
)

const (
	// callTimeout limits each call of the server, including retries.
	callTimeout = 2 * time.Second
	// copyLife limits the age of a copy without a push.
	copyLife = 30 * time.Second

	// The pause between retries doubles from minPause to maxPause.
	minPause = 5 * time.Millisecond
	maxPause = 200 * time.Millisecond
)

// Store is a [session.SharedStore] in Redis or Valkey.
type Store struct {
	client   rueidis.Client
	keys     keyspace
	replicas int64
	indexes  indexCache
	changed  atomic.Pointer[func([]session.ID)] // of Watch
	closed   atomic.Bool
	// waiting limits the number of writes that wait for replicas. Each of them needs
	// a connection.
	waiting chan struct{}
}

// Check validates the configuration without a connection to the server.
func (c Config) Check() error {
	if _, err := c.options(); err != nil {
		return err
	}
	if _, err := c.keyspace(); err != nil {
		return err
	}
	_, err := c.replicas()
	return err
}

// Open connects to the server. It returns an error within seconds if the server does
// not answer, or if the user lacks a right that reading needs. A caller that may start
// before its server calls Open again later. An open store reconnects after every
// failure until it is closed.
func Open(c Config) (*Store, error) {
	opt, err := c.options()
	if err != nil {
		return nil, err
	}
	s := &Store{waiting: make(chan struct{}, replicatedAtOnce)}
	if s.keys, err = c.keyspace(); err != nil {
		return nil, err
	}
	if s.replicas, err = c.replicas(); err != nil {
		return nil, err
	}
	opt.OnInvalidations = s.invalidated
	if s.client, err = rueidis.NewClient(opt); err != nil {
		return nil, fmt.Errorf("connecting to redis: %w", explain(err))
	}
	if err := s.probe(); err != nil {
		s.client.Close()
		return nil, fmt.Errorf("connecting to redis: %w", err)
	}
	return s, nil
}

// probe makes a cached read. It sends CLIENT CACHING separately, because the client
// ignores the answer to it: without this right, the client would keep copies and
// receive no pushes.
func (s *Store) probe() error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	allow := s.client.B().Arbitrary("CLIENT", "CACHING", "YES").Build()
	if err := s.client.Do(ctx, allow).Error(); err != nil {
		return explain(err)
	}
	_, err := s.cached(ctx, session.ID{}, time.Now())
	if err == nil || errors.Is(err, session.ErrNotFound) {
		return nil
	}
	return explain(err)
}

// Close closes the connections. Calls in progress and later calls return an error.
func (s *Store) Close() error {
	s.closed.Store(true)
	s.changed.Store(nil)
	s.client.Close()
	return nil
}

// View implements [session.Store].
//
// The first try has no callTimeout, because creating a timeout costs more than
// reading a copy. Its duration is limited all the same: a copy is in memory, opening a
// connection takes at most two dialTimeouts, and the client closes a connection without
// answers after two pingIntervals and the pingTimeout.
func (s *Store) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("reading session from redis: %w", err)
	}
	start := time.Now()
	item, err := s.cached(ctx, id, start)
	if err != nil && isTransient(err) {
		item, err = s.cachedAgain(ctx, id, start, err)
	}
	if err != nil {
		return callError("reading session from redis", err)
	}
	return f(item)
}

// cached reads an item from the client's copy, or from the server.
func (s *Store) cached(ctx context.Context, id session.ID, now time.Time) (session.Item, error) {
	res := s.client.DoCache(ctx, s.client.B().Get().Key(s.keys.item(id)).Cache(), copyLife)
	if res.CachePXAT() <= 0 && res.NonRedisError() == nil {
		s.notifyUntracked(id)
	}
	item, err := readItem(res, now)
	if isFull(err) {
		// The client reads in a transaction, for which a full server has no memory
		// left. A GET alone needs none, but the server does not track it.
		s.notifyUntracked(id)
		return s.current(ctx, id)
	}
	return item, err
}

// cachedAgain retries cached after a first error, within callTimeout of the start.
func (s *Store) cachedAgain(ctx context.Context, id session.ID, start time.Time, first error) (item session.Item, err error) {
	ctx, cancel := context.WithDeadline(ctx, start.Add(callTimeout))
	defer cancel()
	err = s.repeat(ctx, first, func(ctx context.Context) error {
		item, err = s.cached(ctx, id, time.Now())
		return err
	})
	return item, err
}

// ViewCurrent implements [session.SharedStore].
func (s *Store) ViewCurrent(ctx context.Context, id session.ID, f func(session.Item) error) error {
	var item session.Item
	err := s.try(ctx, func(ctx context.Context) (err error) {
		item, err = s.current(ctx, id)
		return err
	})
	if err != nil {
		return callError("reading session from redis", err)
	}
	return f(item)
}

// current reads an item from the server.
func (s *Store) current(ctx context.Context, id session.ID) (session.Item, error) {
	get := s.client.B().Get().Key(s.keys.item(id)).Build()
	return readItem(s.client.Do(ctx, get), time.Now())
}

// readItem decodes an item. It does not copy: the item's value is part of the answer.
func readItem(res rueidis.RedisResult, now time.Time) (session.Item, error) {
	b, err := res.AsBytes()
	if err != nil {
		if rueidis.IsRedisNil(err) {
			err = session.ErrNotFound
		}
		return session.Item{}, err
	}
	item, err := decodeItem(b)
	switch {
	case err != nil:
		err = session.ErrDamaged
	case !now.Before(item.Expires):
		err = session.ErrNotFound
	}
	return item, err
}

// try runs a step, and retries it after transient errors, within callTimeout.
func (s *Store) try(ctx context.Context, step func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := step(ctx); err != nil {
		return s.repeat(ctx, err, step)
	}
	return nil
}

// repeat retries a step after a first error, until ctx ends.
func (s *Store) repeat(ctx context.Context, err error, step func(context.Context) error) error {
	for pause := minPause; err != nil && isTransient(err) && !s.closed.Load(); pause = min(2*pause, maxPause) {
		select {
		case <-ctx.Done():
			// err alone may be the deadline of another call: this one waited for
			// its connection or its answer.
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(pause/2 + rand.N(pause)): //nolint:gosec // spreads load, needs no secrecy
			err = step(ctx)
		}
	}
	return err
}

// Interface guard
var _ session.SharedStore = (*Store)(nil)

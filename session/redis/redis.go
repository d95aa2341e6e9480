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
	// callTimeout limits each call that asks the server, with all repetitions.
	callTimeout = 2 * time.Second
	// copyLife limits how old a copy gets of which no push came.
	copyLife = 30 * time.Second

	minPause = 5 * time.Millisecond
	maxPause = 200 * time.Millisecond
)

// Store is a [session.SharedStore] in Redis or Valkey.
type Store struct {
	client   rueidis.Client
	keys     keyspace
	replicas int64
	indexed  indexed
	changed  atomic.Pointer[func([]session.ID)]
	closed   atomic.Bool
	// waiting bounds the writes that wait for replicas, each on a connection of
	// its own.
	waiting chan struct{}
}

// Check returns what is wrong with the configuration, as far as that can be told
// without the server.
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

// Open connects to the server. It fails, within some seconds, if the server
// does not answer or refuses the user something that reading needs: a caller
// that wants to start before its server opens again later. An open store
// survives everything: it connects again for as long as it is open.
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

// probe makes a cached read. CLIENT CACHING is asked for by itself because
// the client does not look at its answer: refused, it would keep copies of
// which no change is pushed.
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

// Close closes the connections. Calls that are under way, and later ones,
// fail.
func (s *Store) Close() error {
	s.closed.Store(true)
	s.changed.Store(nil)
	s.client.Close()
	return nil
}

// View implements [session.Store].
//
// The first try goes without a deadline of its own, which would cost more than
// reading a copy does. It ends all the same: a copy is at hand, a connection
// is made within two dialTimeouts, and one that does not answer is closed
// after the second ping interval and the silenceLimit.
func (s *Store) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("reading session from redis: %w", err)
	}
	start := time.Now()
	item, err := s.cached(ctx, id, start)
	if err != nil && passing(err) {
		item, err = s.cachedAgain(ctx, id, start, err)
	}
	if err != nil {
		return answer("reading session from redis", err)
	}
	return f(item)
}

// cached reads an item, or the copy of it.
func (s *Store) cached(ctx context.Context, id session.ID, now time.Time) (session.Item, error) {
	res := s.client.DoCache(ctx, s.client.B().Get().Key(s.keys.item(id)).Cache(), copyLife)
	if res.CachePXAT() <= 0 && res.NonRedisError() == nil {
		s.untracked(id)
	}
	return readItem(res, now)
}

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
		return answer("reading session from redis", err)
	}
	return f(item)
}

func (s *Store) current(ctx context.Context, id session.ID) (session.Item, error) {
	get := s.client.B().Get().Key(s.keys.item(id)).Build()
	return readItem(s.client.Do(ctx, get), time.Now())
}

// readItem does not copy: the item's value is part of the answer.
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

// try takes a step, and takes it again while what hinders it may pass.
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

// repeat goes on trying after a first error.
func (s *Store) repeat(ctx context.Context, err error, step func(context.Context) error) error {
	for pause := minPause; err != nil && passing(err) && !s.closed.Load(); pause = min(2*pause, maxPause) {
		select {
		case <-ctx.Done():
			// Which is not what err says if it comes from a call of somebody
			// else whose connection or answer was waited for.
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(pause/2 + rand.N(pause)): //nolint:gosec // spreads load, guards nothing
			err = step(ctx)
		}
	}
	return err
}

// Interface guard
var _ session.SharedStore = (*Store)(nil)

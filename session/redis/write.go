package redis

import (
	"bytes"
	"context"
	"errors"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// replicaTimeout is how long the replicas may take, in milliseconds.
const replicaTimeout = 1000

// Create implements [session.Store].
func (s *Store) Create(ctx context.Context, id session.ID, item session.Item) error {
	tries := 0
	err := s.try(ctx, func(ctx context.Context) error {
		tries++
		life := lifetime(item.Expires)
		if life <= 0 {
			return s.createExpired(ctx, id)
		}
		if err := s.index(ctx, id, item); err != nil {
			return err
		}
		err := s.durable(id)(ctx, func(b rueidis.Builder) rueidis.Completed {
			return b.Set().Key(s.keys.item(id)).Value(encodeItem(item)).Nx().PxMilliseconds(life).Build()
		}).Error()
		if !rueidis.IsRedisNil(err) {
			return err
		}
		if tries > 1 && s.holds(ctx, id, item) {
			return nil // the first try did it, and its answer was lost
		}
		return session.ErrConflict
	})
	if err != nil {
		return answer("writing session to redis", err)
	}
	return nil
}

// createExpired keeps nothing, because the item would be gone at once.
func (s *Store) createExpired(ctx context.Context, id session.ID) error {
	_, err := s.current(ctx, id)
	switch {
	case err == nil:
		return session.ErrConflict
	case errors.Is(err, session.ErrNotFound):
		return nil
	}
	return err
}

// holds reports whether the item is there as given.
func (s *Store) holds(ctx context.Context, id session.ID, item session.Item) bool {
	there, err := s.current(ctx, id)
	return err == nil && there.Version == item.Version && bytes.Equal(there.Value, item.Value)
}

// Replace implements [session.Store]. After a lost answer it may find its own
// write and return ErrConflict.
func (s *Store) Replace(ctx context.Context, id session.ID, item session.Item) error {
	return s.change(ctx, "writing session to redis", func(ctx context.Context) rueidis.RedisResult {
		if err := s.index(ctx, id, item); err != nil {
			return rueidis.NewErrorResult(err)
		}
		return replaceScript.alone(ctx, s.durable(id), s.keys.item(id), s.keys.lease(id),
			encodeVersion(item.Version-1), encodeItem(item), strconv.FormatInt(lifetime(item.Expires), 10))
	})
}

// DeleteAt implements [session.SharedStore]. After a lost answer it may find
// its own write and return ErrConflict.
func (s *Store) DeleteAt(ctx context.Context, id session.ID, version uint64, holder session.Holder) error {
	held := ""
	if holder != (session.Holder{}) {
		held = string(holder[:])
	}
	return s.change(ctx, "deleting session from redis", func(ctx context.Context) rueidis.RedisResult {
		return deleteAtScript.run(ctx, s.durable(id), []string{s.keys.item(id), s.keys.lease(id)}, encodeVersion(version), held)
	})
}

// change takes a step that says whether the item was as expected.
func (s *Store) change(ctx context.Context, doing string, step func(context.Context) rueidis.RedisResult) error {
	err := s.try(ctx, func(ctx context.Context) error {
		done, err := step(ctx).AsBool()
		if err == nil && !done {
			err = session.ErrConflict
		}
		return err
	})
	if err != nil {
		return answer(doing, err)
	}
	return nil
}

// Delete implements [session.Store].
func (s *Store) Delete(ctx context.Context, id session.ID) error {
	del := func(ctx context.Context, keys ...string) rueidis.RedisResult {
		return s.durable(id)(ctx, func(b rueidis.Builder) rueidis.Completed { return b.Del().Key(keys...).Build() })
	}
	err := s.try(ctx, func(ctx context.Context) error {
		res := del(ctx, s.keys.item(id), s.keys.lease(id))
		if !isMoving(res) {
			return res.Error()
		}
		// See script.alone. The lease is worth nothing without the item.
		if err := del(ctx, s.keys.item(id)).Error(); err != nil {
			return err
		}
		return del(ctx, s.keys.lease(id)).Error()
	})
	if err != nil {
		return answer("deleting session from redis", err)
	}
	s.indexed.forget(id)
	return nil
}

// durable returns how to send a command that changes an item. The command is
// not acknowledged before this process has dropped its copy: the push comes
// behind the command's own answer, but before that of the next command on the
// connection, which is therefore waited for. So a process always reads its own
// writes.
func (s *Store) durable(id session.ID) send {
	key := s.keys.item(id)
	return func(ctx context.Context, command build) rueidis.RedisResult {
		if s.replicas > 0 {
			res := s.replicated(ctx, s.keys.landed(id), command)
			_ = s.client.Do(ctx, s.client.B().Pttl().Key(key).Build()) // a failure closes the connection, and the copies with it
			return res
		}
		b := s.client.B()
		return s.client.DoMulti(ctx, command(b), b.Pttl().Key(key).Build())[0]
	}
}

// replicated sends a command and waits until enough replicas have what it did
// or found. WAIT is about the last write on its own connection, so it needs one
// for itself; and a write that certainly happens, because the command may have
// found that an earlier try, whose answer was lost or bad, had done it all:
// then it is that try which the replicas must have.
func (s *Store) replicated(ctx context.Context, landed string, command build) rueidis.RedisResult {
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	case <-ctx.Done():
		return rueidis.NewErrorResult(ctx.Err())
	}
	conn, release := s.client.Dedicate()
	defer release()
	b := conn.B()
	res := conn.DoMulti(ctx, command(b),
		b.Set().Key(landed).Value("").PxMilliseconds(replicaTimeout).Build(),
		b.Wait().Numreplicas(s.replicas).Timeout(replicaTimeout).Build())
	if err := res[0].Error(); err != nil && !rueidis.IsRedisNil(err) {
		return res[0]
	}
	if err := res[1].Error(); err != nil {
		return res[1]
	}
	switch have, err := res[2].AsInt64(); {
	case err != nil:
		return res[2]
	case have < s.replicas:
		return rueidis.NewErrorResult(errReplicas)
	}
	return res[0]
}

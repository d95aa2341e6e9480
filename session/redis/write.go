package redis

import (
	"bytes"
	"context"
	"errors"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// replicaTimeout is the timeout of WAIT in milliseconds.
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
		if err := s.addToIndexes(ctx, id, item); err != nil {
			return err
		}
		created, err := s.createNew(ctx, id, item, life)
		if err != nil || created {
			return err
		}
		if tries > 1 && s.hasItem(ctx, id, item) {
			return nil // the first try succeeded, and its answer was lost
		}
		return session.ErrConflict
	})
	if err != nil {
		return callError("writing session to redis", err)
	}
	return nil
}

// createNew writes an item and its label, unless the ID has an item. life is the time to
// live in milliseconds.
func (s *Store) createNew(ctx context.Context, id session.ID, item session.Item, life int64) (created bool, err error) {
	if len(item.Label) > 0 {
		return createScript.runOnOneKey(ctx, s.durable(id), []string{s.keys.item(id), s.keys.label(id)},
			encodeItem(item), strconv.FormatInt(life, 10), rueidis.BinaryString(item.Label)).AsBool()
	}
	err = s.durable(id)(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Set().Key(s.keys.item(id)).Value(encodeItem(item)).Nx().PxMilliseconds(life).Build()
	}).Error()
	if rueidis.IsRedisNil(err) {
		return false, nil
	}
	return err == nil, err
}

// createExpired creates an item that has expired already: it writes nothing, and
// returns ErrConflict if the ID has an item.
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

// hasItem reports whether the server has this item in the same version.
func (s *Store) hasItem(ctx context.Context, id session.ID, item session.Item) bool {
	got, err := s.current(ctx, id)
	return err == nil && got.Version == item.Version && bytes.Equal(got.Value, item.Value)
}

// Replace implements [session.Store]. If the answer to its first try was lost, it may
// return ErrConflict although that try succeeded.
func (s *Store) Replace(ctx context.Context, id session.ID, item session.Item) error {
	return s.change(ctx, "writing session to redis", func(ctx context.Context) rueidis.RedisResult {
		if err := s.addToIndexes(ctx, id, item); err != nil {
			return rueidis.NewErrorResult(err)
		}
		return replaceScript.runOnOneKey(ctx, s.durable(id), s.keysOf(id),
			encodeVersion(item.Version-1), encodeItem(item), strconv.FormatInt(lifetime(item.Expires), 10), rueidis.BinaryString(item.Label))
	})
}

// DeleteAt implements [session.SharedStore]. If the answer to its first try was lost,
// it may return ErrConflict although that try succeeded.
func (s *Store) DeleteAt(ctx context.Context, id session.ID, version uint64, holder session.Holder) error {
	expected := ""
	if holder != (session.Holder{}) {
		expected = string(holder[:])
	}
	return s.change(ctx, "deleting session from redis", func(ctx context.Context) rueidis.RedisResult {
		return deleteAtScript.run(ctx, s.durable(id), s.keysOf(id), encodeVersion(version), expected)
	})
}

// change runs a step that returns true, or false for a conflict.
func (s *Store) change(ctx context.Context, doing string, step func(context.Context) rueidis.RedisResult) error {
	err := s.try(ctx, func(ctx context.Context) error {
		done, err := step(ctx).AsBool()
		if err == nil && !done {
			err = session.ErrConflict
		}
		return err
	})
	if err != nil {
		return callError(doing, err)
	}
	return nil
}

// Delete implements [session.Store].
func (s *Store) Delete(ctx context.Context, id session.ID) error {
	del := func(ctx context.Context, keys ...string) rueidis.RedisResult {
		return s.durable(id)(ctx, func(b rueidis.Builder) rueidis.Completed { return b.Del().Key(keys...).Build() })
	}
	err := s.try(ctx, func(ctx context.Context) error {
		keys := s.keysOf(id)
		res := del(ctx, keys...)
		if !isMoving(res) {
			return res.Error()
		}
		// See script.runOnOneKey. A lease or a label without an item has no effect.
		for _, key := range keys {
			if err := del(ctx, key).Error(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return callError("deleting session from redis", err)
	}
	s.indexes.forget(id)
	return nil
}

// keysOf returns the keys of an item: its own, that of its lease, and that of its label.
func (s *Store) keysOf(id session.ID) []string {
	return []string{s.keys.item(id), s.keys.lease(id), s.keys.label(id)}
}

// durable returns the send function for commands that change an item. It returns after
// this process has dropped its copy, so that a process always reads its own writes: the
// push arrives after the answer to the command, and before the answer to the next
// command on the connection. So durable sends a second command and waits for its
// answer.
func (s *Store) durable(id session.ID) send {
	key := s.keys.item(id)
	return func(ctx context.Context, command build) rueidis.RedisResult {
		if s.replicas > 0 {
			res := s.replicated(ctx, s.keys.itemWait(id), command)
			_ = s.client.Do(ctx, s.client.B().Pttl().Key(key).Build()) // an error closes the connection and drops the copies
			return res
		}
		b := s.client.B()
		return s.client.DoMulti(ctx, command(b), b.Pttl().Key(key).Build())[0]
	}
}

// replicated sends a command and waits until enough replicas have its effect. WAIT
// covers the last write on its connection, so each call uses a connection of its own.
// The command may have changed nothing because an earlier try had succeeded, and then
// the replicas must have that try. So replicated adds a write of waitKey, for which
// WAIT waits in any case.
func (s *Store) replicated(ctx context.Context, waitKey string, command build) rueidis.RedisResult {
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
		b.Set().Key(waitKey).Value("").PxMilliseconds(replicaTimeout).Build(),
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

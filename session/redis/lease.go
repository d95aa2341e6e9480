package redis

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/rueidis"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// maxAnnouncement is the size limit of an announcement in bytes.
const maxAnnouncement = 4 << 10

// plain sends a command that changes no item, so it waits for no push and no replica.
func (s *Store) plain(ctx context.Context, command build) rueidis.RedisResult {
	return s.client.Do(ctx, command(s.client.B()))
}

// Acquire implements [session.SharedStore].
func (s *Store) Acquire(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
	if holder == (session.Holder{}) {
		return session.Lease{}, errors.New("acquiring lease in redis: no holder")
	}
	expected := ""
	if seen != (session.Lease{}) {
		expected = encodeLease(seen)
	}
	var lease session.Lease
	tries := 0
	err := s.try(ctx, func(ctx context.Context) (err error) {
		res := acquireScript.run(ctx, s.plain, []string{s.keys.item(id), s.keys.lease(id)},
			encodeVersion(version), encodeLease(session.Lease{Holder: holder}), expected)
		lease, err = readLease(res)
		if tries++; tries > 1 && errors.Is(err, session.ErrLeased) && lease.Holder == holder {
			err = nil // the first try succeeded, and its answer was lost
		}
		return err
	})
	if tries > 1 && errors.Is(err, session.ErrConflict) {
		_ = s.Release(ctx, id, holder) // the first try may have succeeded before another write
	}
	if err != nil {
		return lease, callError("acquiring lease in redis", err)
	}
	return lease, nil
}

// readLease decodes the answer of acquireScript.
func readLease(res rueidis.RedisResult) (session.Lease, error) {
	parts, err := res.ToArray()
	if err != nil {
		return session.Lease{}, err
	}
	if len(parts) == 0 {
		return session.Lease{}, errMalformed
	}
	code, err := parts[0].AsInt64()
	switch {
	case err != nil:
		return session.Lease{}, err
	case code == acquireGone:
		return session.Lease{}, session.ErrNotFound
	case code == acquireMoved:
		return session.Lease{}, session.ErrConflict
	case code != acquireBusy && code != acquireWon, len(parts) < 2:
		return session.Lease{}, errMalformed
	}
	text, err := parts[1].ToString()
	if err != nil {
		return session.Lease{}, err
	}
	lease, err := decodeLease(text)
	if err == nil && code == acquireBusy {
		err = session.ErrLeased
	}
	return lease, err
}

// Beat implements [session.SharedStore].
func (s *Store) Beat(ctx context.Context, id session.ID, lease session.Lease) error {
	err := s.try(ctx, func(ctx context.Context) error {
		held, err := beatScript.runOnOneKey(ctx, s.plain, []string{s.keys.lease(id), s.keys.item(id)}, encodeLease(lease)).AsBool()
		if err == nil && !held {
			err = session.ErrConflict
		}
		return err
	})
	if err != nil {
		return callError("renewing lease in redis", err)
	}
	return nil
}

// Release implements [session.SharedStore].
func (s *Store) Release(ctx context.Context, id session.ID, holder session.Holder) error {
	err := s.try(ctx, func(ctx context.Context) error {
		return releaseScript.run(ctx, s.plain, []string{s.keys.lease(id)}, string(holder[:])).Error()
	})
	if err != nil {
		return callError("releasing lease in redis", err)
	}
	return nil
}

// Announce implements [session.SharedStore].
func (s *Store) Announce(ctx context.Context, topic session.Topic, from session.Holder, announcement []byte) ([][]byte, error) {
	if len(announcement) > maxAnnouncement {
		return nil, fmt.Errorf("announcing in redis: %d bytes are too long, the limit is %d", len(announcement), maxAnnouncement)
	}
	var all [][]byte
	err := s.try(ctx, func(ctx context.Context) error {
		texts, err := announceScript.run(ctx, s.plain, []string{s.keys.announcement(topic)}, string(from[:]), string(announcement)).AsStrSlice()
		all = make([][]byte, len(texts))
		for i, text := range texts {
			all[i] = []byte(text)
		}
		return err
	})
	if err != nil {
		return nil, callError("announcing in redis", err)
	}
	return all, nil
}

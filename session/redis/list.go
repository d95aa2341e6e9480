package redis

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/oauth-session/caddy-oauth-session/session"
)

const (
	// maxListSet is the largest number of entries in one of the 256 sets of the list. It
	// only bounds a set that another program fills.
	maxListSet = 1 << 22
	// maxListReads is the largest number of sets that List reads in one round trip.
	maxListReads = 32
	// labelReads is the number of labels that Labels reads in one round trip.
	labelReads = 128
)

// List implements [session.Store]. It also lists IDs of items that are gone: an entry
// outlives its item, as in the index of a tag.
func (s *Store) List(ctx context.Context, after session.ID, limit int) ([]session.ID, error) {
	var page []session.ID
	// A set has thousands of entries if there are a million sessions, and none or one if
	// there are few. So the number of sets in a round trip grows while pages stay short.
	reads := 1
	for first := int(after[0]); first < 256 && len(page) < limit; reads = min(2*reads, maxListReads) {
		next := min(first+reads, 256)
		ids, err := s.listSets(ctx, first, next)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			if bytes.Compare(id[:], after[:]) > 0 && len(page) < limit {
				page = append(page, id)
			}
		}
		first = next
	}
	return page, nil
}

// listSets returns the IDs in the sets with the given first bytes, in ascending order.
func (s *Store) listSets(ctx context.Context, first, end int) (ids []session.ID, err error) {
	err = s.try(ctx, func(ctx context.Context) error {
		ids = ids[:0]
		now := strconv.FormatInt(time.Now().UnixMilli(), 10)
		var commands []rueidis.Completed
		for set := first; set < end; set++ {
			commands = append(commands, s.client.B().Zrange().Key(s.keys.list(byte(set))).Min(now).Max("+inf").Byscore().Build())
		}
		for i, res := range s.client.DoMulti(ctx, commands...) {
			members, err := res.AsStrSlice()
			if err != nil {
				return err
			}
			for _, member := range members {
				if len(member) != len(session.ID{}) || member[0] != byte(first+i) {
					return errMalformed
				}
				ids = append(ids, session.ID([]byte(member)))
			}
		}
		return nil
	})
	if err != nil {
		return nil, callError("listing sessions in redis", err)
	}
	slices.SortFunc(ids, func(a, b session.ID) int { return bytes.Compare(a[:], b[:]) })
	return ids, nil
}

// Labels implements [session.Store].
func (s *Store) Labels(ctx context.Context, ids []session.ID) (found []session.Labelled, err error) {
	if err := ctx.Err(); err != nil {
		return nil, callError("reading labels from redis", err)
	}
	for chunk := range slices.Chunk(ids, labelReads) {
		labels, err := s.readLabels(ctx, chunk)
		if err != nil {
			return nil, err
		}
		found = append(found, labels...)
	}
	return found, nil
}

// readLabels reads labels in one round trip. The time to live of an item shows whether it
// exists without its value.
func (s *Store) readLabels(ctx context.Context, ids []session.ID) (found []session.Labelled, err error) {
	err = s.try(ctx, func(ctx context.Context) error {
		found = found[:0]
		commands := make([]rueidis.Completed, 0, 2*len(ids))
		for _, id := range ids {
			commands = append(commands, s.client.B().Pttl().Key(s.keys.item(id)).Build(), s.client.B().Get().Key(s.keys.label(id)).Build())
		}
		answers := s.client.DoMulti(ctx, commands...)
		for i, id := range ids {
			life, err := answers[2*i].AsInt64()
			if err != nil {
				return err
			}
			label, err := answers[2*i+1].AsBytes()
			if err != nil && !rueidis.IsRedisNil(err) {
				return err
			}
			if life > 0 {
				found = append(found, session.Labelled{ID: id, Label: label})
			}
		}
		return nil
	})
	if err != nil {
		return nil, callError("reading labels from redis", err)
	}
	return found, nil
}

package redis

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// maxIndexed bounds for how many sessions a process remembers what the indexes
// say. Beyond it all is forgotten, and learned again with the next writes.
const maxIndexed = 1 << 16

// indexed knows what the indexes of tags say of items this process has written,
// so that most writes need not touch them.
type indexed struct {
	mu    sync.Mutex
	items map[session.ID]index
	// lost counts how often everything was forgotten.
	lost uint64
}

// index is what the indexes say of one item.
type index struct {
	tags  [session.MaxTags]session.Tag
	until time.Time
}

// covers reports whether an item is found by its tags for as long as it lives,
// and else a number for set.
func (x *indexed) covers(id session.ID, item session.Item) (ok bool, lost uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	is, known := x.items[id]
	for _, tag := range item.Tags {
		known = known && slices.Contains(is.tags[:], tag)
	}
	return known && !item.Expires.After(is.until), x.lost
}

// set notes what was written, unless it may have been lost since covers was
// asked.
func (x *indexed) set(id session.ID, is index, lost uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if lost != x.lost {
		return
	}
	if x.items == nil || len(x.items) >= maxIndexed {
		x.items = map[session.ID]index{}
	}
	x.items[id] = is
}

func (x *indexed) forget(id session.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.items, id)
}

// forgetAll is for a server that may not be the one it was, or not have all
// that it had.
func (x *indexed) forgetAll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.items = nil
	x.lost++
}

// index makes an item found by its tags. It comes before the item is written:
// the two are in different slots of a cluster, and an index may say too much but
// not too little.
//
// An entry is made to last half as long again as the item, so that a session in
// use, whose end moves with every minute, touches the index every few hours.
// What is there of ended sessions goes when its time is over.
func (s *Store) index(ctx context.Context, id session.ID, item session.Item) error {
	covered, lost := s.indexed.covers(id, item)
	now := time.Now()
	life := item.Expires.Sub(now)
	if len(item.Tags) == 0 || covered || life <= 0 {
		return nil
	}
	is := index{until: item.Expires.Add(life / 2)}
	for i, tag := range item.Tags {
		is.tags[i] = tag
		err := indexScript.run(ctx, s.replicatedIf(tag), []string{s.keys.tag(tag)}, string(id[:]),
			strconv.FormatInt(is.until.UnixMilli(), 10), strconv.FormatInt(now.UnixMilli(), 10),
			strconv.FormatInt(is.until.Sub(now).Milliseconds(), 10), strconv.Itoa(session.MaxTagged)).Error()
		if err != nil {
			return err
		}
	}
	s.indexed.set(id, is, lost)
	return nil
}

// replicatedIf returns how to send a command that changes the index of a tag:
// as those that change an item, but there are no copies of it.
func (s *Store) replicatedIf(tag session.Tag) send {
	if s.replicas == 0 {
		return s.plain
	}
	return func(ctx context.Context, command build) rueidis.RedisResult {
		return s.replicated(ctx, s.keys.tagLanded(tag), command)
	}
}

// Tagged implements [session.Store].
func (s *Store) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	var ids []session.ID
	err := s.try(ctx, func(ctx context.Context) error {
		now := strconv.FormatInt(time.Now().UnixMilli(), 10)
		members, err := s.client.Do(ctx, s.client.B().Zrange().Key(s.keys.tag(tag)).Min("+inf").Max(now).
			Byscore().Rev().Limit(0, session.MaxTagged).Build()).AsStrSlice()
		if err != nil {
			return err
		}
		ids = make([]session.ID, len(members))
		for i, member := range members {
			if len(member) != len(ids[i]) {
				return errMalformed
			}
			ids[i] = session.ID([]byte(member))
		}
		return nil
	})
	if err != nil {
		return nil, answer("looking up a tag in redis", err)
	}
	return ids, nil
}

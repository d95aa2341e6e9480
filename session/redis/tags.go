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

// maxCachedEntries limits the number of items in an indexCache. A full cache is
// emptied, and filled again by the next writes.
const maxCachedEntries = 1 << 16

// indexCache has the index entries of items that this process has written. Most writes
// therefore need not write to the indexes.
type indexCache struct {
	mu    sync.Mutex
	items map[session.ID]indexEntry
	// epoch counts the calls of forgetAll.
	epoch uint64
}

// indexEntry is the content of the indexes for one item.
type indexEntry struct {
	tags   [session.MaxTags]session.Tag
	listed bool // it is in a set of the list
	until  time.Time
}

// covers reports whether the indexes have the item under all its tags, and the list has
// it if it has a label, until it expires. The caller passes the epoch to set.
func (x *indexCache) covers(id session.ID, item session.Item) (ok bool, epoch uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	entry, known := x.items[id]
	known = known && (entry.listed || len(item.Label) == 0)
	for _, tag := range item.Tags {
		known = known && slices.Contains(entry.tags[:], tag)
	}
	return known && !item.Expires.After(entry.until), x.epoch
}

// set adds the entry of an item, unless forgetAll was called since covers returned the
// epoch: the server may have lost the entry.
func (x *indexCache) set(id session.ID, entry indexEntry, epoch uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if epoch != x.epoch {
		return
	}
	if x.items == nil || len(x.items) >= maxCachedEntries {
		x.items = map[session.ID]indexEntry{}
	}
	x.items[id] = entry
}

func (x *indexCache) forget(id session.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.items, id)
}

// forgetAll empties the cache after a lost connection: the server may have lost writes,
// or be another one.
func (x *indexCache) forgetAll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.items = nil
	x.epoch++
}

// addToIndexes adds an item to the indexes of its tags, and to the list if it has a label.
// It is called before the item is written, because the two are in different slots of a
// cluster: an index may list an item that does not exist, and must not miss one.
//
// An entry lives for one and a half times the life of the item. So a session in use
// writes to the index once in hours, although every recorded use moves its expiry.
// Entries of ended sessions expire.
func (s *Store) addToIndexes(ctx context.Context, id session.ID, item session.Item) error {
	covered, epoch := s.indexes.covers(id, item)
	now := time.Now()
	life := item.Expires.Sub(now)
	if len(item.Tags) == 0 && len(item.Label) == 0 || covered || life <= 0 {
		return nil
	}
	entry := indexEntry{until: item.Expires.Add(life / 2), listed: len(item.Label) > 0}
	add := func(key, waitKey string, maxEntries int) error {
		return indexScript.run(ctx, s.durableIndex(waitKey), []string{key}, string(id[:]),
			strconv.FormatInt(entry.until.UnixMilli(), 10), strconv.FormatInt(now.UnixMilli(), 10),
			strconv.FormatInt(entry.until.Sub(now).Milliseconds(), 10), strconv.Itoa(maxEntries)).Error()
	}
	for i, tag := range item.Tags {
		entry.tags[i] = tag
		if err := add(s.keys.tag(tag), s.keys.tagWait(tag), session.MaxTagged); err != nil {
			return err
		}
	}
	if entry.listed {
		if err := add(s.keys.list(id[0]), s.keys.listWait(id[0]), maxListSet); err != nil {
			return err
		}
	}
	s.indexes.set(id, entry, epoch)
	return nil
}

// durableIndex returns the send function for commands that change an index. It waits for
// replicas as durable does. There are no copies of an index to drop.
func (s *Store) durableIndex(waitKey string) send {
	if s.replicas == 0 {
		return s.plain
	}
	return func(ctx context.Context, command build) rueidis.RedisResult {
		return s.replicated(ctx, waitKey, command)
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
		return nil, callError("looking up a tag in redis", err)
	}
	return ids, nil
}

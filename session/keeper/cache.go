package keeper

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// recordCache caches decrypted hot parts, so that the requests of one page do not each
// derive a key and decrypt the same bytes. It contains access tokens and claims in plain
// text, as requests in progress do anyway, and never a refresh token: see decision 0013.
//
// Each write of this process removes the entry. If other processes write too, a request
// validates the entry against the store: the entry is valid while the store has the same
// item. A validation holds for cacheTrust, or until the store reports a change.
type recordCache struct {
	shards [cacheShards]cacheShard
	mu     sync.Mutex
	aging  *time.Timer // runs while there are entries; guarded by mu
}

// cacheShard keeps its entries in two generations. A used entry moves to the young
// generation. When that is full, or cacheAge has passed, the old generation is dropped.
type cacheShard struct {
	mu         sync.Mutex
	young, old map[session.ID]*cacheEntry
	size       int // of the young generation, in bytes
	// writes counts the removals. put compares it, so that no entry comes back that
	// was read before a write.
	writes uint64
}

const (
	cacheShards = 64
	// cacheMaxBytes bounds the entries of both generations, in bytes.
	cacheMaxBytes = 32 << 20
	// cacheAge is how long an unused entry stays at least. It stays for twice that at
	// most.
	cacheAge = time.Minute
	// cacheTrust is how long an item of a shared store is not validated again. The
	// store reports changes; this bounds the effect of a lost notification, in
	// addition to the store's own bound for its copies.
	cacheTrust = time.Second
	// cacheEntryOverhead is the size of an entry without its strings, in bytes.
	cacheEntryOverhead = 512
)

// cacheEntry is a hot part and the identity of the item it was read from. Neither is ever
// modified.
type cacheEntry struct {
	hot     hot
	keyID   seal.KeyID
	version uint64
	sum     uint64 // hash of the item's value
	// validated is the last validation; nil unless the store is shared.
	validated atomic.Pointer[validation]
	// view is the Session of the last request, for reuse by the next.
	view atomic.Pointer[sessionView]
}

// validation is a moment at which the store had an item, and the epoch of the session
// before it.
type validation struct {
	at    time.Time
	epoch uint64
}

// isCurrent reports whether the last validation still holds.
func (e *cacheEntry) isCurrent(epoch uint64) bool {
	v := e.validated.Load()
	return v.epoch == epoch && time.Since(v.at) < cacheTrust
}

// sessionView is a Session as one keeper shows it: keepers on one vault may differ in
// their lifetimes.
type sessionView struct {
	Session
	keeper *Keeper
}

// sessionFor returns the Session of an entry. Its IdleEnd counts from the last written
// use.
func (e *cacheEntry) sessionFor(k *Keeper, id session.ID, epoch uint64) *Session {
	v := e.view.Load()
	if v == nil || v.keeper != k || v.epoch != epoch {
		h := e.hot
		h.epoch = epoch
		v = &sessionView{Session: *k.sessionOf(id, &h), keeper: k}
		e.view.Store(v)
	}
	return &v.Session
}

func newCacheEntry(item session.Item, h hot) *cacheEntry {
	h.token.bearer = bearer(h.token.value)
	h.token.value = h.token.bearer[len(bearerScheme):] // shares the memory of bearer
	return &cacheEntry{hot: h, keyID: seal.KeyIDOf(item.Value), version: item.Version, sum: maphash.Bytes(sumSeed, item.Value)}
}

// sumSeed is random and secret in each process: without it, a writer to the store cannot
// find another value with the same sum.
var sumSeed = maphash.MakeSeed()

// matches reports whether an entry was read from this item. Comparing a hash spares the
// entry a copy of the item's value.
func (e *cacheEntry) matches(item session.Item) bool {
	return e.version == item.Version && e.sum == maphash.Bytes(sumSeed, item.Value)
}

func (e *cacheEntry) size() int {
	return cacheEntryOverhead + len(e.hot.token.bearer) + len(e.hot.claims) + len(e.hot.subject) + len(e.hot.unknownFields)
}

func (c *recordCache) shard(id session.ID) *cacheShard { return &c.shards[id[0]%cacheShards] }

// get returns the entry of a session, or nil, and the number of removals for put.
func (c *recordCache) get(id session.ID) (e *cacheEntry, writes uint64) {
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e = s.young[id]; e == nil {
		if e = s.old[id]; e != nil {
			delete(s.old, id)
			s.add(id, e)
		}
	}
	return e, s.writes
}

// put adds an entry that was read after get, unless an entry was removed in between.
func (c *recordCache) put(id session.ID, e *cacheEntry, writes uint64) {
	s := c.shard(id)
	s.mu.Lock()
	unchanged := s.writes == writes
	if unchanged {
		s.add(id, e)
	}
	s.mu.Unlock()
	if unchanged {
		c.startAging()
	}
}

// add adds an entry to the young generation, and makes room for it first.
func (s *cacheShard) add(id session.ID, e *cacheEntry) {
	size := e.size()
	if s.size+size > cacheMaxBytes/2/cacheShards {
		s.rotate()
	}
	if s.young == nil {
		s.young = map[session.ID]*cacheEntry{}
	}
	if before := s.young[id]; before != nil {
		s.size -= before.size()
	}
	s.young[id] = e
	s.size += size
}

// rotate drops the old generation and makes the young one old. It reports whether an
// entry is left.
func (s *cacheShard) rotate() bool {
	s.old, s.young, s.size = s.young, nil, 0
	return len(s.old) > 0
}

// forget removes the entry of a session that was written or has ended.
func (c *recordCache) forget(id session.ID) {
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	delete(s.old, id)
	if e := s.young[id]; e != nil {
		s.size -= e.size()
		delete(s.young, id)
	}
}

// startAging rotates all shards every cacheAge until no entry is left.
func (c *recordCache) startAging() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aging == nil {
		c.aging = time.AfterFunc(cacheAge, c.rotate)
	}
}

func (c *recordCache) rotate() {
	// put calls startAging after it has added an entry. Since mu is locked from here
	// to the end, either this rotation sees the entry, or startAging starts the timer.
	c.mu.Lock()
	defer c.mu.Unlock()
	left := false
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		left = s.rotate() || left
		s.mu.Unlock()
	}
	c.aging = nil
	if left {
		c.aging = time.AfterFunc(cacheAge, c.rotate)
	}
}

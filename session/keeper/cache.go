package keeper

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// openedRecords are hot parts that were opened lately, so that the requests of
// a page do not each derive a key and decrypt the same bytes. It holds access
// tokens and claims in the clear, as the requests in progress do anyway, and
// never a refresh token; decision 0013 weighs that.
//
// What is served from here is what the store would say: each write of this process
// takes its entry away. Where others write too, an entry counts for the very item
// that the store has. It is not asked for that again within a second, unless it has
// told of a change since.
type recordCache struct {
	shards [cacheShards]cacheShard
	mu     sync.Mutex
	aging  *time.Timer // runs while there are entries
}

// openedShard keeps its entries in two generations. What is used moves to the
// young one; when that is full, or openedAge has passed, the old one is dropped.
type cacheShard struct {
	mu         sync.Mutex
	young, old map[session.ID]*cacheEntry
	size       int // of the young ones, in bytes
	// writes counts what was taken away, so that nobody puts back what was read
	// before.
	writes uint64
}

const (
	cacheShards = 64
	// openedMax bounds the entries of both generations, in bytes.
	cacheMaxBytes = 32 << 20
	// openedAge is how long an entry stays that nobody uses, and twice that at
	// most.
	cacheAge = time.Minute
	// openedTrust is how long an item that others may write is not asked for
	// again. The store tells of changes; this bounds what one that did not arrive
	// can do, beside the store's own bound for its copies.
	cacheTrust = time.Second
	// openedOverhead is what an entry takes besides its texts.
	cacheEntryOverhead = 512
)

// opened is a hot part and the item it was read from, which are never modified.
type cacheEntry struct {
	hot     hot
	keyID   seal.KeyID
	version uint64
	sum     uint64 // of the item's value
	// asked is when the store last had this item, where others may write.
	validatedAt atomic.Pointer[validation]
	// view is what the last request got to see of it, for the next one.
	view atomic.Pointer[sessionView]
}

// asked is a look at the store: when, and what it had told of changes before.
type validation struct {
	at    time.Time
	epoch uint64
}

// isCurrent reports whether the store need not be asked again: a moment ago it had
// this item, and it has told of no change since.
func (o *cacheEntry) isCurrent(mark uint64) bool {
	a := o.validatedAt.Load()
	return a.epoch == mark && time.Since(a.at) < cacheTrust
}

// view is a Session as one keeper sees it. Keepers on one vault may differ in
// the lifetimes they allow.
type sessionView struct {
	Session
	keeper *Keeper
}

// session returns the public view of an entry, as of when it was read: its idle
// time counts from the last use that was written down.
func (o *cacheEntry) sessionFor(k *Keeper, id session.ID, mark uint64) *Session {
	v := o.view.Load()
	if v == nil || v.keeper != k || v.epoch != mark {
		h := o.hot
		h.epoch = mark
		v = &sessionView{Session: *k.sessionOf(id, &h), keeper: k}
		o.view.Store(v)
	}
	return &v.Session
}

func newCacheEntry(item session.Item, h hot) *cacheEntry {
	h.token.bearer = bearer(h.token.value)
	h.token.value = h.token.bearer[len(bearerScheme):] // one copy for both
	return &cacheEntry{hot: h, keyID: seal.KeyIDOf(item.Value), version: item.Version, sum: maphash.Bytes(sumSeed, item.Value)}
}

// sumSeed is drawn by each process and told to nobody: without it, nobody finds
// another value of the same sum.
var sumSeed = maphash.MakeSeed()

// isOf reports whether an entry was read from this very item. The sum stands in
// for comparing the bytes, which would have to be kept.
func (o *cacheEntry) matches(item session.Item) bool {
	return o.version == item.Version && o.sum == maphash.Bytes(sumSeed, item.Value)
}

func (o *cacheEntry) size() int {
	return cacheEntryOverhead + len(o.hot.token.bearer) + len(o.hot.claims) + len(o.hot.subject) + len(o.hot.unknownFields)
}

func (r *recordCache) shard(id session.ID) *cacheShard { return &r.shards[id[0]%cacheShards] }

// get returns the entry of a session, or nil, and what put wants to know.
func (r *recordCache) get(id session.ID) (o *cacheEntry, writes uint64) {
	s := r.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if o = s.young[id]; o == nil {
		if o = s.old[id]; o != nil {
			delete(s.old, id)
			s.add(id, o)
		}
	}
	return o, s.writes
}

// put keeps what was read since get, unless anything was written meanwhile.
func (r *recordCache) put(id session.ID, o *cacheEntry, writes uint64) {
	s := r.shard(id)
	s.mu.Lock()
	kept := s.writes == writes
	if kept {
		s.add(id, o)
	}
	s.mu.Unlock()
	if kept {
		r.startAging()
	}
}

// keep adds an entry to the young ones, which makes room by itself.
func (s *cacheShard) add(id session.ID, o *cacheEntry) {
	size := o.size()
	if s.size+size > cacheMaxBytes/2/cacheShards {
		s.rotate()
	}
	if s.young == nil {
		s.young = map[session.ID]*cacheEntry{}
	}
	if before := s.young[id]; before != nil {
		s.size -= before.size()
	}
	s.young[id] = o
	s.size += size
}

// turn drops the old generation, and reports whether anything is left.
func (s *cacheShard) rotate() bool {
	s.old, s.young, s.size = s.young, nil, 0
	return len(s.old) > 0
}

// forget takes the entry of a session away: it was written, or has ended.
func (r *recordCache) forget(id session.ID) {
	s := r.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	delete(s.old, id)
	if o := s.young[id]; o != nil {
		s.size -= o.size()
		delete(s.young, id)
	}
}

// age turns the generations as long as there are entries.
func (r *recordCache) startAging() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.aging == nil {
		r.aging = time.AfterFunc(cacheAge, r.rotate)
	}
}

func (r *recordCache) rotate() {
	// Locked throughout, so that an entry put meanwhile is seen, or starts the
	// timer again.
	r.mu.Lock()
	defer r.mu.Unlock()
	left := false
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		left = s.rotate() || left
		s.mu.Unlock()
	}
	r.aging = nil
	if left {
		r.aging = time.AfterFunc(cacheAge, r.rotate)
	}
}

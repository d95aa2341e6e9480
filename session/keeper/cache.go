package keeper

import (
	"bytes"
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
type openedRecords struct {
	shards [openedShards]openedShard
	mu     sync.Mutex
	aging  *time.Timer // runs while there are entries
}

// openedShard keeps its entries in two generations. What is used moves to the
// young one; when that is full, or openedAge has passed, the old one is dropped.
type openedShard struct {
	mu         sync.Mutex
	young, old map[session.ID]*opened
	size       int // of the young ones, in bytes
	// writes counts what was taken away, so that nobody puts back what was read
	// before.
	writes uint64
}

const (
	openedShards = 64
	// openedMax bounds the entries of both generations, in bytes.
	openedMax = 32 << 20
	// openedAge is how long an entry stays that nobody uses, and twice that at
	// most.
	openedAge = time.Minute
	// openedTrust is how long an item that others may write is not asked for
	// again. The store tells of changes; this bounds what one that did not arrive
	// can do, beside the store's own bound for its copies.
	openedTrust = time.Second
	// openedOverhead is what an entry takes besides its texts.
	openedOverhead = 512
)

// opened is a hot part and the item it was read from, which are never modified.
type opened struct {
	hot     hot
	sealer  seal.KeyID
	version uint64
	sum     uint64 // of the item's value
	// asked is when the store last had this item, where others may write.
	asked atomic.Pointer[asked]
	// view is what the last request got to see of it, for the next one.
	view atomic.Pointer[view]
}

// asked is a look at the store: when, and what it had told of changes before.
type asked struct {
	at   time.Time
	mark uint64
}

// isCurrent reports whether the store need not be asked again: a moment ago it had
// this item, and it has told of no change since.
func (o *opened) isCurrent(mark uint64) bool {
	a := o.asked.Load()
	return a.mark == mark && time.Since(a.at) < openedTrust
}

// view is a Session as one keeper sees it. Keepers on one vault may differ in
// the lifetimes they allow.
type view struct {
	Session
	by *Keeper
}

// session returns the public view of an entry, as of when it was read: its idle
// time counts from the last use that was written down.
func (o *opened) session(k *Keeper, id session.ID, mark uint64) *Session {
	v := o.view.Load()
	if v == nil || v.by != k || v.mark != mark {
		h := o.hot
		h.mark = mark
		v = &view{Session: *k.session(id, &h), by: k}
		o.view.Store(v)
	}
	return &v.Session
}

func newOpened(item session.Item, h hot) *opened {
	h.token.bearer = bearer(h.token.value)
	h.token.value = h.token.bearer[len(bearerScheme):] // one copy for both
	h.claims = bytes.Clone(h.claims)                   // and not the whole plaintext that they are a part of
	return &opened{hot: h, sealer: seal.KeyIDOf(item.Value), version: item.Version, sum: maphash.Bytes(sumSeed, item.Value)}
}

// sumSeed is drawn by each process and told to nobody: without it, nobody finds
// another value of the same sum.
var sumSeed = maphash.MakeSeed()

// isOf reports whether an entry was read from this very item. The sum stands in
// for comparing the bytes, which would have to be kept.
func (o *opened) isOf(item session.Item) bool {
	return o.version == item.Version && o.sum == maphash.Bytes(sumSeed, item.Value)
}

func (o *opened) size() int {
	return openedOverhead + len(o.hot.token.bearer) + len(o.hot.claims) + len(o.hot.subject) + len(o.hot.rest)
}

func (r *openedRecords) shard(id session.ID) *openedShard { return &r.shards[id[0]%openedShards] }

// get returns the entry of a session, or nil, and what put wants to know.
func (r *openedRecords) get(id session.ID) (o *opened, writes uint64) {
	s := r.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if o = s.young[id]; o == nil {
		if o = s.old[id]; o != nil {
			delete(s.old, id)
			s.keep(id, o)
		}
	}
	return o, s.writes
}

// put keeps what was read since get, unless anything was written meanwhile.
func (r *openedRecords) put(id session.ID, o *opened, writes uint64) {
	s := r.shard(id)
	s.mu.Lock()
	kept := s.writes == writes
	if kept {
		s.keep(id, o)
	}
	s.mu.Unlock()
	if kept {
		r.age()
	}
}

// keep adds an entry to the young ones, which makes room by itself.
func (s *openedShard) keep(id session.ID, o *opened) {
	size := o.size()
	if s.size+size > openedMax/2/openedShards {
		s.turn()
	}
	if s.young == nil {
		s.young = map[session.ID]*opened{}
	}
	if before := s.young[id]; before != nil {
		s.size -= before.size()
	}
	s.young[id] = o
	s.size += size
}

// turn drops the old generation, and reports whether anything is left.
func (s *openedShard) turn() bool {
	s.old, s.young, s.size = s.young, nil, 0
	return len(s.old) > 0
}

// forget takes the entry of a session away: it was written, or has ended.
func (r *openedRecords) forget(id session.ID) {
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
func (r *openedRecords) age() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.aging == nil {
		r.aging = time.AfterFunc(openedAge, r.turn)
	}
}

func (r *openedRecords) turn() {
	// Locked throughout, so that an entry put meanwhile is seen, or starts the
	// timer again.
	r.mu.Lock()
	defer r.mu.Unlock()
	left := false
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		left = s.turn() || left
		s.mu.Unlock()
	}
	r.aging = nil
	if left {
		r.aging = time.AfterFunc(openedAge, r.turn)
	}
}

package keeper

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// overlay holds state that this process has and the store does not have yet: records
// that could not be written, and ends of sessions. An end is final. A record supersedes
// the store's if only this process uses the store. On a shared store another process may
// have ended or refreshed the session, so that a record supersedes only an item that
// exists and is older: see docs/protocol.
type overlay struct {
	count   atomic.Int64 // of the entries: an empty overlay costs a request one load
	mu      sync.RWMutex
	entries map[session.ID]*overlayEntry
}

// overlayEntry is an unwritten record, or, if rec is nil, the end of a session.
type overlayEntry struct {
	rec *record  // never modified: a change makes a new entry
	ref seal.Ref // to seal rec; the zero value without rec
	// deleted is set on an end once the store has deleted the session.
	deleted atomic.Bool
}

// isEnd reports whether the entry, which may be nil, is the end of a session.
func (e *overlayEntry) isEnd() bool { return e != nil && e.rec == nil }

// supersedes reports whether the entry's record replaces the one in the store. The store
// returned a record with the given rotation, or the given error. e may be nil. The
// rotation of an item that was not read is 0.
func (e *overlayEntry) supersedes(rotation uint64, err error) bool {
	return e != nil && (err == nil && rotation < e.rec.rotation || errors.Is(err, seal.ErrUnreadable))
}

// endRetention is how long an end stays in memory at least after the store has deleted
// the session. It is longer than any step of a request that began before the end. During
// a refresh of the session, which may take longer, the end stays.
const endRetention = time.Minute

// get returns the entry of a session, or nil.
func (o *overlay) get(id session.ID) *overlayEntry {
	if o.count.Load() == 0 {
		return nil
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.entries[id]
}

// set sets the entry of a session, unless the session has ended. It reports whether it set
// the entry, and whether there was one before: then a goroutine already tries to write
// the session.
func (o *overlay) set(id session.ID, e *overlayEntry) (done, existed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old, existed := o.entries[id]
	if existed && old.isEnd() {
		return false, true
	}
	o.insert(id, e, existed)
	return true, existed
}

func (o *overlay) insert(id session.ID, e *overlayEntry, existed bool) {
	if o.entries == nil {
		o.entries = map[session.ID]*overlayEntry{}
	}
	o.entries[id] = e
	if !existed {
		o.count.Add(1)
	}
}

// replace sets the entry to next if it is still old.
func (o *overlay) replace(id session.ID, old, next *overlayEntry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.entries[id] == old {
		o.entries[id] = next
	}
}

// remove removes the entry of a session if it is still e, and reports whether it did.
func (o *overlay) remove(id session.ID, e *overlayEntry) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.entries[id] != e {
		return false
	}
	o.drop(id)
	return true
}

// clearWritten removes the unwritten record of a session, because the store has a newer
// one. It reports whether there was a record, and whether the session is alive.
func (o *overlay) clearWritten(id session.ID) (hadRecord, alive bool) {
	if o.count.Load() == 0 {
		return false, true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	e, existed := o.entries[id]
	if existed && e.isEnd() {
		return false, false
	}
	if existed {
		o.drop(id)
	}
	return existed, true
}

func (o *overlay) drop(id session.ID) {
	delete(o.entries, id)
	o.count.Add(-1)
}

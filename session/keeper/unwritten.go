package keeper

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// overlay lies over the store where this process knows better: records it
// could not write yet, and sessions it has ended. An end is final, and where
// only this process uses the store a record is the truth; where others use it
// too, the session may have ended or been refreshed elsewhere, so that a record
// counts only over an item that is there and older (docs/protocol).
type overlay struct {
	count   atomic.Int64 // so that the usual case, none, costs one load
	mu      sync.RWMutex
	entries map[session.ID]*overlayEntry
}

// overlayEntry is a record that is not written yet, or, without a record, a
// session that has ended.
type overlayEntry struct {
	rec *record  // never modified: a change makes a new entry
	ref seal.Ref // needed to seal rec; the zero value with no rec
	// landed: the store has deleted the session whose end this is.
	deleted atomic.Bool
}

// isEnd reports whether the entry, which may be nil, is the end of a session.
func (e *overlayEntry) isEnd() bool { return e != nil && e.rec == nil }

// counts reports whether the record of the entry, which may be nil, counts and
// not what the store has: a record with this rotation, or the error of reading
// it. An item of which nobody has read anything has rotation 0.
func (e *overlayEntry) supersedes(rotation uint64, err error) bool {
	return e != nil && (err == nil && rotation < e.rec.rotation || errors.Is(err, seal.ErrUnreadable))
}

// endedKept is how long an ended session is remembered at least after its record
// is gone: longer than any step of a request that began before. A refresh may take
// longer, and then the end is remembered until that is over.
const endRetention = time.Minute

// get returns the entry over a session, or nil.
func (o *overlay) get(id session.ID) *overlayEntry {
	if o.count.Load() == 0 {
		return nil
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.entries[id]
}

// put lays an entry over a session; nothing replaces an end. It reports
// whether it could, and whether there was an entry before: then a goroutine is
// at work on it already.
func (o *overlay) set(id session.ID, e *overlayEntry) (done, there bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old, there := o.entries[id]
	if there && old.rec == nil {
		return false, true
	}
	o.insert(id, e, there)
	return true, there
}

func (o *overlay) insert(id session.ID, e *overlayEntry, there bool) {
	if o.entries == nil {
		o.entries = map[session.ID]*overlayEntry{}
	}
	o.entries[id] = e
	if !there {
		o.count.Add(1)
	}
}

// replace puts next in the place of old, unless something else is there.
func (o *overlay) replace(id session.ID, old, next *overlayEntry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.entries[id] == old {
		o.entries[id] = next
	}
}

// remove takes an entry away if it is still the one given, and reports whether
// it did.
func (o *overlay) remove(id session.ID, e *overlayEntry) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.entries[id] != e {
		return false
	}
	o.drop(id)
	return true
}

// written takes away whatever record lies over a session: the store has a
// newer one. It reports whether there was one, and whether the session is
// alive.
func (o *overlay) clearWritten(id session.ID) (held, alive bool) {
	if o.count.Load() == 0 {
		return false, true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	e, there := o.entries[id]
	if there && e.rec == nil {
		return false, false
	}
	if there {
		o.drop(id)
	}
	return there, true
}

func (o *overlay) drop(id session.ID) {
	delete(o.entries, id)
	o.count.Add(-1)
}

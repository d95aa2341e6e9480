package session

import (
	"sync"
	"sync/atomic"
	"time"
)

// overlay lies over the store where this process knows better: records it
// could not write yet, and sessions it has ended. While an entry is there it
// is the truth of this process.
type overlay struct {
	count   atomic.Int64 // so that the usual case, none, costs one load
	mu      sync.RWMutex
	entries map[ID]*overlayEntry
}

// overlayEntry is a record that is not written yet, or, without a record, a
// session that has ended.
type overlayEntry struct {
	rec    *record // never modified: a change makes a new entry
	secret Secret  // needed to seal rec; the zero value with no rec
}

// endedKept is how long an ended session is remembered after its record is
// gone: longer than any refresh or any step of a request that began before.
const endedKept = time.Minute

// get returns the entry over a session, or nil.
func (o *overlay) get(id ID) *overlayEntry {
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
func (o *overlay) put(id ID, e *overlayEntry) (done, there bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old, there := o.entries[id]
	if there && old.rec == nil {
		return false, true
	}
	o.set(id, e, there)
	return true, there
}

func (o *overlay) set(id ID, e *overlayEntry, there bool) {
	if o.entries == nil {
		o.entries = map[ID]*overlayEntry{}
	}
	o.entries[id] = e
	if !there {
		o.count.Add(1)
	}
}

// replace puts next in the place of old, unless something else is there.
func (o *overlay) replace(id ID, old, next *overlayEntry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.entries[id] == old {
		o.entries[id] = next
	}
}

// remove takes an entry away if it is still the one given, and reports whether
// it did.
func (o *overlay) remove(id ID, e *overlayEntry) bool {
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
func (o *overlay) written(id ID) (held, alive bool) {
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

func (o *overlay) drop(id ID) {
	delete(o.entries, id)
	o.count.Add(-1)
}

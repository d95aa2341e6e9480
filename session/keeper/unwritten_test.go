package keeper

import (
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// TestOverlayKeepsEndsAndNewestRecords: a record is replaced or removed only by a caller
// that knows it, and nothing replaces an end.
func TestOverlayKeepsEndsAndNewestRecords(t *testing.T) {
	id, other := session.ID{1}, session.ID{2}
	older, newer := &overlayEntry{rec: &record{}}, &overlayEntry{rec: &record{}}
	end := &overlayEntry{}
	var o overlay
	state := func(step string, want *overlayEntry, count int64) {
		t.Helper()
		if got := o.get(id); got != want {
			t.Errorf("%s: got entry %p, want %p", step, got, want)
		}
		if n := o.count.Load(); n != count {
			t.Errorf("%s: got a count of %d, want %d", step, n, count)
		}
	}
	state("at first", nil, 0)
	if had, alive := o.clearWritten(id); had || !alive {
		t.Errorf("clearWritten without an entry: got %v, %v, want false, true", had, alive)
	}
	if done, existed := o.set(id, older); !done || existed {
		t.Errorf("first set: got %v, %v, want true, false", done, existed)
	}
	state("after set", older, 1)
	if e := o.get(other); e != nil {
		t.Errorf("another session: got entry %p, want none", e)
	}
	if done, existed := o.set(id, newer); !done || !existed {
		t.Errorf("second set: got %v, %v, want true, true", done, existed)
	}
	state("after the second set", newer, 1)
	if o.remove(id, older) {
		t.Error("remove removed another entry than the given one")
	}
	o.replace(id, older, older)
	state("after replacing an entry that is gone", newer, 1)
	o.replace(id, newer, older)
	state("after replace", older, 1)
	if had, alive := o.clearWritten(id); !had || !alive {
		t.Errorf("clearWritten of a record: got %v, %v, want true, true", had, alive)
	}
	state("after clearWritten", nil, 0)
	o.replace(id, older, newer)
	state("after replacing a cleared entry", nil, 0)

	if done, existed := o.set(id, end); !done || existed {
		t.Errorf("set of an end: got %v, %v, want true, false", done, existed)
	}
	if done, existed := o.set(id, newer); done || !existed {
		t.Errorf("set after an end: got %v, %v, want false, true", done, existed)
	}
	o.replace(id, newer, older)
	if _, alive := o.clearWritten(id); alive {
		t.Error("clearWritten reports an ended session as alive")
	}
	state("after the end", end, 1)
	if !o.remove(id, end) || o.remove(id, end) {
		t.Error("an end is not removed exactly once")
	}
	state("after remove", nil, 0)
}

package keeper

import (
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// TestOverlay: what lies over the store changes only for something newer, and
// nothing replaces an end.
func TestOverlay(t *testing.T) {
	id, other := session.ID{1}, session.ID{2}
	older, newer := &overlayEntry{rec: &record{}}, &overlayEntry{rec: &record{}}
	end := &overlayEntry{}
	var o overlay
	state := func(what string, want *overlayEntry, count int64) {
		t.Helper()
		if got := o.get(id); got != want {
			t.Errorf("%s: %p lies over the session, want %p", what, got, want)
		}
		if n := o.count.Load(); n != count {
			t.Errorf("%s: %d entries are counted, want %d", what, n, count)
		}
	}
	state("at first", nil, 0)
	if held, alive := o.clearWritten(id); held || !alive {
		t.Errorf("a session that nothing lies over: held %v, alive %v", held, alive)
	}
	if done, there := o.set(id, older); !done || there {
		t.Errorf("first put: %v, %v", done, there)
	}
	state("put", older, 1)
	if o.get(other) != nil {
		t.Error("it lies over another session too")
	}
	if done, there := o.set(id, newer); !done || !there {
		t.Errorf("second put: %v, %v", done, there)
	}
	state("put again", newer, 1)
	if o.remove(id, older) {
		t.Error("an entry was removed that is not there any more")
	}
	o.replace(id, older, older)
	state("replaced too late", newer, 1)
	o.replace(id, newer, older)
	state("replaced", older, 1)
	if held, alive := o.clearWritten(id); !held || !alive {
		t.Errorf("a session with a record: held %v, alive %v", held, alive)
	}
	state("written", nil, 0)
	o.replace(id, older, newer)
	state("replaced after the write", nil, 0)

	if done, there := o.set(id, end); !done || there {
		t.Errorf("put of an end: %v, %v", done, there)
	}
	if done, there := o.set(id, newer); done || !there {
		t.Errorf("put over an end: %v, %v", done, there)
	}
	o.replace(id, newer, older)
	if _, alive := o.clearWritten(id); alive {
		t.Error("an ended session was written")
	}
	state("ended", end, 1)
	if !o.remove(id, end) || o.remove(id, end) {
		t.Error("an end is removed once")
	}
	state("forgotten", nil, 0)
}

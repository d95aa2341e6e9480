package seal

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/session"
)

func TestKeyNote(t *testing.T) {
	var many []Key
	for i := range maxKeys {
		many = append(many, testKey(byte(i+1)))
	}
	for _, keys := range [][]Key{{testKey(1)}, {testKey(2), testKey(1)}, many} {
		note := keyNote(session.Holder{7}, mustRing(t, keys...))
		if len(note) > maxNoteSize {
			t.Errorf("a note on %d keys has %d bytes", len(keys), len(note))
		}
		var want []KeyID
		for _, k := range keys {
			want = append(want, k.id())
		}
		// A later release may have more to say.
		for _, note := range [][]byte{note, append(note, "later"...)} {
			from, got, ok := parseKeyNote(note)
			if diff := cmp.Diff(want, got); !ok || from != (session.Holder{7}) || diff != "" {
				t.Errorf("read %v, %v (-want +got):\n%s", from, ok, diff)
			}
		}
	}
	if _, err := NewKeyRing(append(many, testKey(200))...); err == nil {
		t.Error("a ring that fits no note is accepted")
	}
}

func TestWhatIsNoKeyNote(t *testing.T) {
	good := keyNote(session.Holder{7}, mustRing(t, testKey(1), testKey(2)))
	altered := func(at int, b byte) []byte {
		note := bytes.Clone(good)
		note[at] = b
		return note
	}
	for name, note := range map[string][]byte{
		"nothing":             nil,
		"another version":     altered(0, 2),
		"more keys than said": altered(keyNoteHead-1, 3),
		"too many keys":       append(altered(keyNoteHead-1, maxKeys+1), make([]byte, 1000)...),
		"too long":            append(bytes.Clone(good), make([]byte, maxNoteSize)...),
	} {
		if _, keys, ok := parseKeyNote(note); ok || keys != nil {
			t.Errorf("%s: read as %v", name, keys)
		}
	}
	for n := range good {
		if _, _, ok := parseKeyNote(good[:n]); ok {
			t.Errorf("a note of %d bytes out of %d is accepted", n, len(good))
		}
	}
	flood := slices.Repeat([][]byte{good}, 10*maxNotes)
	if counted, _ := othersKeys(flood, session.Holder{}); len(counted) > maxNotes {
		t.Errorf("%d notes count", len(counted))
	}
	if got, unreadable := othersKeys([][]byte{good, keyNote(session.Holder{8}, nil)}, session.Holder{7}); got != nil || unreadable != 0 {
		t.Errorf("one's own note and one that leaves count: %v, %d unreadable", got, unreadable)
	}
}

// TestForgedNotes: whoever writes to the store can hold a new key up, and can
// neither bring it forward nor have another one used.
func TestForgedNotes(t *testing.T) {
	a, b, x := testKey(1), testKey(2), testKey(9)
	note := func(i byte, keys ...Key) []byte { return keyNote(session.Holder{i}, mustRing(t, keys...)) }
	lagging, ready := note(1, a), note(1, b, a)
	doubled := append([]byte{keyNoteVersion}, make([]byte, len(session.Holder{}))...)
	doubled = append(doubled, 2)
	doubled = append(append(doubled, keyIDBytes(b)...), keyIDBytes(b)...)
	tests := []struct {
		name   string
		before Key // what sealed until then
		notes  [][]byte
		want   Key
	}{
		{"only the honest: not yet", a, [][]byte{lagging}, a},
		{"only the honest: promoted", a, [][]byte{ready}, b},
		{"the new key alone", a, [][]byte{lagging, note(2, b)}, a},
		{"the new key a hundred times", a, append(slices.Repeat([][]byte{note(2, b)}, 100), lagging), a},
		{"the new key twice in one note", a, [][]byte{lagging, doubled}, a},
		{"an unknown key", a, [][]byte{lagging, note(2, x)}, a},
		{"an unknown key beside the new one", a, [][]byte{lagging, note(2, x, b)}, a},
		{"the old key holds the new one up", a, [][]byte{ready, note(2, a)}, a},
		{"and takes it back", b, [][]byte{ready, note(2, a)}, a},
		{"an unknown key holds nothing up", a, [][]byte{ready, note(2, x)}, b},
		{"leaving for somebody else", a, [][]byte{lagging, keyNote(session.Holder{2}, nil)}, a},
		{"rubbish", a, [][]byte{lagging, []byte("rubbish"), {}, nil, make([]byte, 5000)}, a},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := sharedWith(t, tt.before, b, a)
			learn(u.site, tt.notes)
			u.sealsWith(tt.want)
		})
	}
}

func keyIDBytes(k Key) []byte {
	id := k.id()
	return id[:]
}

// sharedWith returns an instance on a shared store that has sealed with one of
// its keys so far.
func sharedWith(t *testing.T, before Key, keys ...Key) *keyUser {
	u := &keyUser{t: t, site: testSite(t, keys...)}
	u.site.change(func(k *siteKeys) { k.shared = true })
	learn(u.site, [][]byte{keyNote(session.Holder{1}, mustRing(t, before))})
	u.sealsWith(before)
	return u
}

func learn(site *Site, notes [][]byte) {
	others, _ := othersKeys(notes, session.Holder{0xFF})
	site.change(func(k *siteKeys) { k.known, k.current, k.others = true, true, others })
}

// FuzzKeyNotes: beside one honest instance that lacks the new key, no note
// brings that key forward, and none makes an instance seal with a key it lacks.
func FuzzKeyNotes(f *testing.F) {
	a, b := testKey(1), testKey(2)
	for _, keys := range [][]Key{{a}, {b}, {b, a}, {testKey(3)}} {
		f.Add(keyNote(session.Holder{2}, mustRing(f, keys...)), 40)
	}
	f.Add([]byte{keyNoteVersion}, 0)
	honest := keyNote(session.Holder{1}, mustRing(f, a))
	f.Fuzz(func(t *testing.T, note []byte, cut int) {
		cut = min(max(cut, 0), len(note))
		u := sharedWith(t, a, b, a)
		learn(u.site, [][]byte{note, note[:cut], honest, note[cut:]})
		u.sealsWith(a)
		learn(u.site, [][]byte{note, note[cut:]})
		if root, err := u.site.sealing(); err != nil || root.Key != a && root.Key != b {
			t.Errorf("seals with %v, %v", root, err)
		}
	})
}

package seal

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/session"
)

func TestAnnouncementDecodesAsEncoded(t *testing.T) {
	var many []Key
	for i := range maxKeys {
		many = append(many, testKey(byte(i+1)))
	}
	for _, keys := range [][]Key{{testKey(1)}, {testKey(2), testKey(1)}, many} {
		encoded := encodeAnnouncement(session.Holder{7}, mustRing(t, keys...))
		if len(encoded) > maxAnnouncementSize {
			t.Errorf("announcement of %d keys: got %d bytes, want at most %d", len(keys), len(encoded), maxAnnouncementSize)
		}
		var want []KeyID
		for _, k := range keys {
			want = append(want, k.id())
		}
		// A later release may append fields.
		for _, b := range [][]byte{encoded, append(encoded, "later"...)} {
			from, got, ok := parseAnnouncement(b)
			if diff := cmp.Diff(want, got); !ok || from != (session.Holder{7}) || diff != "" {
				t.Errorf("got instance %v, ok %v, keys (-want +got):\n%s", from, ok, diff)
			}
		}
	}
	if _, err := NewKeyRing(append(many, testKey(200))...); err == nil {
		t.Errorf("NewKeyRing with %d keys: got nil, want an error", maxKeys+1)
	}
}

func TestMalformedAnnouncementIsRefused(t *testing.T) {
	good := encodeAnnouncement(session.Holder{7}, mustRing(t, testKey(1), testKey(2)))
	altered := func(at int, b byte) []byte {
		copied := bytes.Clone(good)
		copied[at] = b
		return copied
	}
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"another version": altered(0, 2),
		"too few keys":    altered(announcementHead-1, 3),
		"too many keys":   append(altered(announcementHead-1, maxKeys+1), make([]byte, 1000)...),
		"too long":        append(bytes.Clone(good), make([]byte, maxAnnouncementSize)...),
	} {
		if _, keys, ok := parseAnnouncement(b); ok || keys != nil {
			t.Errorf("%s: got keys %v, ok %v, want none", name, keys, ok)
		}
	}
	for n := range good {
		if _, _, ok := parseAnnouncement(good[:n]); ok {
			t.Errorf("first %d of %d bytes: got ok, want false", n, len(good))
		}
	}
	flood := slices.Repeat([][]byte{good}, 10*maxAnnouncements)
	if others, _ := othersKeys(flood, session.Holder{}); len(others) > maxAnnouncements {
		t.Errorf("got %d decoded announcements, want at most %d", len(others), maxAnnouncements)
	}
	if got, unreadable := othersKeys([][]byte{good, encodeAnnouncement(session.Holder{8}, nil)}, session.Holder{7}); got != nil || unreadable != 0 {
		t.Errorf("own announcement and one of leaving: got %v, %d unreadable, want none", got, unreadable)
	}
}

// TestForgedAnnouncementsOnlyDelayANewKey: an attacker with write access to the store can
// neither activate a new key early nor select another key.
func TestForgedAnnouncementsOnlyDelayANewKey(t *testing.T) {
	a, b, x := testKey(1), testKey(2), testKey(9)
	announcement := func(i byte, keys ...Key) []byte { return encodeAnnouncement(session.Holder{i}, mustRing(t, keys...)) }
	lagging, ready := announcement(1, a), announcement(1, b, a)
	doubled := append([]byte{announcementVersion}, make([]byte, len(session.Holder{}))...)
	doubled = append(doubled, 2)
	doubled = append(append(doubled, keyIDBytes(b)...), keyIDBytes(b)...)
	tests := []struct {
		name          string
		before        Key // the key that sealed before
		announcements [][]byte
		want          Key
	}{
		{"honest instance without the new key", a, [][]byte{lagging}, a},
		{"honest instance with the new key", a, [][]byte{ready}, b},
		{"the new key alone", a, [][]byte{lagging, announcement(2, b)}, a},
		{"the new key a hundred times", a, append(slices.Repeat([][]byte{announcement(2, b)}, 100), lagging), a},
		{"the new key twice in one announcement", a, [][]byte{lagging, doubled}, a},
		{"an unknown key", a, [][]byte{lagging, announcement(2, x)}, a},
		{"an unknown key beside the new one", a, [][]byte{lagging, announcement(2, x, b)}, a},
		{"the old key delays the new one", a, [][]byte{ready, announcement(2, a)}, a},
		{"the old key replaces the new one", b, [][]byte{ready, announcement(2, a)}, a},
		{"an unknown key delays nothing", a, [][]byte{ready, announcement(2, x)}, b},
		{"another instance leaves", a, [][]byte{lagging, encodeAnnouncement(session.Holder{2}, nil)}, a},
		{"rubbish", a, [][]byte{lagging, []byte("rubbish"), {}, nil, make([]byte, 5000)}, a},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := sharedWith(t, tt.before, b, a)
			receive(u.site, tt.announcements)
			u.wantSealsWith(tt.want)
		})
	}
}

func keyIDBytes(k Key) []byte {
	id := k.id()
	return id[:]
}

// sharedWith returns an instance on a shared store that seals with the key before.
func sharedWith(t *testing.T, before Key, keys ...Key) *instance {
	u := &instance{t: t, site: testSite(t, keys...)}
	u.site.change(func(k *siteKeys) { k.shared = true })
	receive(u.site, [][]byte{encodeAnnouncement(session.Holder{1}, mustRing(t, before))})
	u.wantSealsWith(before)
	return u
}

// receive passes the announcements of other instances to a site.
func receive(site *Site, announcements [][]byte) {
	others, _ := othersKeys(announcements, session.Holder{0xFF})
	site.change(func(k *siteKeys) { k.known, k.current, k.others = true, true, others })
}

// FuzzForgedAnnouncement: while one honest instance lacks the new key, no announcement
// activates that key, and none makes an instance seal with a key that it lacks.
func FuzzForgedAnnouncement(f *testing.F) {
	a, b := testKey(1), testKey(2)
	for _, keys := range [][]Key{{a}, {b}, {b, a}, {testKey(3)}} {
		f.Add(encodeAnnouncement(session.Holder{2}, mustRing(f, keys...)), 40)
	}
	f.Add([]byte{announcementVersion}, 0)
	honest := encodeAnnouncement(session.Holder{1}, mustRing(f, a))
	f.Fuzz(func(t *testing.T, forged []byte, cut int) {
		cut = min(max(cut, 0), len(forged))
		u := sharedWith(t, a, b, a)
		receive(u.site, [][]byte{forged, forged[:cut], honest, forged[cut:]})
		u.wantSealsWith(a)
		receive(u.site, [][]byte{forged, forged[cut:]})
		if root, err := u.site.sealing(); err != nil || root.Key != a && root.Key != b {
			t.Errorf("sealing key: got %v, error %v, want one of the ring", root, err)
		}
	})
}

package session

import (
	"testing"
	"time"
)

// TestTagsTellNothing: a tag depends on all that it is made of.
func TestTagsTellNothing(t *testing.T) {
	ring, err := NewKeyRing(testKey(1), testKey(2))
	if err != nil {
		t.Fatal(err)
	}
	site := NewSite(ring, "https://as.example.com", "client", "cookie")
	other := NewSite(ring, "https://as.example.com", "client", "other")
	seen := map[Tag]string{}
	for name, tag := range map[string]Tag{
		"tag":           site.tag(&ring.list[0], tagSID, "value"),
		"other key":     site.tag(&ring.list[1], tagSID, "value"),
		"other site":    other.tag(&ring.list[0], tagSID, "value"),
		"other kind":    site.tag(&ring.list[0], tagSubject, "value"),
		"no sid":        site.tag(&ring.list[0], tagSubjectAlone, "value"),
		"other value":   site.tag(&ring.list[0], tagSID, "values"),
		"moved a byte":  site.tag(&ring.list[0], tagSID+"v", "alue"),
		"without a key": Tag(digest(tagSID, site.id[:], []byte("value"))),
	} {
		if seen[tag] != "" {
			t.Errorf("%s has the tag of %s", name, seen[tag])
		}
		seen[tag] = name
	}
	if again := site.tag(&ring.list[0], tagSID, "value"); seen[again] != "tag" {
		t.Error("the same gets another tag")
	}
}

// TestTagsFollowTheKey: sessions are found under the key they were written
// with, and move to the next one as they are written.
func TestTagsFollowTheKey(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		set := func(keys ...byte) {
			var all []Key
			for _, n := range keys {
				all = append(all, testKey(n))
			}
			ring, err := NewKeyRing(all...)
			if err != nil {
				t.Fatal(err)
			}
			r.config.Site.SetKeys(ring)
		}
		old, moved := r.member(r.keeper, "alice", "1"), r.member(r.keeper, "alice", "2")
		before, _ := r.store.item(r.id(moved))
		set(2, 1)
		time.Sleep(2 * touchMax)
		r.fresh(moved) // is written
		time.Sleep(time.Second)
		after, _ := r.store.item(r.id(moved))
		if len(before.Tags) != 2 || len(after.Tags) != 2 || before.Tags[0] == after.Tags[0] || before.Tags[1] == after.Tags[1] {
			t.Errorf("the tags were %x, and are %x under the new key", before.Tags, after.Tags)
		}
		r.logOut(r.keeper, r.logoutOf("", "1"), 1) // under the old key
		r.gone(old)
		set(2)
		r.logOut(r.keeper, r.logoutOf("alice", ""), 1)
		r.gone(moved)
	})
}

// TestTagsFollowTheSID, should a refreshed ID token name another one.
func TestTagsFollowTheSID(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret := r.member(r.keeper, "alice", "1")
		rec := r.stored(secret)
		rec.sid = "2"
		if err := r.keeper.write(t.Context(), r.id(secret), secret, rec); err != nil {
			t.Fatal(err)
		}
		r.logOut(r.keeper, r.logoutOf("", "2"), 1)
		r.gone(secret)
	})
}

package redis

import (
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
)

func TestOnlyItemKeysHaveIDs(t *testing.T) {
	k := newKeyspace("p")
	id := newID()
	key := k.item(id)
	if got, ok := k.id(key); !ok || got != id {
		t.Errorf("ID of %s: got %v, %v, want %v", key, got, ok, id)
	}
	for _, other := range []string{
		"", "p:{}", "p:{", key[:len(key)-1], key + "}", strings.ToUpper(key[:2]) + key[2:],
		k.lease(id), k.itemWait(id), k.announcement(session.Topic(id)), k.tag(session.Tag(id)), k.tagWait(session.Tag(id)), newKeyspace("pp").item(id), newKeyspace("p:notes").item(id), newKeyspace("p:tag").item(id),
		key[:len(key)-2] + "=}", key[:len(key)-2] + "_}", // no encoding of 32 bytes
	} {
		if got, ok := k.id(other); ok {
			t.Errorf("ID of %q: got %v, want none", other, got)
		}
	}
}

// FuzzID: each ID has exactly one key.
func FuzzID(f *testing.F) {
	k := newKeyspace(DefaultPrefix)
	f.Add(k.item(session.ID{}))
	f.Add(k.lease(session.ID{1}))
	f.Fuzz(func(t *testing.T, key string) {
		if id, ok := k.id(key); ok && k.item(id) != key {
			t.Errorf("%q decodes to the ID of %q", key, k.item(id))
		}
	})
}

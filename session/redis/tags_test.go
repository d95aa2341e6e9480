package redis

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

func taggedItem(version uint64, life time.Duration, tags ...session.Tag) session.Item {
	item := newItem(version, "value")
	item.Expires, item.Tags = time.Now().Add(life), tags
	return item
}

func wantTagged(t *testing.T, s *Store, tag session.Tag, want ...session.ID) {
	t.Helper()
	got, err := s.Tagged(t.Context(), tag)
	if err != nil {
		t.Fatalf("Tagged: %v", err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("Tagged: got %v, want %v", got, want)
	}
}

// TestMostWritesSkipTheIndex: most writes of a session in use do not write to the index,
// and Tagged finds the session all the same.
func TestMostWritesSkipTheIndex(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	id, sub, sid := newID(), session.Tag(newID()), session.Tag(newID())
	mustCreate(t, s, id, taggedItem(1, 8*time.Hour, sid, sub))
	written := commandsOf(server, "zadd")
	if written != 2 {
		t.Errorf("Create with two tags: got %d written entries, want 2", written)
	}
	for version := uint64(2); version < 240; version++ {
		mustReplace(t, s, id, taggedItem(version, 8*time.Hour+time.Duration(version)*time.Minute, sid, sub))
	}
	if again := commandsOf(server, "zadd"); again != written {
		t.Errorf("Replace within the life of the entries: got %d written entries, want 0", again-written)
	}
	mustReplace(t, s, id, taggedItem(240, 13*time.Hour, sid, sub))
	if again := commandsOf(server, "zadd"); again != written+2 {
		t.Errorf("Replace beyond the life of the entries: got %d written entries, want 2", again-written)
	}
	wantTagged(t, s, sid, id)

	// Another process writes the item.
	other := open(t, Config{URLs: []string{server.url()}})
	next := session.Tag(newID())
	mustReplace(t, other, id, taggedItem(241, 13*time.Hour, next, sub))
	wantTagged(t, s, next, id)
	wantTagged(t, s, sub, id)
}

// TestIndexIsWrittenAgain after the server may have lost it.
func TestIndexIsWrittenAgain(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	changes := watch(s)
	id, tag := newID(), session.Tag(newID())
	mustCreate(t, s, id, taggedItem(1, time.Hour, tag))
	wantView(t, s, id, "value")
	server.do("FLUSHALL")
	await(t, "the push of FLUSHALL", func() bool { return changes.resets() > 0 })
	mustCreate(t, s, id, taggedItem(1, time.Hour, tag))
	wantTagged(t, s, tag, id)

	server.do("DEL", s.keys.tag(tag)) // like a failover
	server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	await(t, "the loss of the connection", func() bool { return changes.resets() > 1 })
	mustReplace(t, s, id, taggedItem(2, time.Hour, tag))
	wantTagged(t, s, tag, id)
}

// TestIndexIsPruned: an index loses expired entries, and expires with its last one.
func TestIndexIsPruned(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	tag := session.Tag(newID())
	key := s.keys.tag(tag)
	old := strings.Repeat("o", len(session.ID{})) // not random, because an argument must not contain a zero byte
	server.do("ZADD", key, strconv.FormatInt(time.Now().Add(-time.Minute).UnixMilli(), 10), old)
	wantTagged(t, s, tag)
	long, short := newID(), newID()
	mustCreate(t, s, long, taggedItem(1, 2*time.Hour, tag))
	mustCreate(t, s, short, taggedItem(1, time.Hour, tag))
	wantTagged(t, s, tag, long, short) // those that expire last are first
	if n := server.do("ZCARD", key); n != "2" {
		t.Errorf("index: got %s entries, want 2", n)
	}
	life, err := strconv.Atoi(server.do("PTTL", key))
	if want := 3 * time.Hour; err != nil || time.Duration(life)*time.Millisecond > want || time.Duration(life)*time.Millisecond < want-time.Minute {
		t.Errorf("time to live of the index: got %d ms, error %v, want about %v", life, err, want)
	}
	server.do("DEL", key)
	server.do("SET", key, "foreign")
	if _, err := s.Tagged(t.Context(), tag); err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
		t.Errorf("Tagged of foreign data: got error %v, want WRONGTYPE", err)
	}
}

// TestIndexNeedsReplicas: an item is not written before a replica has its index entry.
func TestIndexNeedsReplicas(t *testing.T) {
	server := startServer(t)
	mustCreate(t, open(t, Config{URLs: []string{server.url()}}), newID(), taggedItem(1, time.Hour, session.Tag{})) // loads the script
	s := open(t, Config{URLs: []string{server.url()}, Replicas: 1})
	id := newID()
	wantErr(t, "Create", s.Create(t.Context(), id, taggedItem(1, time.Hour, session.Tag(newID()))), errReplicas)
	if _, err := current(t, s, id); err == nil {
		t.Error("ViewCurrent: got the item, want none without an index entry at a replica")
	}
}

func TestIndexCacheIsBounded(t *testing.T) {
	var x indexCache
	tag := session.Tag{1}
	item := session.Item{Expires: time.Now(), Tags: []session.Tag{tag}}
	entry := indexEntry{tags: [session.MaxTags]session.Tag{tag}, until: item.Expires}
	for range maxCachedEntries + 10 {
		x.set(newID(), entry, 0)
	}
	if len(x.items) != 10 {
		t.Errorf("got %d cached items, want the last 10", len(x.items))
	}
	id := newID()
	_, epoch := x.covers(id, item)
	x.forgetAll()
	x.set(id, entry, epoch)
	if ok, _ := x.covers(id, item); ok {
		t.Error("covers after forgetAll: got true for an entry of the former epoch, want false")
	}
}

package redis

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

func labelledItem(version uint64, life time.Duration) session.Item {
	item := newItem(version, "value")
	item.Expires, item.Label = time.Now().Add(life), []byte("label")
	return item
}

// TestListGoesThroughAllSets in the order of the IDs, with few sessions and with many in one
// set.
func TestListGoesThroughAllSets(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	var want []session.ID
	for _, first := range []byte{0, 1, 2, 77, 78, 200, 254, 255} {
		for range 1 + int(first)%5 {
			id := newID()
			id[0] = first
			mustCreate(t, s, id, labelledItem(1, time.Hour))
			want = append(want, id)
		}
	}
	slices.SortFunc(want, func(a, b session.ID) int { return strings.Compare(string(a[:]), string(b[:])) })
	for _, limit := range []int{1, 2, 3, 5, session.MaxListed} {
		var got []session.ID
		for after := (session.ID{}); ; after = got[len(got)-1] {
			page, err := s.List(t.Context(), after, limit)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, page...)
			if len(page) < limit {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: got %d IDs, want %d in ascending order", limit, len(got), len(want))
		}
	}
	zrange := commandsOf(server, "zrange")
	if _, err := s.List(t.Context(), session.ID{}, 1); err != nil {
		t.Fatal(err)
	}
	if n := commandsOf(server, "zrange") - zrange; n > 3 {
		t.Errorf("first page: got %d sets read, want 3 at most", n)
	}
}

// TestMostWritesSkipTheList: a session in use writes to its set once in hours.
func TestMostWritesSkipTheList(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	id := newID()
	mustCreate(t, s, id, labelledItem(1, 8*time.Hour))
	written := commandsOf(server, "zadd")
	for version := uint64(2); version < 100; version++ {
		mustReplace(t, s, id, labelledItem(version, 8*time.Hour+time.Duration(version)*time.Minute))
	}
	if again := commandsOf(server, "zadd"); written != 1 || again != written {
		t.Errorf("got %d entries written by Create and %d by Replace, want 1 and 0", written, again-written)
	}
}

// TestLabelEndsWithItsItem: every key has a time to live, and Delete leaves none.
func TestLabelEndsWithItsItem(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	id := newID()
	life := func(key string) time.Duration {
		t.Helper()
		ms, err := strconv.Atoi(server.do("PTTL", key))
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(ms) * time.Millisecond
	}
	mustCreate(t, s, id, labelledItem(1, time.Hour))
	mustReplace(t, s, id, labelledItem(2, 3*time.Hour))
	if item, label := life(s.keys.item(id)), life(s.keys.label(id)); (item-label).Abs() > time.Second || label < 2*time.Hour {
		t.Errorf("time to live: got %v for the item and %v for the label, want the same", item, label)
	}
	if set := life(s.keys.list(id[0])); set < 4*time.Hour || set > 5*time.Hour {
		t.Errorf("time to live of the set: got %v, want half as long again as the item's", set)
	}
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if n := server.do("EXISTS", s.keys.label(id)); n != "0" {
		t.Error("got a label after Delete, want none")
	}
}

// TestListOfForeignData is an error, and no empty list.
func TestListOfForeignData(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	server.do("SET", s.keys.list(7), "foreign")
	if _, err := s.List(t.Context(), session.ID{}, 10); err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
		t.Errorf("got error %v, want WRONGTYPE", err)
	}
	server.do("DEL", s.keys.list(7))
	server.do("ZADD", s.keys.list(7), strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10), "short")
	if _, err := s.List(t.Context(), session.ID{}, 10); err == nil || !strings.Contains(err.Error(), errMalformed.Error()) {
		t.Errorf("got error %v, want %v", err, errMalformed)
	}
}

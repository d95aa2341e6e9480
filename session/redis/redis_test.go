package redis

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/storetest"
)

func TestContract(t *testing.T) {
	server := startServer(t)
	storetest.Run(t, func(t *testing.T) session.Store {
		return open(t, Config{URLs: []string{server.url()}})
	})
}

func TestSharedContract(t *testing.T) {
	server := startServer(t)
	storetest.RunShared(t, func(t *testing.T) (a, b session.SharedStore) {
		config := Config{URLs: []string{server.url()}}
		return open(t, config), open(t, config)
	})
}

func TestUnixSocket(t *testing.T) {
	server := startServer(t, "--port", "0")
	s := open(t, Config{URLs: []string{"unix://" + server.socket()}})
	id := newID()
	mustCreate(t, s, id, newItem(1, "value"))
	wantView(t, s, id, "value")
}

// TestProcessReadsItsOwnWrites fails at times if a write is acknowledged before the
// store has dropped its copy.
func TestProcessReadsItsOwnWrites(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	id := newID()
	mustCreate(t, s, id, newItem(1, "1"))
	for version := uint64(2); version < 1000; version++ {
		value := strconv.FormatUint(version, 10)
		mustReplace(t, s, id, newItem(version, value))
		wantView(t, s, id, value)
	}
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	_, err := view(t, s, id)
	wantErr(t, "View after Delete", err, session.ErrNotFound)
}

func TestCopyIsUsedUntilTheItemChanges(t *testing.T) {
	server := startServer(t)
	config := Config{URLs: []string{server.url()}}
	reader, writer := open(t, config), open(t, config)
	changes := watch(reader)
	id := newID()
	mustCreate(t, writer, id, newItem(1, "1"))
	wantView(t, reader, id, "1")
	before := commandsOf(server, "get")
	for range 100 {
		wantView(t, reader, id, "1")
	}
	if after := commandsOf(server, "get"); after != before {
		t.Errorf("100 views of a copy: got %d GET commands, want 0", after-before)
	}
	for version := uint64(2); version < 200; version++ {
		value := strconv.FormatUint(version, 10)
		mustReplace(t, writer, id, newItem(version, value))
		if got, err := current(t, reader, id); err != nil || got != value {
			t.Fatalf("ViewCurrent: got %q, error %v, want %q", got, err, value)
		}
		await(t, "the push", func() bool { return changes.count(id) == int(version)-1 })
		wantView(t, reader, id, value)
	}
	// Changes of a lease are not pushed.
	lease := mustAcquire(t, writer, id, 199)
	if err := writer.Release(t.Context(), id, lease.Holder); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Announce(t.Context(), session.Topic{}, lease.Holder, nil); err != nil {
		t.Fatal(err)
	}
	wantView(t, reader, id, "199")
	if got := changes.count(id); got != 198 {
		t.Errorf("got %d pushes, want 198", got)
	}
	if got := changes.resets(); got != 0 {
		t.Errorf("got %d calls of changed with nil, want 0", got)
	}
	server.do("FLUSHALL")
	await(t, "the push of FLUSHALL", func() bool { return changes.resets() == 1 })
	_, err := view(t, reader, id)
	wantErr(t, "View after FLUSHALL", err, session.ErrNotFound)
}

// TestNewItemIsPushed: the client also keeps that there is no item.
func TestNewItemIsPushed(t *testing.T) {
	server := startServer(t)
	config := Config{URLs: []string{server.url()}}
	reader, writer := open(t, config), open(t, config)
	changes := watch(reader)
	id := newID()
	_, err := view(t, reader, id)
	wantErr(t, "View", err, session.ErrNotFound)
	mustCreate(t, writer, id, newItem(1, "new"))
	await(t, "the push", func() bool { return changes.count(id) > 0 })
	wantView(t, reader, id, "new")
}

// commandsOf returns how often a command was run on the server.
func commandsOf(s *server, command string) int {
	s.tb.Helper()
	_, after, ok := strings.Cut(s.do("INFO", "commandstats"), "cmdstat_"+command+":calls=")
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(after[:strings.IndexByte(after, ',')])
	if err != nil {
		s.tb.Fatal(err)
	}
	return n
}

func TestPrefixSeparatesStores(t *testing.T) {
	server := startServer(t)
	a := open(t, Config{URLs: []string{server.url()}})
	b := open(t, Config{URLs: []string{server.url()}, Prefix: "other:notes"})
	id := newID()
	mustCreate(t, a, id, newItem(1, "a"))
	mustCreate(t, b, id, newItem(1, "b"))
	wantView(t, a, id, "a")
	wantView(t, b, id, "b")
	if _, err := a.Announce(t.Context(), session.Topic{}, session.Holder{1}, []byte("a")); err != nil {
		t.Fatal(err)
	}
	got, err := b.Announce(t.Context(), session.Topic{}, session.Holder{2}, []byte("b"))
	if err != nil || len(got) != 1 {
		t.Errorf("Announce: got %q, error %v, want the announcement of the same prefix only", got, err)
	}
	keys := strings.Fields(server.do("KEYS", "*"))
	for _, key := range keys {
		if !strings.HasPrefix(key, DefaultPrefix+":") && !strings.HasPrefix(key, "other:notes:") {
			t.Errorf("got key %q, want one with a prefix", key)
		}
	}
}

// TestEveryKeyExpires also checks that a lease has the time to live of its item.
func TestEveryKeyExpires(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	id := newID()
	item := newItem(1, "value")
	mustCreate(t, s, id, item)
	lease := mustAcquire(t, s, id, 1)
	wantLife(t, server, s.keys.item(id), time.Hour)
	wantLife(t, server, s.keys.lease(id), time.Hour)

	item.Version, item.Expires = 2, time.Now().Add(9*time.Hour)
	mustReplace(t, s, id, item)
	wantLife(t, server, s.keys.item(id), 9*time.Hour)
	wantLife(t, server, s.keys.lease(id), 9*time.Hour)

	server.do("PEXPIRE", s.keys.lease(id), "100000")
	lease.Beat++
	if err := s.Beat(t.Context(), id, lease); err != nil {
		t.Fatal(err)
	}
	wantLife(t, server, s.keys.lease(id), 9*time.Hour)

	if _, err := s.Announce(t.Context(), session.Topic{}, lease.Holder, []byte("note")); err != nil {
		t.Fatal(err)
	}
	for _, key := range strings.Fields(server.do("KEYS", "*")) {
		if life := server.do("PTTL", key); life == "-1" {
			t.Errorf("%s has no time to live", key)
		}
	}
}

func wantLife(t *testing.T, server *server, key string, want time.Duration) {
	t.Helper()
	ms, err := strconv.ParseInt(server.do("PTTL", key), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if got := time.Duration(ms) * time.Millisecond; got > want || got < want-time.Minute {
		t.Errorf("time to live of %s: got %v, want %v", key, got, want)
	}
}

// TestLeaseEndsWithItem: a new item under the ID begins with a free lease.
func TestLeaseEndsWithItem(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	id := newID()
	item := newItem(1, "value")
	item.Expires = time.Now().Add(3 * time.Second)
	mustCreate(t, s, id, item)
	lease := mustAcquire(t, s, id, 1)
	await(t, "the item to expire", func() bool {
		_, err := view(t, s, id)
		return errors.Is(err, session.ErrNotFound)
	})
	await(t, "the keys to expire", func() bool { return server.do("EXISTS", s.keys.item(id), s.keys.lease(id)) == "0" })
	wantErr(t, "Beat", s.Beat(t.Context(), id, lease), session.ErrConflict)
	mustCreate(t, s, id, newItem(1, "new"))
	mustAcquire(t, s, id, 1)
}

// TestLateBeatDoesNotLowerTheBeat of a lease.
func TestLateBeatDoesNotLowerTheBeat(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	id := newID()
	mustCreate(t, s, id, newItem(1, "value"))
	lease := mustAcquire(t, s, id, 1)
	for _, beat := range []uint64{7, 5, 0x100, 0xff} {
		lease.Beat = beat
		if err := s.Beat(t.Context(), id, lease); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Acquire(t.Context(), id, 1, newHolder(), session.Lease{})
	wantErr(t, "Acquire", err, session.ErrLeased)
	if got.Beat != 0x100 {
		t.Errorf("got beat %d, want the highest, %d", got.Beat, 0x100)
	}
}

func TestAnnouncementsExpireAfterAMinute(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	topic := session.Topic{1}
	key := s.keys.announcement(topic)
	now := time.Now()
	for holder, stored := range map[string]string{
		"recent": announcementAt(now.Add(-50*time.Second)) + "recent",
		"old":    announcementAt(now.Add(-70*time.Second)) + "old",
		"future": announcementAt(now.Add(time.Hour)) + "future",
		"never":  announcementAt(time.UnixMilli(math.MinInt64/2)) + "never",
		"short":  "short",
		"huge":   announcementAt(now) + strings.Repeat("x", maxAnnouncement+1),
	} {
		putAnnouncements(t, s, key, holder, stored)
	}
	recent, err := s.Announce(t.Context(), topic, session.Holder{1}, []byte("mine"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%q", recent); got != `["recent" "mine"]` && got != `["mine" "recent"]` {
		t.Errorf("Announce: got %.200s, want recent and mine", got)
	}
	if n := server.do("HLEN", key); n != "2" {
		t.Errorf("got %s stored announcements, want 2", n)
	}

	var many []string
	for i := range 1001 {
		many = append(many, strconv.Itoa(i), announcementAt(now))
	}
	putAnnouncements(t, s, key, many...)
	recent, err = s.Announce(t.Context(), topic, session.Holder{1}, []byte("mine"))
	if err != nil || len(recent) != 1 {
		t.Errorf("Announce beside 1,001 announcements: got %d, error %v, want 1", len(recent), err)
	}
	_, err = s.Announce(t.Context(), topic, session.Holder{1}, make([]byte, maxAnnouncement+1))
	wantServerError(t, "Announce of too many bytes", err)
}

// putAnnouncements sets fields of a hash. redis-cli cannot send their zero bytes.
func putAnnouncements(t *testing.T, s *Store, key string, fields ...string) {
	t.Helper()
	hset := s.client.B().Arbitrary("HSET").Keys(key).Args(fields...).Build()
	if err := s.client.Do(t.Context(), hset).Error(); err != nil {
		t.Fatal(err)
	}
}

// announcementAt encodes the time of an announcement.
func announcementAt(t time.Time) string { return encodeVersion(uint64(t.UnixMilli())) }

// TestForeignValuesAreNoAnswers: values that this package has not written lead to
// errors, and never to a panic.
func TestForeignValuesAreNoAnswers(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	ctx := t.Context()
	id, lease := newID(), session.Lease{Holder: newHolder(), Beat: 1}
	item, leaseKey := s.keys.item(id), s.keys.lease(id)
	reset := func() {
		server.do("DEL", item, leaseKey)
		mustCreate(t, s, id, newItem(1, "value"))
	}
	for name, set := range map[string][]string{
		"empty":      {"SET", item, ""},
		"short":      {"SET", item, "123456789012345"},
		"wrong type": {"LPUSH", item, "value"},
	} {
		reset()
		server.do("DEL", item)
		server.do(set...)
		_, err := view(t, s, id)
		_, errCurrent := current(t, s, id)
		if name == "wrong type" {
			wantServerError(t, name+" item: View", err)
			wantServerError(t, name+" item: ViewCurrent", errCurrent)
		} else {
			wantErr(t, name+" item: View", err, session.ErrNotFound)
			wantErr(t, name+" item: ViewCurrent", errCurrent, session.ErrDamaged)
		}
		wantServerError(t, name+" item: Replace", s.Replace(ctx, id, newItem(2, "new")))
		wantServerError(t, name+" item: DeleteAt", s.DeleteAt(ctx, id, 1, session.Holder{}))
		_, err = s.Acquire(ctx, id, 1, lease.Holder, session.Lease{})
		wantServerError(t, name+" item: Acquire", err)
		if err := s.Delete(ctx, id); err != nil {
			t.Errorf("%s item: Delete: got error %v, want nil", name, err)
		}
	}
	for name, set := range map[string][]string{
		"empty":      {"SET", leaseKey, ""},
		"long":       {"SET", leaseKey, strings.Repeat("x", leaseSize+1)},
		"wrong type": {"HSET", leaseKey, "field", "value"},
	} {
		reset()
		server.do(set...)
		_, err := s.Acquire(ctx, id, 1, lease.Holder, session.Lease{})
		wantServerError(t, name+" lease: Acquire", err)
		wantServerError(t, name+" lease: Beat", s.Beat(ctx, id, lease))
		wantServerError(t, name+" lease: Release", s.Release(ctx, id, lease.Holder))
		wantServerError(t, name+" lease: DeleteAt", s.DeleteAt(ctx, id, 1, lease.Holder))
		wantView(t, s, id, "value")
		if err := s.Delete(ctx, id); err != nil {
			t.Errorf("%s lease: Delete: got error %v, want nil", name, err)
		}
	}
	reset()
	server.do("PERSIST", item)
	_, err := s.Acquire(ctx, id, 1, lease.Holder, session.Lease{})
	wantServerError(t, "item without a time to live: Acquire", err)

	server.do("SET", s.keys.announcement(session.Topic{}), "value")
	_, err = s.Announce(ctx, session.Topic{}, lease.Holder, nil)
	wantServerError(t, "announcements of wrong type: Announce", err)
	_, err = s.Acquire(ctx, id, 1, session.Holder{}, session.Lease{})
	wantServerError(t, "Acquire without a holder", err)
}

// TestScriptIsLoadedAgain after a restart or a flush of the server's scripts.
func TestScriptIsLoadedAgain(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	id := newID()
	mustCreate(t, s, id, newItem(1, "1"))
	mustReplace(t, s, id, newItem(2, "2"))
	server.do("SCRIPT", "FLUSH")
	mustReplace(t, s, id, newItem(3, "3"))
	wantView(t, s, id, "3")
}

func TestEndedContextFailsCalls(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	id := newID()
	mustCreate(t, s, id, newItem(1, "value"))
	wantView(t, s, id, "value")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.View(ctx, id, func(session.Item) error { return nil })
	wantErr(t, "View of a copied item", err, context.Canceled)
	wantErr(t, "Delete", s.Delete(ctx, id), context.Canceled)
	wantView(t, s, id, "value")
}

func TestCloseFailsLaterCallsAndLeaksNothing(t *testing.T) {
	server := startServer(t)
	ignored := goleak.IgnoreCurrent()
	s, err := Open(Config{URLs: []string{server.url()}})
	if err != nil {
		t.Fatal(err)
	}
	id := newID()
	mustCreate(t, s, id, newItem(1, "value"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = view(t, s, id)
	wantServerError(t, "View after Close", err)
	wantServerError(t, "Delete after Close", s.Delete(t.Context(), id))
	goleak.VerifyNone(t, ignored)
}

// TestAllocationsOfView limits those of reading a copy, which requests do.
func TestAllocationsOfView(t *testing.T) {
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	id := newID()
	mustCreate(t, s, id, newItem(1, strings.Repeat("x", 3000)))
	ctx, size := t.Context(), 0
	read := func() {
		if err := s.View(ctx, id, func(item session.Item) error { size = len(item.Value); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if got := testing.AllocsPerRun(1000, read); got > 3 || size != 3000 {
		t.Errorf("View of %d bytes: got %v allocations, want at most 3", size, got)
	}
}

func BenchmarkViewCopy(b *testing.B) {
	server := startServer(b)
	s := open(b, Config{URLs: []string{server.url()}})
	id := newID()
	mustCreate(b, s, id, newItem(1, strings.Repeat("x", 3000)))
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if err := s.View(ctx, id, func(session.Item) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

package redis

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// rights are the rights that every user needs, as in docs/redis.md. The other variables
// are additional rights for a kind of server or a setting.
var (
	rights         = []string{"+client|tracking", "+client|caching", "+multi", "+exec", "+get", "+pttl", "+set", "+del", "+eval", "+evalsha", "+pexpire", "+time", "+hlen", "+hset", "+hgetall", "+hdel", "+zadd", "+zrange", "+zremrangebyscore", "+zremrangebyrank"}
	sentinelRights = []string{"+role"}
	clusterRights  = []string{"+cluster|slots", "+cluster|shards", "+asking"}
	replicaRights  = []string{"+wait"}

	// quietRights are for commands that may be refused without harm.
	quietRights        = []string{"+ping", "+cluster|slots"}
	quietReplicaRights = []string{"+unsubscribe", "+punsubscribe", "+sunsubscribe", "+discard"}
)

func allow(s *server, rights ...string) {
	s.tb.Helper()
	s.do(setUser(rights...)...)
}

func setUser(rights ...string) []string {
	return append([]string{"ACL", "SETUSER", "app", "reset", "on", ">secret", "~oauth_session:*", "-@all"}, rights...)
}

// TestManualListsTheRights of these tests.
func TestManualListsTheRights(t *testing.T) {
	manual, err := os.ReadFile("../../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range [][]string{rights, sentinelRights, clusterRights, replicaRights, quietRights, quietReplicaRights} {
		if want := strings.Join(group, " "); !strings.Contains(string(manual), want) {
			t.Errorf("docs/redis.md lacks %q", want)
		}
	}
}

// TestManualStatesTheLimits of the code.
func TestManualStatesTheLimits(t *testing.T) {
	manual, err := os.ReadFile("../../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		fmt.Sprintf("| a call of the store, including retries | %v |", callTimeout),
		fmt.Sprintf("| a copy without a push, such as behind a failed network | %v |", copyLife),
		fmt.Sprintf("| an answer to a ping, before the connection is closed and its copies are dropped | %v |", pingTimeout),
		fmt.Sprintf("| the confirmation of a write by `replicas` | %v |", replicaTimeout*time.Millisecond),
		fmt.Sprintf("| copies in an instance, for each server | %d MiB |", cacheSize>>20),
	} {
		if !strings.Contains(string(manual), want) {
			t.Errorf("docs/redis.md lacks %q", want)
		}
	}
}

func asApp(s *server) Config {
	return Config{URLs: []string{s.url()}, Username: "app", Password: fixed("secret")}
}

// callAll calls every method of the store and returns the errors.
func callAll(t *testing.T, s *Store) error {
	ctx := t.Context()
	id, other, holder := newID(), newID(), newHolder()
	ignore := func(session.Item) error { return nil }
	lease, acquired := session.Lease{Holder: holder}, error(nil)
	tagged, tag := newItem(1, "1"), session.Tag(newID())
	tagged.Tags = []session.Tag{tag}
	errs := []error{
		s.Create(ctx, id, tagged),
		s.View(ctx, id, ignore),
		s.ViewCurrent(ctx, id, ignore),
		s.Replace(ctx, id, newItem(2, "2")),
		func() error { lease, acquired = s.Acquire(ctx, id, 2, holder, session.Lease{}); return acquired }(),
		s.Beat(ctx, id, session.Lease{Holder: holder, Beat: lease.Beat + 1}),
		s.DeleteAt(ctx, id, 2, holder),
		s.Create(ctx, other, newItem(1, "1")),
		s.Release(ctx, other, holder),
		s.Delete(ctx, other),
		func() error { _, err := s.Tagged(ctx, tag); return err }(),
	}
	for range 2 {
		_, err := s.Announce(ctx, session.Topic{1}, holder, []byte("note"))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// TestLeastRights: all calls succeed with the rights of the manual. Without any one of
// them, a call fails with an error that refers to the manual.
func TestLeastRights(t *testing.T) {
	server := startServer(t)
	admin := open(t, Config{URLs: []string{server.url()}})
	allow(server, rights...)
	s, err := Open(asApp(server))
	if err != nil {
		t.Fatal(err)
	}
	if err := callAll(t, s); err != nil {
		t.Fatalf("with all rights: %v", err)
	}
	s.Close()
	for i, right := range rights {
		if right == "+hdel" {
			continue // tested below with an old announcement
		}
		allow(server, slices.Concat(rights[:i], rights[i+1:])...)
		server.do("SCRIPT", "FLUSH") // otherwise the client needs no EVAL
		s, err := Open(asApp(server))
		if err == nil {
			err = callAll(t, s)
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "docs/redis.md") {
			t.Errorf("without %s: got error %v, want one with \"docs/redis.md\"", right, err)
		}
	}
	// An announcement that the script deletes.
	putAnnouncements(t, admin, admin.keys.announcement(session.Topic{1}), "short", "x")
	allow(server, slices.DeleteFunc(slices.Clone(rights), func(r string) bool { return r == "+hdel" })...)
	s = open(t, asApp(server))
	if err := callAll(t, s); err == nil || !strings.Contains(err.Error(), "docs/redis.md") {
		t.Errorf("without +hdel: got error %v, want one with \"docs/redis.md\"", err)
	}
	// Keys that the user must not access.
	allow(server, rights...)
	config := asApp(server)
	config.Prefix = "other"
	if s, err := Open(config); err == nil || !strings.Contains(err.Error(), "docs/redis.md") {
		t.Errorf("with another prefix: got error %v, want one with \"docs/redis.md\"", err)
		if err == nil {
			s.Close()
		}
	}
}

// TestQuietRightsKeepTheACLLogEmpty while all methods are called.
func TestQuietRightsKeepTheACLLogEmpty(t *testing.T) {
	server := startServer(t)
	allow(server, slices.Concat(rights, quietRights, replicaRights, quietReplicaRights)...)
	if err := callAll(t, open(t, asApp(server))); err != nil {
		t.Error(err)
	}
	config := asApp(server)
	config.Replicas = 1
	wantErr(t, "Delete", open(t, config).Delete(t.Context(), newID()), errReplicas)
	await(t, "a ping", func() bool { return commandsOf(server, "ping") > 5 })
	if log := server.do("ACL", "LOG"); log != "" {
		t.Errorf("ACL LOG: got\n%s\nwant no entries", log)
	}
}

func TestPasswordIsCalledForEachConnection(t *testing.T) {
	server := startServer(t)
	allow(server, rights...)
	var password atomic.Value
	password.Store("secret")
	config := asApp(server)
	config.Password = func() (string, error) { return password.Load().(string), nil }
	s := open(t, config)
	id := newID()
	mustCreate(t, s, id, newItem(1, "value"))

	server.do("ACL", "SETUSER", "app", "resetpass", ">changed")
	password.Store("changed")
	server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	wantView(t, s, id, "value")

	password.Store("wrong")
	server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	await(t, "the refusal", func() bool {
		_, err := view(t, s, id)
		wantRefusal := err != nil && strings.Contains(err.Error(), "WRONGPASS")
		return wantRefusal && !errors.Is(err, session.ErrNotFound)
	})
	password.Store("changed")
	wantView(t, s, id, "value")
}

func TestPasswordInURL(t *testing.T) {
	server := startServer(t)
	allow(server, rights...)
	s := open(t, Config{URLs: []string{"redis://app:secret@" + server.addr()}})
	if err := callAll(t, s); err != nil {
		t.Error(err)
	}
	server.do("CONFIG", "SET", "requirepass", "secret")
	open(t, Config{URLs: []string{"redis://:secret@" + server.addr()}})
	if _, err := Open(Config{URLs: []string{server.url()}}); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("without a password: got error %v, want NOAUTH", err)
	}
}

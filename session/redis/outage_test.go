package redis

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

func TestOpenWithoutServer(t *testing.T) {
	server := newServer(t)
	config := Config{URLs: []string{server.url()}}
	if _, err := Open(config); err == nil {
		t.Fatal("opened without a server")
	}
	server.start()
	server.awaitAnswer()
	open(t, config)
}

// TestFrozenServer: a copy is good for a while, and then nothing is, also
// without a deadline of the caller's.
func TestFrozenServer(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	news := watch(s)
	id := newID()
	mustCreate(t, s, id, newItem(1, "value"))
	wantView(t, s, id, "value")

	thaw := server.freeze()
	defer thaw()
	bounded, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for bounded.Err() == nil {
		// Without a deadline: the store has its own.
		if err := s.View(t.Context(), id, func(session.Item) error { return nil }); err != nil {
			wantNoAnswer(t, "View", err)
			break
		}
		time.Sleep(time.Millisecond)
	}
	if bounded.Err() != nil {
		t.Fatal("a copy is handed out although the server is frozen")
	}
	if news.alls() == 0 {
		t.Error("copies were dropped, and Watch did not tell")
	}
	wantNoAnswer(t, "ViewCurrent", s.ViewCurrent(t.Context(), newID(), func(session.Item) error { return nil }))
	wantNoAnswer(t, "Replace", s.Replace(t.Context(), id, newItem(2, "2")))
	_, err := s.Acquire(t.Context(), id, 1, newHolder(), session.Lease{})
	wantNoAnswer(t, "Acquire", err)

	thaw()
	await(t, "an answer", func() bool { _, err := view(t, s, id); return err == nil })
}

// TestRestart: a blip is ridden out, and no copy from before survives it.
func TestRestart(t *testing.T) {
	t.Parallel()
	server := startServer(t, "--appendonly", "yes", "--appendfsync", "always")
	s := open(t, Config{URLs: []string{server.url()}})
	news := watch(s)
	id, gone := newID(), newID()
	mustCreate(t, s, id, newItem(1, "value"))
	mustCreate(t, s, gone, newItem(1, "value"))
	wantView(t, s, id, "value")
	wantView(t, s, gone, "value")

	server.kill()
	await(t, "Watch to tell", func() bool { return news.alls() > 0 })
	_, err := view(t, s, gone)
	wantNoAnswer(t, "View without a server", err)
	wantNoAnswer(t, "Create without a server", s.Create(t.Context(), newID(), newItem(1, "value")))

	result := make(chan error)
	go func() { result <- s.Replace(context.WithoutCancel(t.Context()), id, newItem(2, "2")) }()
	server.start()
	server.awaitAnswer()
	if err := <-result; err != nil {
		// A machine that is busy may take longer than a call waits.
		t.Logf("Replace during the restart: %v", err)
		mustReplace(t, s, id, newItem(2, "2"))
	}
	wantView(t, s, id, "2")
	wantView(t, s, gone, "value")
	server.do("DEL", s.keys.item(gone))
	await(t, "the push over the new connection", func() bool { return news.count(gone) > 0 })
	_, err = view(t, s, gone)
	wantErr(t, "View", err, session.ErrNotFound)
}

// TestRefusals: what a server says in trouble is no answer about a session.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cause func(*server)
		cure  func(*server)
		says  string
		reads bool // reading works on
	}{
		"OOM": {
			cause: func(s *server) { s.do("CONFIG", "SET", "maxmemory", "1") },
			cure:  func(s *server) { s.do("CONFIG", "SET", "maxmemory", "0") },
			says:  "noeviction", reads: true,
		},
		"READONLY": {
			cause: func(s *server) { s.do("REPLICAOF", "127.0.0.1", "1") },
			cure:  func(s *server) { s.do("REPLICAOF", "NO", "ONE") },
			says:  "READONLY", reads: true,
		},
		"MASTERDOWN": {
			cause: func(s *server) {
				s.do("CONFIG", "SET", "replica-serve-stale-data", "no")
				s.do("REPLICAOF", "127.0.0.1", "1")
			},
			cure: func(s *server) { s.do("REPLICAOF", "NO", "ONE") },
			says: "MASTERDOWN",
		},
		"NOREPLICAS": {
			cause: func(s *server) { s.do("CONFIG", "SET", "min-replicas-to-write", "1") },
			cure:  func(s *server) { s.do("CONFIG", "SET", "min-replicas-to-write", "0") },
			says:  "NOREPLICAS", reads: true,
		},
		"MISCONF": {
			cause: cannotSave,
			cure:  func(s *server) { s.do("CONFIG", "SET", "stop-writes-on-bgsave-error", "no") },
			says:  "MISCONF", reads: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startServer(t)
			s := open(t, Config{URLs: []string{server.url()}})
			id := newID()
			mustCreate(t, s, id, newItem(1, "1"))
			c.cause(server)
			var err error
			await(t, "the server's refusal", func() bool {
				// On a busy machine a command may time out before it is answered.
				err = s.Replace(t.Context(), id, newItem(2, "2"))
				return !errors.Is(err, context.DeadlineExceeded)
			})
			wantNoAnswer(t, "Replace", err)
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("Replace: %v, want %s", err, c.says)
			}
			wantNoAnswer(t, "Create", s.Create(t.Context(), newID(), newItem(1, "1")))
			_, err = s.Acquire(t.Context(), id, 1, newHolder(), session.Lease{})
			wantNoAnswer(t, "Acquire", err)
			if value, err := current(t, s, id); c.reads && value != "1" {
				t.Errorf("ViewCurrent: %q, %v; want to read on", value, err)
			} else if !c.reads {
				wantNoAnswer(t, "ViewCurrent", err)
			}
			c.cure(server)
			mustReplace(t, s, id, newItem(2, "2"))
			wantView(t, s, id, "2")
		})
	}
}

// cannotSave makes the server's last snapshot a failure.
func cannotSave(s *server) {
	s.tb.Helper()
	if err := os.Mkdir(filepath.Join(s.dir, "dump.rdb"), 0o700); err != nil {
		s.tb.Fatal(err)
	}
	s.do("CONFIG", "SET", "save", "3600 1000000")
	_, _ = s.try("SAVE")
	_, _ = s.try("BGSAVE")
	s.await("the failed snapshot", func() bool {
		return strings.Contains(s.do("INFO", "persistence"), "rdb_last_bgsave_status:err")
	})
}

// TestReplicas: a write counts when enough replicas have it, and not before;
// a repetition is no way around that.
func TestReplicas(t *testing.T) {
	t.Parallel()
	master := startServer(t)
	config := Config{URLs: []string{master.url()}, Replicas: 1}
	s := open(t, config)
	id := newID()
	wantErr(t, "Create", s.Create(t.Context(), id, newItem(1, "1")), errReplicas)
	wantErr(t, "Create again", s.Create(t.Context(), id, newItem(1, "1")), errReplicas)
	if got, err := current(t, s, id); err != nil || got != "1" {
		t.Errorf("ViewCurrent: %q, %v; want the item that was written", got, err)
	}

	replica := startServer(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(master.port))
	replica.await("the first copy", func() bool { return strings.Contains(replica.do("INFO", "replication"), "master_link_status:up") })
	if err := everything(t, s); err != nil {
		t.Error(err)
	}
	wantErr(t, "Create", s.Create(t.Context(), id, newItem(1, "1")), session.ErrConflict)
	for version := uint64(2); version < 50; version++ {
		value := strconv.FormatUint(version, 10)
		mustReplace(t, s, id, newItem(version, value))
		wantView(t, s, id, value) // our own copy is gone
		if got := replica.do("GETRANGE", s.keys.item(id), strconv.Itoa(itemHeaderSize), "-1"); got != value {
			t.Fatalf("the replica has %q after the write of %q was acknowledged", got, value)
		}
	}

	replica.freeze()
	lease := session.Holder{}
	wantErr(t, "Replace", s.Replace(t.Context(), id, newItem(50, "50")), errReplicas)
	wantErr(t, "Replace again", s.Replace(t.Context(), id, newItem(50, "50")), errReplicas)
	wantErr(t, "DeleteAt", s.DeleteAt(t.Context(), id, 50, lease), errReplicas)
	wantErr(t, "Delete", s.Delete(t.Context(), id), errReplicas)

	t.Run("rights", func(t *testing.T) {
		allow(master, append(rights, replicaRights...)...)
		config := asApp(master)
		config.Replicas = 1
		err := open(t, config).Delete(t.Context(), id)
		if !errors.Is(err, errReplicas) {
			t.Errorf("with the right to wait: %v, want to have waited", err)
		}
		allow(master, rights...)
		err = open(t, config).Delete(t.Context(), id)
		if err == nil || !strings.Contains(err.Error(), "docs/redis.md") {
			t.Errorf("without the right to wait: %v, want a hint", err)
		}
	})
}

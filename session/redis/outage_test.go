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

func TestOpenFailsWithoutServer(t *testing.T) {
	server := newServer(t)
	config := Config{URLs: []string{server.url()}}
	if _, err := Open(config); err == nil {
		t.Fatal("Open without a server: got nil, want an error")
	}
	server.start()
	server.awaitAnswer()
	open(t, config)
}

// TestFrozenServerFailsAllCalls, also without a deadline of the caller. View returns
// copies until the ping times out.
func TestFrozenServerFailsAllCalls(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	s := open(t, Config{URLs: []string{server.url()}})
	changes := watch(s)
	id := newID()
	mustCreate(t, s, id, newItem(1, "value"))
	wantView(t, s, id, "value")

	thaw := server.freeze()
	defer thaw()
	bounded, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for bounded.Err() == nil {
		// The context has no deadline: the store sets one.
		if err := s.View(t.Context(), id, func(session.Item) error { return nil }); err != nil {
			wantServerError(t, "View", err)
			break
		}
		time.Sleep(time.Millisecond)
	}
	if bounded.Err() != nil {
		t.Fatal("View of a frozen server: got copies all the time, want an error")
	}
	if changes.resets() == 0 {
		t.Error("changed was not called, want a call with nil for the dropped copies")
	}
	wantServerError(t, "ViewCurrent", s.ViewCurrent(t.Context(), newID(), func(session.Item) error { return nil }))
	wantServerError(t, "Replace", s.Replace(t.Context(), id, newItem(2, "2")))
	_, err := s.Acquire(t.Context(), id, 1, newHolder(), session.Lease{})
	wantServerError(t, "Acquire", err)

	thaw()
	await(t, "an answer", func() bool { _, err := view(t, s, id); return err == nil })
}

// TestRestartOfTheServer: a call during the restart succeeds after it, and no copy from
// before the restart is returned.
func TestRestartOfTheServer(t *testing.T) {
	t.Parallel()
	server := startServer(t, "--appendonly", "yes", "--appendfsync", "always")
	s := open(t, Config{URLs: []string{server.url()}})
	changes := watch(s)
	id, gone := newID(), newID()
	mustCreate(t, s, id, newItem(1, "value"))
	mustCreate(t, s, gone, newItem(1, "value"))
	wantView(t, s, id, "value")
	wantView(t, s, gone, "value")

	server.kill()
	await(t, "a call of changed with nil", func() bool { return changes.resets() > 0 })
	_, err := view(t, s, gone)
	wantServerError(t, "View without a server", err)
	wantServerError(t, "Create without a server", s.Create(t.Context(), newID(), newItem(1, "value")))

	result := make(chan error)
	go func() { result <- s.Replace(context.WithoutCancel(t.Context()), id, newItem(2, "2")) }()
	server.start()
	server.awaitAnswer()
	if err := <-result; err != nil {
		// On a busy machine the restart may take longer than callTimeout.
		t.Logf("Replace during the restart: %v", err)
		mustReplace(t, s, id, newItem(2, "2"))
	}
	wantView(t, s, id, "2")
	wantView(t, s, gone, "value")
	server.do("DEL", s.keys.item(gone))
	await(t, "the push over the new connection", func() bool { return changes.count(gone) > 0 })
	_, err = view(t, s, gone)
	wantErr(t, "View", err, session.ErrNotFound)
}

// TestServerErrorsAreNoAnswers: an error code of the server is neither ErrNotFound nor
// ErrConflict nor ErrLeased.
func TestServerErrorsAreNoAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cause func(*server)
		cure  func(*server)
		want  string
		reads bool // whether reads succeed
	}{
		"OOM": {
			cause: func(s *server) { s.do("CONFIG", "SET", "maxmemory", "1") },
			cure:  func(s *server) { s.do("CONFIG", "SET", "maxmemory", "0") },
			want:  "noeviction", reads: true,
		},
		"READONLY": {
			cause: func(s *server) { s.do("REPLICAOF", "127.0.0.1", "1") },
			cure:  func(s *server) { s.do("REPLICAOF", "NO", "ONE") },
			want:  "READONLY", reads: true,
		},
		"MASTERDOWN": {
			cause: func(s *server) {
				s.do("CONFIG", "SET", "replica-serve-stale-data", "no")
				s.do("REPLICAOF", "127.0.0.1", "1")
			},
			cure: func(s *server) { s.do("REPLICAOF", "NO", "ONE") },
			want: "MASTERDOWN",
		},
		"NOREPLICAS": {
			cause: func(s *server) { s.do("CONFIG", "SET", "min-replicas-to-write", "1") },
			cure:  func(s *server) { s.do("CONFIG", "SET", "min-replicas-to-write", "0") },
			want:  "NOREPLICAS", reads: true,
		},
		"MISCONF": {
			cause: failSnapshot,
			cure:  func(s *server) { s.do("CONFIG", "SET", "stop-writes-on-bgsave-error", "no") },
			want:  "MISCONF", reads: true,
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
			await(t, "the error "+c.want, func() bool {
				// On a busy machine a command may time out before the server answers.
				err = s.Replace(t.Context(), id, newItem(2, "2"))
				return err == nil || strings.Contains(err.Error(), c.want)
			})
			wantServerError(t, "Replace", err)
			wantServerError(t, "Create", s.Create(t.Context(), newID(), newItem(1, "1")))
			_, err = s.Acquire(t.Context(), id, 1, newHolder(), session.Lease{})
			wantServerError(t, "Acquire", err)
			if value, err := current(t, s, id); c.reads && value != "1" {
				t.Errorf("ViewCurrent: got %q, error %v, want \"1\"", value, err)
			} else if !c.reads {
				wantServerError(t, "ViewCurrent", err)
			}
			c.cure(server)
			mustReplace(t, s, id, newItem(2, "2"))
			wantView(t, s, id, "2")
		})
	}
}

// failSnapshot makes the last snapshot of the server a failure.
func failSnapshot(s *server) {
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

// TestWriteNeedsReplicas: a write is acknowledged only after enough replicas have it,
// also if an earlier try has made it.
func TestWriteNeedsReplicas(t *testing.T) {
	t.Parallel()
	master := startServer(t)
	config := Config{URLs: []string{master.url()}, Replicas: 1}
	s := open(t, config)
	id := newID()
	wantErr(t, "Create", s.Create(t.Context(), id, newItem(1, "1")), errReplicas)
	wantErr(t, "Create again", s.Create(t.Context(), id, newItem(1, "1")), errReplicas)
	if got, err := current(t, s, id); err != nil || got != "1" {
		t.Errorf("ViewCurrent: got %q, error %v, want \"1\"", got, err)
	}

	replica := startServer(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(master.port))
	replica.await("the first copy", func() bool { return strings.Contains(replica.do("INFO", "replication"), "master_link_status:up") })
	if err := callAll(t, s); err != nil {
		t.Error(err)
	}
	wantErr(t, "Create", s.Create(t.Context(), id, newItem(1, "1")), session.ErrConflict)
	for version := uint64(2); version < 50; version++ {
		value := strconv.FormatUint(version, 10)
		mustReplace(t, s, id, newItem(version, value))
		wantView(t, s, id, value) // the store has dropped its copy
		if got := replica.do("GETRANGE", s.keys.item(id), strconv.Itoa(itemHeaderSize), "-1"); got != value {
			t.Fatalf("value at the replica after the acknowledgement: got %q, want %q", got, value)
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
			t.Errorf("with the right to WAIT: got error %v, want errReplicas", err)
		}
		allow(master, rights...)
		err = open(t, config).Delete(t.Context(), id)
		if err == nil || !strings.Contains(err.Error(), "docs/redis.md") {
			t.Errorf("without the right to WAIT: got error %v, want one with \"docs/redis.md\"", err)
		}
	})
}

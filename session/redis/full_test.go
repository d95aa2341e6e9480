package redis

import (
	"errors"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// TestAcquireFailsWhileBeatFails: while the server refuses writes, a holder cannot send
// heartbeats. Acquire must then not return the unchanged lease, which the caller would
// take over.
func TestAcquireFailsWhileBeatFails(t *testing.T) {
	for _, tc := range []struct {
		name        string
		cause, cure []string
	}{
		{"full", []string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"}},
		{"a replica", []string{"REPLICAOF", "127.0.0.1", "1"}, []string{"REPLICAOF", "NO", "ONE"}},
		{"too few replicas", []string{"CONFIG", "SET", "min-replicas-to-write", "1"}, []string{"CONFIG", "SET", "min-replicas-to-write", "0"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			server := startServer(t)
			s := open(t, Config{URLs: []string{server.url()}})
			id := newID()
			mustCreate(t, s, id, newItem(1, "value"))
			lease := mustAcquire(t, s, id, 1)
			server.do(tc.cause...)
			lease.Beat++
			if s.Beat(t.Context(), id, lease) == nil {
				t.Fatal("Beat: got nil, want an error of the server")
			}
			_, err := s.Acquire(t.Context(), id, 1, newHolder(), session.Lease{})
			if err == nil || errors.Is(err, session.ErrLeased) {
				t.Errorf("Acquire: got error %v, want one of the server", err)
			}
			server.do(tc.cure...)
			if err := s.Beat(t.Context(), id, lease); err != nil {
				t.Error(err)
			}
			_, err = s.Acquire(t.Context(), id, 1, newHolder(), session.Lease{})
			wantErr(t, "Acquire", err, session.ErrLeased)
		})
	}
}

// TestFullServerIsRead: a session of which this instance has no copy is read from a full
// server. Before, its users got 503 although their tokens were valid.
func TestFullServerIsRead(t *testing.T) {
	server := startServer(t)
	writer := open(t, Config{URLs: []string{server.url()}})
	id := newID()
	mustCreate(t, writer, id, newItem(1, "value"))
	server.do("CONFIG", "SET", "maxmemory", "1")
	if writer.Create(t.Context(), newID(), newItem(1, "other")) == nil {
		t.Fatal("Create: got nil, want an error of the full server")
	}
	reader := open(t, Config{URLs: []string{server.url()}})
	changed := make(chan []session.ID, 100)
	reader.Watch(func(ids []session.ID) {
		if ids != nil {
			changed <- ids
		}
	})
	for range 2 {
		if value, err := view(t, reader, id); value != "value" || err != nil {
			t.Errorf("View: got %q, error %v; want the value", value, err)
		}
		<-changed // the server pushes no change of what was read alone
	}
	if _, err := view(t, reader, newID()); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("View of no session: got error %v, want ErrNotFound", err)
	}
	server.do("CONFIG", "SET", "maxmemory", "0")
	mustReplace(t, writer, id, newItem(2, "newer"))
	if value, err := view(t, reader, id); value != "newer" || err != nil {
		t.Errorf("View: got %q, error %v; want the newer value", value, err)
	}
}

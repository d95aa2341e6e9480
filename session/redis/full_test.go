package redis

import (
	"errors"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// TestNoWritesNoSilence: while the server takes no writes, a holder cannot beat.
// Who looks at its lease must not see that as silence.
func TestNoWritesNoSilence(t *testing.T) {
	for _, tc := range []struct {
		name      string
		sick, fit []string
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
			server.do(tc.sick...)
			lease.Beat++
			if s.Beat(t.Context(), id, lease) == nil {
				t.Fatal("the server still takes writes")
			}
			_, err := s.Acquire(t.Context(), id, 1, newHolder(), session.Lease{})
			if err == nil || errors.Is(err, session.ErrLeased) {
				t.Errorf("a look at the lease: %v, want that the store cannot answer", err)
			}
			server.do(tc.fit...)
			if err := s.Beat(t.Context(), id, lease); err != nil {
				t.Error(err)
			}
			_, err = s.Acquire(t.Context(), id, 1, newHolder(), session.Lease{})
			wantErr(t, "a look at the lease", err, session.ErrLeased)
		})
	}
}

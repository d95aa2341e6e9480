package redis

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// startSentinel starts a Sentinel that requires a password and watches the master
// under the name "main".
func startSentinel(t *testing.T, master *server) *server {
	t.Helper()
	s := newServer(t)
	file := filepath.Join(s.dir, "sentinel.conf")
	settings := fmt.Sprintf(`port %d
bind 127.0.0.1
dir %s
unixsocket %s
requirepass watchword
sentinel monitor main 127.0.0.1 %d 1
sentinel auth-pass main secret
sentinel down-after-milliseconds main 2000
sentinel failover-timeout main 3000
`, s.port, s.dir, s.socket(), master.port)
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("redis-server", file, "--sentinel")
	s.await("an answer", func() bool {
		out, err := s.try("--pass", "watchword", "--no-auth-warning", "SENTINEL", "REPLICAS", "main")
		return err == nil && strings.Contains(out, "role-reported")
	})
	return s
}

// TestFailover kills the master. Acknowledged writes, copies and pushes are correct at
// the new master.
func TestFailover(t *testing.T) {
	t.Parallel()
	args := []string{"--requirepass", "secret", "--masterauth", "secret"}
	master := newServer(t, args...)
	master.start()
	master.await("an answer", func() bool { out, _ := master.trySecret("PING"); return out == "PONG" })
	replica := newServer(t, append(args, "--replicaof", "127.0.0.1 "+strconv.Itoa(master.port))...)
	replica.start()
	replica.await("the first copy", func() bool {
		out, _ := replica.trySecret("INFO", "replication")
		return strings.Contains(out, "master_link_status:up")
	})
	for _, server := range []*server{master, replica} {
		if out, err := server.trySecret(setUser(slices.Concat(rights, sentinelRights, replicaRights)...)...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	sentinel := startSentinel(t, master)
	config := Config{
		URLs: []string{sentinel.url()}, SentinelMaster: "main", Replicas: 1,
		Username: "app", Password: fixed("secret"), SentinelPassword: fixed("watchword"),
	}
	writer := open(t, config)
	config.Replicas = 0
	reader, late := open(t, config), open(t, config)
	changes := watch(reader)

	id, deleted := newID(), newID()
	mustCreate(t, writer, id, newItem(1, "1"))
	mustCreate(t, writer, deleted, newItem(1, "1"))
	wantView(t, reader, id, "1")
	wantView(t, reader, deleted, "1")
	var acknowledged sync.Map // ID to version
	for range 50 {
		id := newID()
		mustCreate(t, writer, id, newItem(1, "1"))
		mustReplace(t, writer, id, newItem(2, "2"))
		acknowledged.Store(id, "2")
	}
	if err := writer.Delete(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}

	master.kill()
	await(t, "a call of changed with nil", func() bool { return changes.resets() > 0 })
	var last error
	defer func() {
		if t.Failed() {
			t.Logf("the last write ended with %v", last)
		}
	}()
	await(t, "the new master", func() bool {
		last = late.Replace(t.Context(), id, newItem(2, "2"))
		// A conflict means that a former try was written, and that its answer was lost.
		return last == nil || errors.Is(last, session.ErrConflict)
	})
	await(t, "the new version at the reader", func() bool { value, err := view(t, reader, id); return err == nil && value == "2" })
	for range 100 {
		wantView(t, reader, id, "2")
	}
	_, err := view(t, reader, deleted)
	wantErr(t, "View of the deleted item", err, session.ErrNotFound)
	acknowledged.Range(func(id, value any) bool {
		wantView(t, reader, id.(session.ID), value.(string))
		return true
	})
	before := changes.count(id)
	mustReplace(t, late, id, newItem(3, "3"))
	await(t, "the push of the new master", func() bool { return changes.count(id) > before })
	wantView(t, reader, id, "3")
	if err := writer.Replace(t.Context(), id, newItem(4, "4")); !errors.Is(err, errReplicas) {
		t.Errorf("Replace without a replica: got error %v, want %v", err, errReplicas)
	}
}

// trySecret is try for a server with a password.
func (s *server) trySecret(args ...string) (string, error) {
	return s.try(append([]string{"--pass", "secret", "--no-auth-warning"}, args...)...)
}

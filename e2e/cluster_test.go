package e2e

import (
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/rediscluster"
)

// TestRedisReshards moves the slots of all sessions from master to master of a Redis Cluster, twice, under load.
func TestRedisReshards(t *testing.T) {
	t.Parallel()
	cluster := rediscluster.StartCluster(t)
	store := strings.Join(cluster.URLs(), " ")
	l := startLoadOn(t, store, store, store)
	moved := 0
	for range 2 {
		// The first two moves bring all slots to the third master, the last one to the first master.
		for _, move := range [][2]int{{0, 1}, {1, 2}, {2, 0}} {
			moved += cluster.Move(t, move[0], move[1])
		}
		l.awaitRefreshed(t)
	}
	if moved < 2*len(l.visitors) {
		t.Errorf("got %d moved slots, want at least two for each of %d sessions", moved, len(l.visitors))
	}
	l.finish(t)
}

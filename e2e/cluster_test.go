package e2e

import (
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/rediscluster"
)

// TestRedisReshards moves the slots of all sessions round the masters of a Redis Cluster, twice, under load.
func TestRedisReshards(t *testing.T) {
	t.Parallel()
	cluster := rediscluster.StartCluster(t)
	store := strings.Join(cluster.URLs(), " ")
	l := startLoadOn(t, store, store, store)
	moved := 0
	for range 2 {
		// What the first two have ends up at the third, and then one after the other gets all of it.
		for _, way := range [][2]int{{0, 1}, {1, 2}, {2, 0}} {
			moved += cluster.Move(t, way[0], way[1])
		}
		l.awaitRefreshed(t)
	}
	if moved < 2*len(l.visitors) {
		t.Errorf("moved %d slots, want those of %d sessions twice at least", moved, len(l.visitors))
	}
	l.finish(t)
}

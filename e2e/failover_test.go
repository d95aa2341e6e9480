package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/rediscluster"
)

// TestRedisFailsOver kills the master under load and lets the Sentinels put its replica in its place, twice. Each write has
// been acknowledged by the replica, so that no session is lost.
func TestRedisFailsOver(t *testing.T) {
	t.Parallel()
	group := rediscluster.StartGroup(t)
	store := fmt.Sprintf("%s {\nsentinel_master %s\nreplicas 1\n}", strings.Join(group.URLs(), " "), rediscluster.MasterName)
	l := startLoadOn(t, store, store, store)
	for range 2 {
		arrive := l.spend(t, spentInFlight)
		group.FailOver(t, arrive)
		// Nothing that is written now would survive another failover, so it does not count as written.
		l.during(t, "without a replica", 3*time.Second)
		group.Rejoin(t)
		l.awaitRefreshed(t)
	}
	l.demand503(t)
	l.finish(t)
}

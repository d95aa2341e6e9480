package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/rediscluster"
)

// TestRedisFailsOver kills the master under load and waits until the Sentinels have promoted the replica, twice. No session
// is lost, since the replica has acknowledged each write.
func TestRedisFailsOver(t *testing.T) {
	t.Parallel()
	group := rediscluster.StartGroup(t)
	store := fmt.Sprintf("%s {\nsentinel_master %s\nreplicas 1\n}", strings.Join(group.URLs(), " "), rediscluster.MasterName)
	l := startLoadOn(t, store, store, store)
	for range 2 {
		release := l.holdRefreshes(t, heldRefreshes)
		group.FailOver(t, release)
		// No replica acknowledges the writes now, so the instances treat them as failed.
		l.continueFor(t, "without a replica", 3*time.Second)
		group.Rejoin(t)
		l.awaitRefreshed(t)
	}
	l.want503(t)
	l.finish(t)
}

// Package rediscluster runs several real Redis servers as one store for a test: a master and a replica with Sentinels, or
// a Redis Cluster.
package rediscluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
)

const (
	// MasterName is the master's name in the Sentinels' configuration.
	MasterName = "sessions"
	sentinels  = 3
	quorum     = 2
	// downAfter is the time without an answer after which a Sentinel considers a master down.
	downAfter = 2 * time.Second
	// failoverTimeout bounds one failover. The next one begins after twice this time.
	failoverTimeout = 3 * time.Second
	// settleLimit bounds the time until servers agree.
	settleLimit = 3 * time.Minute
)

// A Group is a master and its replica, monitored by three Sentinels. Neither writes to disk: acknowledged writes survive
// on the remaining server.
type Group struct {
	members   [2]*redisserver.Server
	sentinels [sentinels]*redisserver.Server
}

// StartGroup runs a group until the test ends. It waits until the replica is in sync and the Sentinels know each other.
func StartGroup(t testing.TB) *Group {
	t.Helper()
	g := &Group{}
	// By default, a master waits 5 s for more replicas before it sends the first copy.
	syncAtOnce := []string{"--repl-diskless-sync-delay", "0"}
	g.members[0] = redisserver.Start(t, redisserver.Options{Args: syncAtOnce})
	host, port, _ := strings.Cut(g.members[0].Addr, ":")
	g.members[1] = redisserver.Start(t, redisserver.Options{Args: append(syncAtOnce, "--replicaof", host, port)})
	g.AwaitReplica(t)
	for i := range g.sentinels {
		g.sentinels[i] = startSentinel(t, g.members[0])
		// On a busy machine, a Sentinel may not run for two seconds. By default it would then do nothing for 30 s (TILT mode)
		// and afterwards refuse to promote the replica, which would have been without a master for too long.
		g.sentinels[i].Do(t, "SENTINEL", "DEBUG", "TILT-TRIGGER", strconv.FormatInt(settleLimit.Milliseconds(), 10), "TILT-PERIOD", "1000")
	}
	await(t, "Sentinels with each other's addresses", func() bool {
		for _, s := range g.sentinels {
			state := pairs(s.Do(t, "SENTINEL", "MASTER", MasterName))
			if state["num-other-sentinels"] != fmt.Sprint(sentinels-1) || state["num-slaves"] != "1" {
				return false
			}
		}
		return true
	})
	return g
}

// startSentinel starts a Sentinel with its own configuration file, in which it also stores its state.
func startSentinel(t testing.TB, master *redisserver.Server) *redisserver.Server {
	t.Helper()
	exe, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("%v; `go run ./cmd/setup` installs it", err)
	}
	port, dir := proc.FreePort(t), t.TempDir()
	file := filepath.Join(dir, "sentinel.conf")
	config := fmt.Sprintf(`port %[1]d
bind 127.0.0.1
dir %[2]s
sentinel monitor %[3]s %[4]s %[5]d
sentinel down-after-milliseconds %[3]s %[6]d
sentinel failover-timeout %[3]s %[7]d
`, port, dir, MasterName, strings.Replace(master.Addr, ":", " ", 1), quorum, downAfter.Milliseconds(), failoverTimeout.Milliseconds())
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &redisserver.Server{Addr: fmt.Sprintf("127.0.0.1:%d", port)}
	s.Process = proc.Start(t, "sentinel", exec.Command(exe, file, "--sentinel"))
	s.Process.Await(t, "readiness", func(ctx context.Context) bool {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return s
}

// URLs returns the addresses of the Sentinels.
func (g *Group) URLs() []string {
	var urls []string
	for _, s := range g.sentinels {
		urls = append(urls, s.URL())
	}
	return urls
}

// Master returns the master that the Sentinels name, or nil while they disagree.
func (g *Group) Master(t testing.TB) *redisserver.Server {
	t.Helper()
	var master *redisserver.Server
	for _, s := range g.sentinels {
		address, _ := s.Do(t, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName).([]any)
		for _, m := range g.members {
			if len(address) != 2 || m.Addr != fmt.Sprintf("%s:%s", address...) {
				continue
			}
			if master != nil && master != m {
				return nil
			}
			master = m
		}
	}
	return master
}

// FailOver kills the master and waits until the Sentinels have promoted the replica. The new master has no replica until
// Rejoin. FailOver calls killed once the master is dead.
func (g *Group) FailOver(t testing.TB, killed func()) {
	t.Helper()
	old := g.Master(t)
	if old == nil {
		t.Fatal("FailOver: the Sentinels name no master")
	}
	old.Kill(t)
	killed()
	await(t, "failover", func() bool {
		master := g.Master(t)
		return master != nil && master != old && strings.Contains(info(t, master, "replication"), "role:master")
	})
}

// Rejoin restarts the killed master as a replica of the new one. The Sentinels would do the same after ten seconds.
func (g *Group) Rejoin(t testing.TB) {
	t.Helper()
	master := g.Master(t)
	for _, m := range g.members {
		if m.Process == nil {
			m.Restart(t)
			host, port, _ := strings.Cut(master.Addr, ":")
			m.Do(t, "REPLICAOF", host, port)
		}
	}
	g.AwaitReplica(t)
}

// AwaitReplica waits until the master has a replica with all of its data.
func (g *Group) AwaitReplica(t testing.TB) {
	t.Helper()
	await(t, "replica in sync", func() bool {
		return slices.ContainsFunc(g.members[:], func(m *redisserver.Server) bool {
			return m.Process != nil && strings.Contains(info(t, m, "replication"), ",state=online,")
		})
	})
}

func info(t testing.TB, s *redisserver.Server, section string) string {
	t.Helper()
	text, _ := s.Do(t, "INFO", section).(string)
	return text
}

// pairs converts a reply of alternating names and values to a map.
func pairs(reply any) map[string]string {
	list, _ := reply.([]any)
	m := map[string]string{}
	for i := 0; i+1 < len(list); i += 2 {
		m[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
	}
	return m
}

// await waits until ok returns true. event names the expected event in the failure message.
func await(t testing.TB, event string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("got no %s within %v", event, settleLimit)
		}
	}
}

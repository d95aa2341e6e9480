// Package rediscluster runs several real Redis servers as one store for a test: a master and its replica under the eyes of
// Sentinels, or a Redis Cluster.
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
	// MasterName is what the Sentinels call the master.
	MasterName = "sessions"
	sentinels  = 3
	quorum     = 2
	// downAfter is how long a master must be silent until a Sentinel takes it for dead.
	downAfter = 2 * time.Second
	// failoverTimeout bounds one attempt to fail over. The next begins after twice that.
	failoverTimeout = 3 * time.Second
	// settleLimit bounds how long servers may take to agree on something.
	settleLimit = 3 * time.Minute
)

// A Group is a master and its replica, watched by three Sentinels. Neither keeps anything on disk: what the group has
// acknowledged lives on in the one that is left.
type Group struct {
	members   [2]*redisserver.Server
	sentinels [sentinels]*redisserver.Server
}

// StartGroup starts a group and waits until the replica follows and the Sentinels know of each other. It ends with the test.
func StartGroup(t testing.TB) *Group {
	t.Helper()
	g := &Group{}
	// Without this a replica waits 5 s for others to join before it gets its first copy.
	atOnce := []string{"--repl-diskless-sync-delay", "0"}
	g.members[0] = redisserver.Start(t, redisserver.Options{Args: atOnce})
	host, port, _ := strings.Cut(g.members[0].Addr, ":")
	g.members[1] = redisserver.Start(t, redisserver.Options{Args: append(atOnce, "--replicaof", host, port)})
	g.AwaitReplica(t)
	for i := range g.sentinels {
		g.sentinels[i] = startSentinel(t, g.members[0])
		// A Sentinel that has stood still for two seconds, as on a busy machine, would do nothing for the next thirty, and
		// then find that the replica has been without a master for too long to be one.
		g.sentinels[i].Do(t, "SENTINEL", "DEBUG", "TILT-TRIGGER", strconv.FormatInt(settleLimit.Milliseconds(), 10), "TILT-PERIOD", "1000")
	}
	await(t, "Sentinels that know each other", func() bool {
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

// startSentinel starts a Sentinel, which keeps its state in its configuration.
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

// Master returns the master in the eyes of the Sentinels, or nil while they are not of one mind.
func (g *Group) Master(t testing.TB) *redisserver.Server {
	t.Helper()
	var master *redisserver.Server
	for _, s := range g.sentinels {
		where, _ := s.Do(t, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName).([]any)
		for _, m := range g.members {
			if len(where) != 2 || m.Addr != fmt.Sprintf("%s:%s", where...) {
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

// FailOver kills the master and waits until the Sentinels have put the replica in its place, which then has no replica of
// its own until Rejoin. dead is called as soon as there is no master.
func (g *Group) FailOver(t testing.TB, dead func()) {
	t.Helper()
	old := g.Master(t)
	if old == nil {
		t.Fatal("failover of a group without a master")
	}
	old.Kill(t)
	dead()
	await(t, "failover", func() bool {
		now := g.Master(t)
		return now != nil && now != old && strings.Contains(info(t, now, "replication"), "role:master")
	})
}

// Rejoin starts the killed master again, as a replica of the new one. The Sentinels would make it one themselves, after ten
// seconds.
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

// AwaitReplica waits until the master has a replica that has all of its data.
func (g *Group) AwaitReplica(t testing.TB) {
	t.Helper()
	await(t, "replica in line", func() bool {
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

// pairs reads a reply of names and values in turn.
func pairs(reply any) map[string]string {
	list, _ := reply.([]any)
	m := map[string]string{}
	for i := 0; i+1 < len(list); i += 2 {
		m[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
	}
	return m
}

// await asks ok again and again until it says yes.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no %s within %v", what, settleLimit)
		}
	}
}

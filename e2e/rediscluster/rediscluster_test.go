package rediscluster

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
)

func TestFailOverKeepsReplicatedWrites(t *testing.T) {
	t.Parallel()
	g := StartGroup(t)
	if n := len(g.URLs()); n != 3 {
		t.Errorf("got %d Sentinels, want 3", n)
	}
	first := g.Master(t)
	write(t, first, "acknowledged")
	g.FailOver(t, func() {})
	second := g.Master(t)
	if second == nil || second == first {
		t.Fatalf("after the failover: got master %v, want the other server", second)
	}
	if got := second.Do(t, "GET", "key"); got != "acknowledged" {
		t.Errorf("after the failover: got %v, want acknowledged", got)
	}
	g.Rejoin(t)
	write(t, second, "again")
	if got := first.Do(t, "GET", "key"); got != "again" {
		t.Errorf("the old master: got %v, want again", got)
	}
}

// write sets the key and waits until a replica has it.
func write(t *testing.T, master *redisserver.Server, value string) {
	t.Helper()
	// WAIT refers to the writes of its own connection.
	cmd := exec.Command("redis-cli", "-u", master.URL())
	cmd.Stdin = strings.NewReader("SET key " + value + "\nWAIT 1 10000\n")
	if out, err := cmd.Output(); err != nil || string(out) != "OK\n1\n" {
		t.Fatalf("writing: got %q and error %v, want OK and one replica", out, err)
	}
}

func TestMoveKeepsAllKeys(t *testing.T) {
	t.Parallel()
	c := StartCluster(t)
	const keys = 30
	for i := range keys {
		cli(t, c, "SET", fmt.Sprint("key", i), fmt.Sprint(i))
		cli(t, c, "SET", fmt.Sprintf("second:{key%d}", i), fmt.Sprint(i)) // in the same slot
	}
	before := [masters]int{c.Keys(t, 0), c.Keys(t, 1), c.Keys(t, 2)}
	if n := c.Move(t, 0, 2); n == 0 || n > before[0]/2 {
		t.Errorf("got %d moved slots of a master with %d keys, want 1 to %d", n, before[0], before[0]/2)
	}
	after := [masters]int{c.Keys(t, 0), c.Keys(t, 1), c.Keys(t, 2)}
	if want := [masters]int{0, before[1], before[0] + before[2]}; after != want {
		t.Errorf("keys per master: got %v, want %v; before the move %v", after, want, before)
	}
	for i := range keys {
		if got := cli(t, c, "GET", fmt.Sprint("key", i)); got != fmt.Sprint(i) {
			t.Errorf("key%d: got %q, want %d", i, got, i)
		}
	}
}

// cli sends a command to the cluster. redis-cli follows redirections to the right node.
func cli(t *testing.T, c *Cluster, args ...string) string {
	t.Helper()
	out, err := exec.Command("redis-cli", append([]string{"-c", "-e", "-u", c.URLs()[0]}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

package rediscluster

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
)

const (
	masters = 3
	slots   = 16384
)

// A Cluster is a Redis Cluster of three masters without replicas.
type Cluster struct {
	nodes [masters]*redisserver.Server
	ids   [masters]string
}

// StartCluster runs a cluster until the test ends. Each master has a third of the slots. StartCluster waits until all
// nodes agree on the state.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{}
	for i := range c.nodes {
		// The default bus port is the server's port plus 10,000, which may be in use.
		bus := strconv.Itoa(proc.FreePort(t))
		n := redisserver.Start(t, redisserver.Options{Args: []string{
			"--cluster-enabled", "yes", "--cluster-port", bus,
			"--cluster-allow-replica-migration", "no", // a master without slots would become a replica
		}})
		c.nodes[i], c.ids[i] = n, fmt.Sprint(n.Do(t, "CLUSTER", "MYID"))
		n.Do(t, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/masters), strconv.Itoa((i+1)*slots/masters-1))
		host, port, _ := strings.Cut(n.Addr, ":")
		c.nodes[0].Do(t, "CLUSTER", "MEET", host, port, bus)
	}
	await(t, "agreement of the cluster", func() bool {
		for _, n := range c.nodes {
			state, _ := n.Do(t, "CLUSTER", "INFO").(string)
			if !strings.Contains(state, "cluster_state:ok") || !strings.Contains(state, fmt.Sprintf("cluster_size:%d", masters)) {
				return false
			}
		}
		return true
	})
	return c
}

// URLs returns the addresses of all nodes.
func (c *Cluster) URLs() []string {
	var urls []string
	for _, n := range c.nodes {
		urls = append(urls, n.URL())
	}
	return urls
}

// Move moves the slots of one master to another, one at a time and while clients use them, like resharding. It moves only
// slots with keys. Each slot stays in each intermediate state for stepPause: importing, half moved, empty. Move returns the
// number of moved slots.
func (c *Cluster) Move(t testing.TB, from, to int) int {
	t.Helper()
	moved := map[string]bool{}
	keys, _ := c.nodes[from].Do(t, "KEYS", "*").([]any)
	for _, key := range keys {
		slot := fmt.Sprint(c.nodes[from].Do(t, "CLUSTER", "KEYSLOT", fmt.Sprint(key)))
		if !moved[slot] {
			c.moveSlot(t, slot, from, to)
			moved[slot] = true
		}
	}
	return len(moved)
}

// stepPause is the time that a slot stays in each state of its move.
const stepPause = 20 * time.Millisecond

// moveSlot moves one slot by the steps in the documentation of CLUSTER SETSLOT.
func (c *Cluster) moveSlot(t testing.TB, slot string, from, to int) {
	t.Helper()
	source, target := c.nodes[from], c.nodes[to]
	target.Do(t, "CLUSTER", "SETSLOT", slot, "IMPORTING", c.ids[from])
	source.Do(t, "CLUSTER", "SETSLOT", slot, "MIGRATING", c.ids[to])
	host, port, _ := strings.Cut(target.Addr, ":")
	for {
		time.Sleep(stepPause)
		keys, _ := source.Do(t, "CLUSTER", "GETKEYSINSLOT", slot, "1").([]any)
		if len(keys) == 0 {
			break
		}
		source.Do(t, "MIGRATE", host, port, fmt.Sprint(keys[0]), "0", strconv.FormatInt(settleLimit.Milliseconds(), 10))
	}
	for _, n := range []*redisserver.Server{target, source, c.nodes[masters-from-to]} {
		n.Do(t, "CLUSTER", "SETSLOT", slot, "NODE", c.ids[to])
	}
}

// Keys returns the number of keys on a master.
func (c *Cluster) Keys(t testing.TB, node int) int {
	t.Helper()
	n, _ := c.nodes[node].Do(t, "DBSIZE").(int64)
	return int(n)
}

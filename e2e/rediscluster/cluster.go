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

// StartCluster starts a cluster, with the slots in three equal parts, and waits until all nodes agree on it. It ends with the
// test.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{}
	for i := range c.nodes {
		// The port among the nodes would be 10,000 above the other, where anybody may be.
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
	await(t, "cluster of one mind", func() bool {
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

// Move moves every slot of a master in which there is a key to another one, in the midst of use and one after another, as
// resharding does it. Each slot stays for a moment in each of the states on the way: opened, half moved, empty. It returns how
// many slots it has moved.
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

// pause is how long a slot is left in each state.
const pause = 20 * time.Millisecond

// moveSlot does what the documentation of CLUSTER SETSLOT demands.
func (c *Cluster) moveSlot(t testing.TB, slot string, from, to int) {
	t.Helper()
	source, target := c.nodes[from], c.nodes[to]
	target.Do(t, "CLUSTER", "SETSLOT", slot, "IMPORTING", c.ids[from])
	source.Do(t, "CLUSTER", "SETSLOT", slot, "MIGRATING", c.ids[to])
	host, port, _ := strings.Cut(target.Addr, ":")
	for {
		time.Sleep(pause)
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

// Keys counts the keys of a master.
func (c *Cluster) Keys(t testing.TB, node int) int {
	t.Helper()
	n, _ := c.nodes[node].Do(t, "DBSIZE").(int64)
	return int(n)
}

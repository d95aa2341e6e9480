package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/loopback"
	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/storetest"
)

const slots = 16384

// startCluster starts three masters that share the slots evenly.
func startCluster(t *testing.T) []*server {
	t.Helper()
	nodes := make([]*server, 3)
	var firstBus string
	for i := range nodes {
		// The default bus port is 10,000 above the port, and may be in use. The long timeout is for a busy machine, on which a
		// node may not answer for seconds.
		bus := strconv.Itoa(loopback.FreePort(t))
		nodes[i] = newServer(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "15000", "--cluster-port", bus)
		if i == 0 {
			firstBus = bus
		}
		nodes[i].start()
	}
	for i, node := range nodes {
		node.awaitAnswer()
		node.do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/3), strconv.Itoa((i+1)*slots/3-1))
		node.do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		if i > 0 {
			node.do("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(nodes[0].port), firstBus)
		}
	}
	for _, node := range nodes {
		node.await("a whole cluster", func() bool {
			info := node.do("CLUSTER", "INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return nodes
}

// homeNode returns the index of the node that has a slot at first.
func homeNode(nodes []*server, slot int) int {
	for i := range nodes {
		if slot < (i+1)*slots/3 {
			return i
		}
	}
	panic("no such slot")
}

func TestCluster(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t)
	config := Config{URLs: []string{nodes[0].url(), nodes[1].url()}}

	t.Run("contract", func(t *testing.T) {
		storetest.RunShared(t, func(t *testing.T) (a, b session.SharedStore) { return open(t, config), open(t, config) })
	})
	t.Run("one url", func(t *testing.T) {
		s := open(t, Config{URLs: []string{nodes[2].url()}})
		for range 20 {
			if err := callAll(t, s); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("least rights", func(t *testing.T) {
		for _, node := range nodes {
			allow(node, append(rights, clusterRights...)...)
		}
		s := open(t, asApp(nodes[0]))
		for range 20 {
			if err := callAll(t, s); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("moving slot, reads and writes", func(t *testing.T) { moveWhileUsed(t, nodes, config) })
	t.Run("moving slot, leases", func(t *testing.T) { moveWhileHeld(t, nodes, config) })
	t.Run("moving slot, untracked read", func(t *testing.T) { moveWhileRead(t, nodes, config) })
	t.Run("lost node", func(t *testing.T) {
		s := open(t, config)
		changes := watch(s)
		nodes[1].kill()
		await(t, "a call of changed with nil", func() bool { return changes.resets() > 0 })
	})
}

// move moves the slot of a session to the next node and back. It calls stage "before"
// the keys move, "between" the moves of the keys and of the slot, and "after" both.
func move(t *testing.T, nodes []*server, key string, stage func(string)) {
	t.Helper()
	n := nodes[0].do("CLUSTER", "KEYSLOT", key)
	slot, err := strconv.Atoi(n)
	if err != nil {
		t.Fatal(err)
	}
	from, to := nodes[homeNode(nodes, slot)], nodes[(homeNode(nodes, slot)+1)%3]
	for range 2 {
		fromID, toID := from.do("CLUSTER", "MYID"), to.do("CLUSTER", "MYID")
		to.do("CLUSTER", "SETSLOT", n, "IMPORTING", fromID)
		from.do("CLUSTER", "SETSLOT", n, "MIGRATING", toID)
		stage("before")
		for {
			keys := strings.Fields(from.do("CLUSTER", "GETKEYSINSLOT", n, "100"))
			if len(keys) == 0 {
				break
			}
			from.do(append([]string{"MIGRATE", "127.0.0.1", strconv.Itoa(to.port), "", "0", "5000", "KEYS"}, keys...)...)
		}
		stage("between")
		for _, node := range []*server{to, from} {
			node.do("CLUSTER", "SETSLOT", n, "NODE", toID)
		}
		stage("after")
		from, to = to, from
	}
}

// moveWhileUsed moves a slot while a writer replaces an item and a reader reads it. Each
// stage of the move lasts until both have made more than 20 calls.
func moveWhileUsed(t *testing.T, nodes []*server, config Config) {
	writer, reader := open(t, config), open(t, config)
	changes := watch(reader)
	id := newID()
	mustCreate(t, writer, id, newItem(1, "1"))
	ctx, stop := context.WithCancel(t.Context())
	traffic := &counter{version: 1}
	var done sync.WaitGroup
	defer func() { stop(); done.Wait() }()
	done.Go(func() { traffic.write(ctx, t, writer, id) })
	done.Go(func() { traffic.read(ctx, t, reader, id) })
	move(t, nodes, writer.keys.item(id), func(stage string) {
		w, r := traffic.progress()
		await(t, "writes and reads "+stage+" the move", func() bool {
			w2, r2 := traffic.progress()
			return w2 > w+20 && r2 > r+20
		})
	})
	stop()
	done.Wait()
	before := changes.count(id)
	mustReplace(t, writer, id, newItem(traffic.version+1, "end"))
	await(t, "the push after the move", func() bool { return changes.count(id) > before })
	wantView(t, reader, id, "end")
}

// moveWhileHeld: while the slot moves, the holder of a lease keeps it, and can replace
// and delete the item.
func moveWhileHeld(t *testing.T, nodes []*server, config Config) {
	s := open(t, config)
	id, other, version := newID(), newID(), uint64(1)
	mustCreate(t, s, id, newItem(version, "value"))
	lease := mustAcquire(t, s, id, version)
	move(t, nodes, s.keys.item(id), func(string) {
		version++
		lease.Beat++
		mustReplace(t, s, id, newItem(version, "value"))
		if err := s.Beat(t.Context(), id, lease); err != nil {
			t.Error(err)
		}
		if _, err := s.Acquire(t.Context(), id, version, newHolder(), session.Lease{}); !errors.Is(err, session.ErrLeased) {
			t.Errorf("Acquire of a held lease: got error %v, want ErrLeased", err)
		}
	})
	mustCreate(t, s, other, newItem(1, "value"))
	move(t, nodes, s.keys.item(other), func(stage string) {
		switch stage {
		case "between": // without a lease, one of the two keys is missing
			if err := s.Delete(t.Context(), other); err != nil {
				t.Error(err)
			}
		case "after":
			_ = s.Create(t.Context(), other, newItem(1, "value"))
		}
	})
	if err := s.DeleteAt(t.Context(), id, version, lease.Holder); err != nil {
		t.Error(err)
	}
}

// moveWhileRead: an item that is read between the moves is tracked by neither node, so
// the store reports it as changed without a push.
func moveWhileRead(t *testing.T, nodes []*server, config Config) {
	reader, writer := open(t, config), open(t, config)
	changes := watch(reader)
	id, version := newID(), uint64(1)
	mustCreate(t, writer, id, newItem(version, "1"))
	move(t, nodes, writer.keys.item(id), func(stage string) {
		if stage != "between" {
			return
		}
		before := changes.count(id)
		wantView(t, reader, id, strconv.FormatUint(version, 10))
		version++
		mustReplace(t, writer, id, newItem(version, strconv.FormatUint(version, 10)))
		await(t, "a call of changed with nil", func() bool { return changes.count(id) > before })
		wantView(t, reader, id, strconv.FormatUint(version, 10))
	})
}

// counter runs a writer that raises the version of an item, and a reader. The reader may
// see a write late, but never sees a lower version than before.
type counter struct {
	mu            sync.Mutex
	version       uint64 // last acknowledged
	writes, reads int
}

func (c *counter) progress() (writes, reads int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes, c.reads
}

func (c *counter) write(ctx context.Context, t *testing.T, s *Store, id session.ID) {
	for ctx.Err() == nil {
		next := c.version + 1
		// Without cancellation: a cancelled write may succeed later.
		if err := s.Replace(context.WithoutCancel(ctx), id, newItem(next, strconv.FormatUint(next, 10))); err != nil {
			t.Errorf("Replace: %v", err)
			return
		}
		c.mu.Lock()
		c.version, c.writes = next, c.writes+1
		c.mu.Unlock()
		// A process always reads its own writes.
		if err := s.View(context.WithoutCancel(ctx), id, func(item session.Item) error {
			if item.Version != next {
				return fmt.Errorf("got version %d, want %d", item.Version, next)
			}
			return nil
		}); err != nil {
			t.Errorf("View by the writer: %v", err)
			return
		}
	}
}

func (c *counter) read(ctx context.Context, t *testing.T, s *Store, id session.ID) {
	last := uint64(0)
	for ctx.Err() == nil {
		c.mu.Lock()
		written := c.version
		c.mu.Unlock()
		if err := s.ViewCurrent(context.WithoutCancel(ctx), id, func(item session.Item) error {
			if item.Version < written {
				return fmt.Errorf("got version %d, want at least %d", item.Version, written)
			}
			return nil
		}); err != nil {
			t.Errorf("ViewCurrent: %v", err)
			return
		}
		if err := s.View(context.WithoutCancel(ctx), id, func(item session.Item) error {
			if item.Version < last {
				return fmt.Errorf("got version %d, want at least %d", item.Version, last)
			}
			last = item.Version
			return nil
		}); err != nil {
			t.Errorf("View: %v", err)
			return
		}
		c.mu.Lock()
		c.reads++
		c.mu.Unlock()
	}
}

package caddymodule

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// cookieNames are those of the session cookies of all handlers in the process.
// Sites on one host that differ in the name get each other's cookies from the
// browser, and must not hand them to their apps.
var cookieNames nameRegistry

// nameRegistry counts, because an old and a new configuration overlap when Caddy
// reloads.
type nameRegistry struct {
	mu    sync.Mutex
	uses  map[string]int
	names atomic.Pointer[[]string]
}

func (n *nameRegistry) add(name string) { n.count(name, 1) }

func (n *nameRegistry) remove(name string) { n.count(name, -1) }

func (n *nameRegistry) count(name string, change int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.uses == nil {
		n.uses = map[string]int{}
	}
	n.uses[name] += change
	if n.uses[name] == 0 {
		delete(n.uses, name)
	}
	names := slices.Sorted(maps.Keys(n.uses))
	n.names.Store(&names)
}

// all costs one atomic load. The slice is not to be changed.
func (n *nameRegistry) all() []string {
	if names := n.names.Load(); names != nil {
		return *names
	}
	return nil
}

package caddymodule

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// cookieNames are those of the session cookies of all handlers in the process,
// with the hosts to which browsers send them. Sites on one host that differ in
// the name get each other's cookies from the browser, and must not hand them to
// their apps. On every other host the name is the app's own.
var cookieNames nameRegistry

// cookieUse is a name of a session's cookie where it is in use.
type cookieUse struct {
	name  string
	hosts hosts
}

// nameRegistry counts, because an old and a new configuration overlap when Caddy
// reloads.
type nameRegistry struct {
	mu   sync.Mutex
	uses map[string]cookieUse // by their text
	n    map[string]int
	// index is nil after a change, until the next request needs it.
	index atomic.Pointer[nameIndex]
}

func (n *nameRegistry) add(use cookieUse) { n.count(use, 1) }

func (n *nameRegistry) remove(use cookieUse) { n.count(use, -1) }

func (n *nameRegistry) count(use cookieUse, change int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.uses == nil {
		n.uses, n.n = map[string]cookieUse{}, map[string]int{}
	}
	key := fmt.Sprintf("%q", use)
	n.uses[key] = use
	n.n[key] += change
	if n.n[key] == 0 {
		delete(n.uses, key)
		delete(n.n, key)
	}
	n.index.Store(nil)
}

// current returns the index. It costs one atomic load, unless a configuration
// has just changed.
func (n *nameRegistry) current() *nameIndex {
	if index := n.index.Load(); index != nil {
		return index
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	index := newNameIndex(slices.Collect(maps.Values(n.uses)))
	n.index.Store(index)
	return index
}

// nameIndex finds the names at a host. It does not change.
type nameIndex struct {
	all      []string
	byHost   map[string][]string // by patterns of one host: the names there
	byOthers map[string][]string // by patterns of several: the names in use so
}

func newNameIndex(uses []cookieUse) *nameIndex {
	x := &nameIndex{byHost: map[string][]string{}, byOthers: map[string][]string{}}
	for _, use := range uses {
		x.all = addName(x.all, use.name)
		for _, p := range use.hosts {
			if isExact(p) {
				x.byHost[p] = addName(x.byHost[p], use.name)
			} else {
				x.byOthers[p] = addName(x.byOthers[p], use.name)
			}
		}
	}
	for host, names := range x.byHost {
		x.byHost[host] = x.matching(host, names)
	}
	return x
}

func addName(names []string, more ...string) []string {
	for _, name := range more {
		if !slices.Contains(names, name) {
			names = append(names[:len(names):len(names)], name)
		}
	}
	return names
}

// at returns the names that a browser sends to a host.
func (x *nameIndex) at(host string) []string {
	if names, ok := x.byHost[host]; ok {
		return names
	}
	return x.matching(host, nil)
}

// matching adds to names those of patterns that a host fits.
func (x *nameIndex) matching(host string, names []string) []string {
	for p, more := range x.byOthers {
		switch {
		case !patternsMeet(p, host):
		case names == nil:
			names = more
		default:
			names = addName(names, more...)
		}
	}
	return names
}

// below returns the names at the hosts that get a cookie of a domain.
func (x *nameIndex) below(domain string) (names []string) {
	pattern := domainPattern(domain)
	for _, patterns := range []map[string][]string{x.byHost, x.byOthers} {
		for p, more := range patterns {
			if patternsMeet(pattern, p) {
				names = addName(names, more...)
			}
		}
	}
	return names
}

// otherCookies implements handler.Config.OtherCookies.
func (h *Handler) otherCookies(r *http.Request, domain string) []string {
	index := cookieNames.current()
	if domain != "" {
		return index.below(domain)
	}
	host := normalHost(r.Host)
	if r.Header["X-Forwarded-Host"] != nil {
		trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
		if trusted && normalHost(lastValue(r.Header, "X-Forwarded-Host")) != host {
			// The browser's host is none that a configuration has matched.
			return index.all
		}
	}
	names := index.at(host)
	if h.baseHost != "" && h.baseHost != host {
		names = addName(names, index.at(h.baseHost)...)
	}
	return names
}

// cookieUse returns where the handler's cookie is in use.
func (h *Handler) cookieUse(name string) cookieUse {
	use := cookieUse{name: name, hosts: h.hosts}
	if h.Cookie != nil && h.Cookie.Domain != "" {
		use.hosts = slices.Clone(use.hosts).add(domainPattern(h.Cookie.Domain))
	}
	return use
}

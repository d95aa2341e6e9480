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

// cookieNames has the names of the session cookies of all handlers in the process, with
// the hosts to which browsers send them. A browser sends every cookie of a host to all
// sites on it, and a site must not relay the session cookie of another one to its app. On
// other hosts, the app may use the name itself.
var cookieNames nameRegistry

// cookieUse is the name of a session cookie and the hosts where it is in use.
type cookieUse struct {
	name  string
	hosts hosts
}

// nameRegistry counts the handlers of each use, because the old and the new
// configuration overlap during a reload.
type nameRegistry struct {
	mu   sync.Mutex
	uses map[string]cookieUse // by its text
	n    map[string]int
	// index is nil after a change. The next request builds it.
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

// current returns the index. It costs one atomic load, except after a change of the
// configuration.
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

// nameIndex maps hosts to names. It is immutable.
type nameIndex struct {
	all      []string
	byHost   map[string][]string // by a pattern that matches one host
	byOthers map[string][]string // by a pattern that matches several hosts
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

// at returns the names of the cookies that a browser sends to a host.
func (x *nameIndex) at(host string) []string {
	if names, ok := x.byHost[host]; ok {
		return names
	}
	return x.matching(host, nil)
}

// matching adds the names of the patterns that match a host.
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

// below returns the names in use at the hosts that receive a cookie of a domain.
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
			// No host matcher has seen the host that the browser used.
			return index.all
		}
	}
	names := index.at(host)
	if h.baseHost != "" && h.baseHost != host {
		names = addName(names, index.at(h.baseHost)...)
	}
	return names
}

// cookieUse returns the handler's own entry for cookieNames.
func (h *Handler) cookieUse(name string) cookieUse {
	use := cookieUse{name: name, hosts: h.hosts}
	if h.Cookie != nil && h.Cookie.Domain != "" {
		use.hosts = slices.Clone(use.hosts).add(domainPattern(h.Cookie.Domain))
	}
	return use
}

package caddymodule

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// handlerHosts has the hosts from which requests can reach each handler in a route, and
// whether a request for its callback can. The keys are the JSON of the handlers; handlers
// with equal JSON count as one.
type handlerHosts struct {
	hosts    map[string]hosts
	callback map[string]bool
	// early has the directives that read the user's placeholders before a handler.
	early map[string]bool
}

// enclosure has the conditions of the routes around a handler.
type enclosure struct {
	hosts hosts
	paths pathMatchers
	// userMayBeSet reports that an earlier handler may set the user's placeholders.
	userMayBeSet bool
}

// routeHosts returns the hosts whose requests can reach the handler, according to the
// host matchers of the enclosing routes. It finds the handler in its route by its JSON,
// and must be called before the handler's modules are loaded. It returns nil if it does
// not find the handler: in a named route, or in a route of another module.
func (h *Handler) routeHosts(server *caddyhttp.Server, app *App) hosts {
	if server == nil {
		return nil
	}
	own := h.text()
	lists := []caddyhttp.RouteList{server.Routes}
	if server.Errors != nil {
		lists = append(lists, server.Errors.Routes)
	}
	for _, routes := range lists {
		found := app.hostsIn(routes)
		if hosts := found.hosts[own]; hosts != nil {
			h.callbackUnrouted = !found.callback[own]
			return slices.Clip(hosts) // equal handlers share it
		}
	}
	return nil
}

// firstUnloaded returns the index of the route that Caddy is provisioning, or -1: the first
// one that still has the JSON of its handlers.
func firstUnloaded(routes caddyhttp.RouteList) int {
	return slices.IndexFunc(routes, func(r caddyhttp.Route) bool { return len(r.HandlersRaw) > 0 })
}

// hostsIn searches the route that Caddy is provisioning. It searches each route once,
// because a route may have many handlers.
func (a *App) hostsIn(routes caddyhttp.RouteList) handlerHosts {
	i := firstUnloaded(routes)
	if i < 0 {
		return handlerHosts{}
	}
	route := &routes[i]
	found, ok := a.routes[route]
	if !ok {
		found = handlerHosts{hosts: map[string]hosts{}, callback: map[string]bool{}, early: map[string]bool{}}
		early, known := earlyReadersBefore(routes[:i])
		reached := enclosure{
			hosts:        matcherHosts(route.MatcherSets, route.MatcherSetsRaw),
			paths:        pathMatchers{}.within(loadedPaths(route.MatcherSets)),
			userMayBeSet: !known,
		}
		found.walkList(route.HandlersRaw, reached, early)
		a.routes[route] = found
	}
	return found
}

// matcherHosts returns the hosts that matchers let through. The matchers of a server's
// routes are already loaded; others are JSON.
func matcherHosts(loaded caddyhttp.MatcherSets, raw caddyhttp.RawMatcherSets) hosts {
	if len(loaded) == 0 && len(raw) == 0 {
		return anyHost
	}
	var out hosts
	for _, set := range loaded {
		reached := anyHost
		for _, matcher := range set {
			if m, ok := matcher.(*caddyhttp.MatchHost); ok {
				reached = reached.within(namedHosts(*m))
			} else if m, ok := matcher.(caddyhttp.MatchHost); ok {
				reached = reached.within(namedHosts(m))
			}
		}
		out = out.add(reached...)
	}
	for _, set := range raw {
		var m caddyhttp.MatchHost
		if json.Unmarshal(set["host"], &m) != nil || m.Provision(caddy.Context{}) != nil {
			return anyHost
		}
		out = out.add(namedHosts(m)...)
	}
	return out
}

// namedHosts returns the hosts of a matcher. A name with a placeholder that only a
// request defines may be any host.
func namedHosts(m caddyhttp.MatchHost) hosts {
	var out hosts
	repl := caddy.NewReplacer()
	for _, host := range m {
		host = repl.ReplaceKnown(host, "")
		if strings.ContainsAny(host, "{}") {
			return anyHost
		}
		out = out.add(normalHost(host))
	}
	return out
}

// walk visits every value, because handlers of any module may contain routes.
func (found handlerHosts) walk(raw json.RawMessage, reached enclosure) {
	if !hasDirective(raw) {
		return
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil {
		found.walkList(list, reached, nil)
		return
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil {
		return
	}
	if string(object["handler"]) == `"`+directive+`"` {
		found.add(raw, reached)
		return
	}
	if object["handle"] != nil { // a route
		var sets caddyhttp.RawMatcherSets
		if json.Unmarshal(object["match"], &sets) == nil {
			reached.hosts = reached.hosts.within(matcherHosts(nil, sets))
			reached.paths = reached.paths.within(rawPaths(sets))
		}
	}
	for _, v := range object {
		found.walk(v, reached)
	}
}

// walkList visits handlers or routes in the order in which requests pass them. The early
// directives run before the list.
func (found handlerHosts) walkList(list []json.RawMessage, reached enclosure, early []string) {
	for _, v := range list {
		if hasDirective(v) {
			found.addEarly(early)
			found.walk(v, reached)
		}
		if !reached.userMayBeSet {
			directives, known := earlyReadersIn(v)
			early = append(early, directives...)
			reached.userMayBeSet = !known
		}
		if bytes.Contains(v, []byte(`"rewrite"`)) {
			reached.paths.rewritten = true
		}
	}
}

func hasDirective(raw json.RawMessage) bool { return bytes.Contains(raw, []byte(`"`+directive+`"`)) }

// add adds the hosts of a handler under the JSON that the handler itself produces.
func (found handlerHosts) add(raw json.RawMessage, reached enclosure) {
	var h Handler
	if json.Unmarshal(raw, &h) != nil {
		return
	}
	text := h.text()
	found.hosts[text] = found.hosts[text].add(reached.hosts...)
	found.callback[text] = found.callback[text] || reached.paths.admit(h.PathPrefix)
}

// text returns the JSON of a handler, by which it is found in its route. It must be
// called before the handler's modules are loaded.
func (h *Handler) text() string {
	text, err := json.Marshal(h) //nolint:gosec // only compared, and never leaves the process
	if err != nil {
		return "" // texts, numbers and valid JSON cannot fail
	}
	return string(text)
}

// urlHost returns the host of a URL, or "" if it has none.
func urlHost(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return normalHost(u.Host)
}

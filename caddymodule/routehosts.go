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

// handlerHosts are the hosts of the requests that can reach each handler of a
// route, by the handler's JSON. Equal handlers at several places count as one,
// which makes no difference.
type handlerHosts map[string]hosts

// routeHosts returns the hosts of the requests that can reach a handler, as the
// host matchers of the routes around it say. It is called before the handler's
// modules are loaded: the handler is found in its route by its JSON.
func (h *Handler) routeHosts(ctx caddy.Context, app *App) hosts {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return anyHost
	}
	own, err := json.Marshal(h)
	if err != nil {
		return anyHost
	}
	lists := []caddyhttp.RouteList{server.Routes}
	if server.Errors != nil {
		lists = append(lists, server.Errors.Routes)
	}
	for _, routes := range lists {
		if found := app.hostsIn(firstUnloaded(routes))[string(own)]; found != nil {
			return slices.Clip(found) // it is shared
		}
	}
	return anyHost // a named route, or one of another module's
}

// firstUnloaded returns the route that is provisioned at the time, or nil: the
// first one that still has the JSON of its handlers.
func firstUnloaded(routes caddyhttp.RouteList) *caddyhttp.Route {
	for i := range routes {
		if len(routes[i].HandlersRaw) > 0 {
			return &routes[i]
		}
	}
	return nil
}

// hostsIn searches each route once, because a route may hold many handlers.
func (a *App) hostsIn(route *caddyhttp.Route) handlerHosts {
	if route == nil {
		return nil
	}
	found, ok := a.routes[route]
	if !ok {
		found = handlerHosts{}
		reached := matcherHosts(route.MatcherSets, route.MatcherSetsRaw)
		for _, raw := range route.HandlersRaw {
			found.walk(raw, reached)
		}
		a.routes[route] = found
	}
	return found
}

// matcherHosts returns the hosts that matchers let through. Those of a server's
// routes are loaded by then, others are still JSON.
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

// namedHosts are the hosts of a matcher. What holds a placeholder that is known
// at a request only may be any.
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

// walk goes through every value, because handlers of any module may hold routes.
func (found handlerHosts) walk(raw json.RawMessage, reached hosts) {
	if !bytes.Contains(raw, []byte(`"`+directive+`"`)) {
		return
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil {
		for _, v := range list {
			found.walk(v, reached)
		}
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
			reached = reached.within(matcherHosts(nil, sets))
		}
	}
	for _, v := range object {
		found.walk(v, reached)
	}
}

// add notes a handler's hosts, by the JSON that the handler itself has.
func (found handlerHosts) add(raw json.RawMessage, reached hosts) {
	var h Handler
	if json.Unmarshal(raw, &h) != nil {
		return
	}
	if text, err := json.Marshal(&h); err == nil {
		found[string(text)] = found[string(text)].add(reached...)
	}
}

// urlHost returns the host of a URL, or "" if there is none.
func urlHost(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return normalHost(u.Host)
}

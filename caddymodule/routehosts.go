package caddymodule

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// routeHosts returns the hosts of the requests that can reach a handler, as the
// host matchers of the routes around it say. It is called first thing when the
// handler is provisioned: the route of the server that is provisioned at the time
// is the first one that still has its JSON, and in there the handler is found by
// its own.
func (h *Handler) routeHosts(ctx caddy.Context) hosts {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return anyHost
	}
	own, err := json.Marshal(h)
	if err != nil {
		return anyHost
	}
	search := hostSearch{own: own}
	lists := []caddyhttp.RouteList{server.Routes}
	if server.Errors != nil {
		lists = append(lists, server.Errors.Routes)
	}
	for _, routes := range lists {
		for i := range routes {
			if len(routes[i].HandlersRaw) == 0 {
				continue
			}
			reached := matcherHosts(routes[i].MatcherSets, routes[i].MatcherSetsRaw)
			for _, raw := range routes[i].HandlersRaw {
				search.walk(raw, reached)
			}
			break
		}
		if search.found != nil {
			return search.found
		}
	}
	return anyHost // a named route, or one of another module's
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

// hostSearch looks for a handler in JSON.
type hostSearch struct {
	own   []byte // the handler, as JSON
	found hosts
}

// walk goes through every value, because handlers of any module may hold routes.
func (s *hostSearch) walk(raw json.RawMessage, reached hosts) {
	if !bytes.Contains(raw, []byte(`"`+directive+`"`)) {
		return
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil {
		for _, v := range list {
			s.walk(v, reached)
		}
		return
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil {
		return
	}
	if string(object["handler"]) == `"`+directive+`"` {
		s.compare(raw, reached)
		return
	}
	if object["handle"] != nil { // a route
		var sets caddyhttp.RawMatcherSets
		if json.Unmarshal(object["match"], &sets) == nil {
			reached = reached.within(matcherHosts(nil, sets))
		}
	}
	for _, v := range object {
		s.walk(v, reached)
	}
}

// compare notes the hosts of a handler like ours. Equal ones at several places
// count as one, which makes no difference.
func (s *hostSearch) compare(raw json.RawMessage, reached hosts) {
	var other Handler
	if json.Unmarshal(raw, &other) != nil {
		return
	}
	if text, err := json.Marshal(&other); err == nil && bytes.Equal(text, s.own) {
		s.found = s.found.add(reached...)
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

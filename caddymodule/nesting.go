package caddymodule

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// nesting finds directives within the reach of others: a request that reaches the inner
// directive has passed the outer one. Directives are known by their JSON.
type nesting struct {
	pairs  map[nestedPair]nestedArea
	logins map[string]sharing // of the directives that are provisioned
	found  map[*caddyhttp.Route][]outerDirective
	named  map[*caddyhttp.Server]map[string]routeJSON
	// warnings has the pairs that may be meant so.
	warnings []nestedWarning
}

// nestedPair has the JSON of two directives.
type nestedPair struct{ outer, inner string }

// nestedArea is the part of the site in which a pair has its effect.
type nestedArea struct {
	// all says that every request of the inner directive needs both sessions.
	// Otherwise only some do, or rewrites may keep them apart.
	all   bool
	paths []string // nil if unknown
}

// outerDirective is a directive that all requests at a position have passed.
type outerDirective struct {
	text  string // JSON
	match caddyhttp.RawMatcherSets
	group string // of its route, in the list that is searched
}

// position is a place in the routes.
type position struct {
	passed []outerDirective
	paths  pathMatchers
	depth  int // of named routes
}

// routeJSON is a route before it is loaded.
type routeJSON struct {
	Group    string                   `json:"group"`
	Match    caddyhttp.RawMatcherSets `json:"match"`
	Handle   []json.RawMessage        `json:"handle"`
	Terminal bool                     `json:"terminal"`
	matches  bool                     // it has matchers
}

// maxNamedDepth bounds named routes that invoke one another.
const maxNamedDepth = 8

func newNesting() *nesting {
	return &nesting{
		pairs: map[nestedPair]nestedArea{}, logins: map[string]sharing{},
		found: map[*caddyhttp.Route][]outerDirective{}, named: map[*caddyhttp.Server]map[string]routeJSON{},
	}
}

// search searches the route that Caddy is provisioning, unless that is done. It must be
// called before a handler of the route loads its modules.
func (n *nesting) search(server *caddyhttp.Server) {
	if server == nil {
		return
	}
	if n.named[server] == nil {
		// Caddy provisions named routes last, and in any order.
		n.named[server] = map[string]routeJSON{}
		for name, route := range server.NamedRoutes {
			n.named[server][name] = routeJSON{Match: route.MatcherSetsRaw, Handle: handlersJSON(route)}
		}
		for _, route := range n.named[server] {
			n.routes(server, []routeJSON{route}, position{})
		}
	}
	n.searchList(server, server.Routes)
	if server.Errors != nil {
		n.searchList(server, server.Errors.Routes)
	}
}

// searchList searches the routes of a list that are loaded or being loaded.
func (n *nesting) searchList(server *caddyhttp.Server, routes caddyhttp.RouteList) {
	next := firstUnloaded(routes)
	if next >= 0 {
		if _, done := n.found[&routes[next]]; done {
			return
		}
	}
	var list routeListState
	for i := range routes {
		r := &routes[i]
		route := routeJSON{Group: r.Group, Terminal: r.Terminal, matches: len(r.MatcherSets)+len(r.MatcherSetsRaw) > 0}
		if _, done := n.found[r]; !done {
			at := position{passed: list.enter(route)}
			at.paths = at.paths.within(loadedPaths(r.MatcherSets))
			n.found[r] = n.handlers(server, handlersJSON(r), at)
		}
		if i == next {
			return
		}
		list.leave(route, n.found[r])
	}
}

// handlersJSON returns the handlers of a route. Of loaded ones it returns those that may
// lead to a named route: a route with a directive is searched before it is loaded.
func handlersJSON(r *caddyhttp.Route) (list []json.RawMessage) {
	for _, h := range r.Handlers {
		var value any
		switch h := h.(type) {
		case *caddyhttp.Subroute:
			value = map[string]any{"handler": "subroute", "routes": loadedRoutes(h.Routes)}
		case *caddyhttp.Invoke:
			value = map[string]any{"handler": "invoke", "name": h.Name}
		case interface {
			Rewrite(*http.Request, *caddy.Replacer) bool
		}:
			value = map[string]any{"handler": "rewrite"}
		default:
			continue
		}
		if raw, err := json.Marshal(value); err == nil {
			list = append(list, raw)
		}
	}
	return append(list, r.HandlersRaw...)
}

// loadedRoutes returns loaded routes as before, with matchers for paths only.
func loadedRoutes(routes caddyhttp.RouteList) (list []routeJSON) {
	for i := range routes {
		r := &routes[i]
		route := routeJSON{Group: r.Group, Terminal: r.Terminal, Handle: handlersJSON(r)}
		if len(r.MatcherSets) > 0 {
			route.Match = caddyhttp.RawMatcherSets{{}}
			if paths, err := json.Marshal(loadedPaths(r.MatcherSets)); err == nil {
				route.Match[0]["path"] = paths
			}
		}
		list = append(list, route)
	}
	return list
}

// routeListState has the directives that all requests have passed which reach the next
// route of a list.
type routeListState struct {
	passed []outerDirective
	groups []string
}

// enter returns the directives before a route. Only one route of a group is run.
func (s *routeListState) enter(route routeJSON) []outerDirective {
	return slices.DeleteFunc(slices.Clone(s.passed), func(o outerDirective) bool {
		return route.Group != "" && o.group == route.Group
	})
}

// leave adds the directives of a route, if all requests that reach the next route have
// passed it.
func (s *routeListState) leave(route routeJSON, found []outerDirective) {
	always := !route.matches && !route.Terminal && (route.Group == "" || !slices.Contains(s.groups, route.Group))
	s.groups = append(s.groups, route.Group)
	if !always {
		return
	}
	for _, o := range found {
		o.group = route.Group
		s.passed = append(s.passed, o)
	}
}

// routes searches a list of routes. It returns the directives that all requests have
// passed which leave the list.
func (n *nesting) routes(server *caddyhttp.Server, routes []routeJSON, at position) []outerDirective {
	list := routeListState{}
	for _, route := range routes {
		route.matches = route.matches || len(route.Match) > 0
		inner := at
		inner.passed = slices.Concat(at.passed, list.enter(route))
		inner.paths = inner.paths.within(rawPaths(route.Match))
		list.leave(route, n.handlers(server, route.Handle, inner))
		at.paths.rewritten = at.paths.rewritten || rewrites(route.Handle...)
	}
	return list.passed
}

func rewrites(handlers ...json.RawMessage) bool {
	return slices.ContainsFunc(handlers, func(raw json.RawMessage) bool { return bytes.Contains(raw, []byte(`"rewrite"`)) })
}

// handlers searches the handlers of a route, each of which wraps the next.
func (n *nesting) handlers(server *caddyhttp.Server, list []json.RawMessage, at position) (found []outerDirective) {
	for _, raw := range list {
		more := n.handler(server, raw, at)
		found = append(found, more...)
		at.passed = slices.Concat(at.passed, more)
		at.paths.rewritten = at.paths.rewritten || rewrites(raw)
	}
	return found
}

func (n *nesting) handler(server *caddyhttp.Server, raw json.RawMessage, at position) []outerDirective {
	if !mayHaveDirective(raw) {
		return nil
	}
	var h struct {
		Handler string `json:"handler"`
	}
	if json.Unmarshal(raw, &h) != nil {
		return nil
	}
	switch h.Handler {
	case directive:
		return n.directive(raw, at)
	case "subroute":
		var sub struct {
			Routes []routeJSON                  `json:"routes"`
			Errors struct{ Routes []routeJSON } `json:"errors"`
		}
		if json.Unmarshal(raw, &sub) != nil {
			return nil
		}
		n.routes(server, sub.Errors.Routes, at)
		return n.routes(server, sub.Routes, at)
	case "invoke":
		var invoke caddyhttp.Invoke
		if json.Unmarshal(raw, &invoke) != nil || at.depth == maxNamedDepth {
			return nil
		}
		at.depth++
		return n.routes(server, []routeJSON{n.named[server][invoke.Name]}, at)
	}
	n.others(server, raw, at)
	return nil
}

// others searches a value of a module that is not known here, because any may contain
// routes.
func (n *nesting) others(server *caddyhttp.Server, raw json.RawMessage, at position) {
	if !mayHaveDirective(raw) {
		return
	}
	var routes []routeJSON
	if json.Unmarshal(raw, &routes) == nil && slices.ContainsFunc(routes, func(r routeJSON) bool { return r.Handle != nil }) {
		n.routes(server, routes, at)
		return
	}
	var list []json.RawMessage
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &list) != nil && json.Unmarshal(raw, &object) != nil {
		return
	}
	for _, v := range object {
		list = append(list, v)
	}
	for _, v := range list {
		n.others(server, v, at)
	}
}

func mayHaveDirective(raw json.RawMessage) bool {
	return bytes.Contains(raw, []byte(`"`+directive+`"`)) || bytes.Contains(raw, []byte(`"invoke"`))
}

// directive adds the pairs of a directive with those around it.
func (n *nesting) directive(raw json.RawMessage, at position) []outerDirective {
	var h Handler
	if json.Unmarshal(raw, &h) != nil {
		return nil
	}
	text := h.text()
	constraints := at.paths.within(rawPaths(h.MatchRaw)).all
	for _, outer := range at.passed {
		if outer.match != nil && !covers(outer.match, constraints) {
			continue
		}
		area := nestedArea{all: outer.match == nil && h.MatchRaw == nil && h.OptionalRaw == nil}
		if len(constraints) > 0 {
			area.paths = constraints[len(constraints)-1]
		}
		pair := nestedPair{outer.text, text}
		if !n.pairs[pair].all {
			n.pairs[pair] = area
		}
	}
	return []outerDirective{{text: text, match: h.MatchRaw}}
}

// covers reports whether one of the matcher sets certainly matches all paths of one of
// the matchers around a directive.
func covers(sets caddyhttp.RawMatcherSets, constraints []caddyhttp.MatchPath) bool {
	return slices.ContainsFunc(sets, func(set caddy.ModuleMap) bool {
		var patterns caddyhttp.MatchPath
		if len(set) != 1 || json.Unmarshal(set["path"], &patterns) != nil {
			return false
		}
		covered := func(path string) bool {
			return slices.ContainsFunc(patterns, func(pattern string) bool { return coversPath(pattern, path) })
		}
		return covered("/*") || slices.ContainsFunc(constraints, func(paths caddyhttp.MatchPath) bool {
			return !slices.ContainsFunc(paths, func(path string) bool { return !covered(path) })
		})
	})
}

// coversPath reports whether a pattern matches all paths of another one, where that is
// easy to see.
func coversPath(pattern, path string) bool {
	pattern, path = strings.ToLower(pattern), strings.ToLower(path)
	prefix, ok := strings.CutSuffix(pattern, "*")
	return pattern == path || pattern == "*" || ok && !strings.ContainsAny(prefix, "*%") && strings.HasPrefix(path, prefix)
}

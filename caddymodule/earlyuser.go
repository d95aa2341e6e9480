package caddymodule

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// earlyReaders are handlers of Caddy that replace placeholders while a request passes, and
// set no user. The values are the names of their directives, or "" for handlers that
// replace none, or only later.
var earlyReaders = map[string]string{
	"headers": "header", "static_response": "redir or respond", "rewrite": "rewrite, method or uri", "vars": "vars or root",
	"encode": "", "tracing": "", "log_append": "", "request_body": "", "map": "",
}

// earlyReader returns the directive of a handler that reads the user's placeholders while
// a request passes, or "". It reports false if the handler may set the user itself, or may
// contain other handlers.
func earlyReader(name string, raw []byte) (directive string, ok bool) {
	directive, ok = earlyReaders[name]
	switch {
	case !ok, bytes.Contains(raw, []byte(`"`+userPrefix)), name == "map" && bytes.Contains(raw, []byte(userPrefix)):
		return "", false // the user is a key of vars, or a source or destination of map
	case !bytes.Contains(raw, []byte(`{`+userPrefix)), bytes.Contains(raw, []byte(`"deferred":true`)), bytes.Contains(raw, []byte(`"require":`)):
		return "", true // header sets deferred fields with the answer
	}
	return directive, true
}

// earlyReadersIn returns the directives of a handler, or of a route that has only handlers
// of earlyReaders. It reports false for any other JSON.
func earlyReadersIn(raw json.RawMessage) (directives []string, ok bool) {
	var object struct {
		Handler string            `json:"handler"`
		Handle  []json.RawMessage `json:"handle"`
	}
	if json.Unmarshal(raw, &object) != nil {
		return nil, false
	}
	if object.Handle == nil {
		directive, ok := earlyReader(object.Handler, raw)
		if !ok || directive == "" {
			return nil, ok
		}
		return []string{directive}, true
	}
	for _, inner := range object.Handle {
		found, ok := earlyReadersIn(inner)
		if !ok {
			return nil, false
		}
		directives = append(directives, found...)
	}
	return directives, true
}

// earlyReadersBefore is earlyReadersIn for the routes of a server that are already loaded.
// The routes of a site without a host are not enclosed in one of their own.
func earlyReadersBefore(routes caddyhttp.RouteList) (directives []string, ok bool) {
	for _, route := range routes {
		if route.Terminal {
			continue // its requests do not come to later routes
		}
		for _, h := range route.Handlers {
			module, isModule := h.(caddy.Module)
			raw, err := json.Marshal(h)
			if !isModule || err != nil {
				return directives, false
			}
			directive, ok := earlyReader(strings.TrimPrefix(string(module.CaddyModule().ID), "http.handlers."), raw)
			if !ok {
				return directives, false
			}
			if directive != "" {
				directives = append(directives, directive)
			}
		}
	}
	return directives, true
}

// addEarly adds directives that certainly run before a handler of a route.
func (found handlerHosts) addEarly(directives []string) {
	for _, d := range directives {
		found.early[d] = true
	}
}

// warnOfEarlyUsers logs the directives that read the user's placeholders before the handler
// has set them. The placeholders then stay as they are, or become empty.
func (a *App) warnOfEarlyUsers() {
	for _, found := range a.routes {
		if len(found.early) == 0 {
			continue
		}
		var reached hosts
		for _, h := range found.hosts {
			reached = reached.add(h...)
		}
		a.logger.Warn("a directive that runs before oauth_session reads {"+userPrefix+"…}, which has no value there yet: "+
			"write the directive into a route block, after oauth_session",
			zap.Strings("directives", slices.Sorted(maps.Keys(found.early))), zap.Strings("hosts", reached))
	}
}

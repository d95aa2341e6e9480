package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// pathMatchers are the path matchers of the routes around a handler. Each of them has to
// match. Behind a rewrite, matchers see another path than the browser, and are left out.
type pathMatchers struct {
	all       []caddyhttp.MatchPath
	rewritten bool
}

// within adds the matcher of an inner route, unless it is nil.
func (p pathMatchers) within(inner caddyhttp.MatchPath) pathMatchers {
	if inner != nil && !p.rewritten {
		p.all = append(slices.Clip(p.all), inner)
	}
	return p
}

// admit reports whether a request for the callback may pass.
func (p pathMatchers) admit(prefix string) bool {
	callback := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: cmp.Or(prefix, "/oauth2") + "/callback"}}
	callback = callback.WithContext(context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer()))
	return !slices.ContainsFunc(p.all, func(m caddyhttp.MatchPath) bool {
		match, err := m.MatchWithError(callback)
		return err == nil && !match
	})
}

// loadedPaths returns the paths that loaded matchers let through, or nil if one of the
// sets names none.
func loadedPaths(sets caddyhttp.MatcherSets) (paths caddyhttp.MatchPath) {
	for _, set := range sets {
		before := len(paths)
		for _, matcher := range set {
			if m, ok := matcher.(*caddyhttp.MatchPath); ok {
				paths = append(paths, *m...)
			} else if m, ok := matcher.(caddyhttp.MatchPath); ok {
				paths = append(paths, m...)
			}
		}
		if len(paths) == before {
			return nil
		}
	}
	return paths
}

// rawPaths is loadedPaths for matchers in JSON.
func rawPaths(sets caddyhttp.RawMatcherSets) (paths caddyhttp.MatchPath) {
	for _, set := range sets {
		var m caddyhttp.MatchPath
		if json.Unmarshal(set["path"], &m) != nil || m.Provision(caddy.Context{}) != nil || len(m) == 0 {
			return nil
		}
		paths = append(paths, m...)
	}
	return paths
}

// warnOfUnroutedCallbacks logs each path_prefix whose callback reaches no directive of
// its login. A login would then end at a page that something else serves.
func (a *App) warnOfUnroutedCallbacks() {
	for _, s := range a.shared {
		if !a.isCallbackUnrouted(s) {
			continue
		}
		a.logger.Warn(errCallbackUnrouted.Error(), zap.String("callback", s.place.prefix+"/callback"), zap.String("client_id", s.client), zap.Strings("hosts", s.place.hosts))
	}
}

var errCallbackUnrouted = errors.New("no request for the callback reaches this oauth_session directive, so its logins cannot be completed: the handle, handle_path or route block around it " +
	"does not match the path. Give the directive a path_prefix within the block, and register the callback below it at the authorization server")

// isCallbackUnrouted reports whether no handler gets the callbacks of s.
func (a *App) isCallbackUnrouted(s sharing) bool {
	return s.place.callbackUnrouted && !slices.ContainsFunc(a.shared, s.answersCallbackOf)
}

// answersCallbackOf reports whether a handler answers the callbacks of s.
func (s sharing) answersCallbackOf(other sharing) bool {
	return !other.place.callbackUnrouted && s.sameLogin(other) && s.place.prefix == other.place.prefix && s.hosts.meet(other.hosts)
}

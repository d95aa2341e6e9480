package caddymodule

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/oauth-session/caddy-oauth-session/handler"
)

// fail passes an error to the handle_errors routes of the site. If none of them answers
// this request, it writes the module's own page: Caddy would send an empty one.
func fail(w http.ResponseWriter, r *http.Request, e *handler.Error) error {
	err := publicly(e)
	if errorRouteAnswers(r, err) {
		return err
	}
	e.Write(w, r)
	return nil
}

// publicError is an error whose text error pages may show as {err.message}. The handler
// has already logged its cause.
type publicError struct{ cause *handler.Error }

func (e publicError) Error() string { return e.cause.Detail }

// Unwrap returns the full error.
func (e publicError) Unwrap() error { return e.cause }

// publicly returns an error for Caddy. Error routes show its reference as {err.id}.
func publicly(e *handler.Error) caddyhttp.HandlerError {
	err := caddyhttp.Error(e.Status, publicError{e})
	if e.Reference != "" {
		err.ID = e.Reference
	}
	return err
}

// errorRouteAnswers reports whether an error route of the server would answer the
// request. The error routes of all sites of a server are in one list, and a route may
// match some errors or paths only.
func errorRouteAnswers(r *http.Request, err error) bool { return findErrorRoute(r, err) != nil }

// errorRedirect returns the Location to which an error route redirects the browser, or ""
// if it shows a page. It leaves no placeholders of the error.
func errorRedirect(r *http.Request, err error) string {
	if e, ok := errors.AsType[*handler.Error](err); ok {
		err = publicly(e)
	}
	route := findErrorRoute(r, err)
	if route == nil {
		return ""
	}
	repl := replacerOf(r)
	defer repl.DeleteByPrefix("http.error")
	response, ok := route.(*caddyhttp.StaticResponse) // the directive redir
	if !ok || !strings.HasPrefix(repl.ReplaceAll(string(response.StatusCode), ""), "3") {
		return ""
	}
	return repl.ReplaceAll(response.Headers.Get("Location"), "")
}

// findErrorRoute returns the handler of an error route that would answer a request, or
// nil.
func findErrorRoute(r *http.Request, err error) caddyhttp.MiddlewareHandler {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	repl := replacerOf(r)
	if !ok || repl == nil || server.Errors == nil || len(server.Errors.Routes) == 0 {
		return nil
	}
	if r.Context().Value(caddyhttp.ErrorCtxKey) != nil {
		return nil // Caddy does not handle an error of an error route
	}
	// Error routes see the request as it arrived, and placeholders of the error.
	asked := server.Errors.WithError(r, err)
	asked.URL = originalURL(r)
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		asked.Method, asked.RequestURI = original.Method, original.RequestURI
	}
	url := *asked.URL
	asked.URL = &url
	search := errorRouteSearch{request: asked, repl: repl, groups: map[string]bool{}}
	search.in(server.Errors.Routes)
	if search.found == nil {
		repl.DeleteByPrefix("http.error")
	}
	return search.found
}

// errorRouteSearch looks for the handler that would answer a request. Its request is a
// copy, which rewrites of the routes change.
type errorRouteSearch struct {
	request *http.Request
	repl    *caddy.Replacer
	groups  map[string]bool // groups of which a route has matched
	found   caddyhttp.MiddlewareHandler
}

// in searches a list of routes. It reports whether the search ends there, because a
// handler was found or because the later routes are not reached.
func (s *errorRouteSearch) in(routes caddyhttp.RouteList) (ended bool) {
	for _, route := range routes {
		if route.Group != "" && s.groups[route.Group] {
			continue
		}
		match, err := route.MatcherSets.AnyMatchWithError(s.request)
		if err != nil {
			return true // Caddy would leave the routes, and send an empty page
		}
		if !match {
			continue
		}
		s.groups[route.Group] = true
		for _, h := range route.Handlers {
			if s.handler(h) {
				return true
			}
		}
		if route.Terminal {
			return true
		}
	}
	return false
}

func (s *errorRouteSearch) handler(h caddyhttp.MiddlewareHandler) (ended bool) {
	switch h := h.(type) {
	case *caddyhttp.Subroute:
		return s.in(h.Routes)
	case interface {
		Rewrite(*http.Request, *caddy.Replacer) bool
	}:
		h.Rewrite(s.request, s.repl)
		return false
	case caddy.Module:
		name := strings.TrimPrefix(string(h.CaddyModule().ID), "http.handlers.")
		if slices.Contains(passingHandlers, name) {
			return false
		}
	}
	s.found = h
	return true
}

// passingHandlers are the handlers of Caddy that answer no request themselves.
var passingHandlers = []string{"headers", "vars", "map", "encode", "templates", "tracing", "log_append", "request_body", "intercept"}

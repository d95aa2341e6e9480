// Package caddymodule makes oauth_session a Caddy module: the handler
// http.handlers.oauth_session with its JSON and Caddyfile configuration, the store
// modules, the commands and the admin endpoint.
//
// It expands placeholders, checks options, and shares stores and clients between the old
// and the new configuration when Caddy reloads. Package handler answers the requests.
//
// It never decides about a request's session, and never sends a request to the
// authorization server.
package caddymodule

// Package handler is the HTTP side of oauth_session: it logs browsers in with
// the authorization-code flow, answers the endpoints below the path prefix, and
// relays every other request to the next handler with the session's access
// token.
//
// It is made for Caddy but knows nothing of it: a [Handler] works in any Go
// server, see [Handler.ServeHTTP].
package handler

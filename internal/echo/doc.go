// Package echo is an app for tests that shows exactly what reached it.
//
// It reads requests from the socket itself, since net/http tidies them:
// header lines are kept in the order and spelling of the wire, and anything
// that is not plain, unambiguous HTTP/1.1 (bare line feeds, folded lines, two
// kinds of framing …) is refused with 400 and logged as Malformed, so that a
// proxy that passes such a request on is found out.
//
// Every request is answered with the JSON of [Request]. Some paths behave in
// their own way:
//
//	/u/ws            WebSocket that echoes every frame
//	/u/sse           an event every 100 ms until the client leaves
//	/u/401           401 with WWW-Authenticate: Bearer error="invalid_token"
//	/u/setcookie     sets a cookie of its own and one for each ?name=
//	/u/redirect      302 to ?to=
//	/u/public-cache  an answer that any cache may keep
//	/u/slow?d=2s     answers after d
//	/admin…          the body also holds SECRET-PAGE
package echo

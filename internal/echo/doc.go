// Package echo is an app for tests that returns each request as it arrived.
//
// The server parses requests from the socket itself, since net/http normalises
// them. It keeps header lines in the order and spelling of the wire. It refuses
// ambiguous HTTP/1.1 (bare line feeds, folded lines, two kinds of framing …)
// with 400 and logs the request as Malformed: such an entry reveals a proxy that
// forwards malformed requests.
//
// Every request is answered with the JSON of [Request]. Some paths have a
// special answer:
//
//	/u/ws            WebSocket that echoes every frame
//	/u/sse           an event every 100 ms until the client leaves
//	/u/401           401 with WWW-Authenticate: Bearer error="invalid_token"
//	/u/setcookie     sets the cookie app=1 and one for each ?name=
//	/u/redirect      302 to ?to=
//	/u/public-cache  an answer that any cache may store
//	/u/slow?d=2s     answers after d
//	/admin…          the body also contains SECRET-PAGE
package echo

package handler

import (
	"net/http"
	"strings"
)

// isNavigation reports whether the browser will show the answer as a page: a
// request of a window, by its Sec-Fetch headers (Fetch Metadata), or by Accept
// where a browser sends none. Only such a request may start a login. A script or an
// image could not show the login page, and would leave a login cookie behind with
// every request.
func isNavigation(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	return isDocument(r) && !isPrefetch(r)
}

// isFormPost reports whether the browser sent a form and will show the answer. Its
// body would be lost in a login, so the user gets a page and no redirect.
func isFormPost(r *http.Request) bool {
	return r.Method == http.MethodPost && isDocument(r)
}

// isDocument reports whether the destination of a request is a window. An iframe is
// none: its destination is "iframe", and a login page refuses to be framed.
func isDocument(r *http.Request) bool {
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	if mode != "" || dest != "" {
		return mode == "navigate" && dest == "document"
	}
	return acceptsHTML(r.Header.Values("Accept")) && r.Header.Get("Upgrade") == "" &&
		!strings.EqualFold(r.Header.Get("X-Requested-With"), "XMLHttpRequest")
}

// acceptsHTML looks for the media type itself: scripts send "*/*", which matches
// every type.
func acceptsHTML(accept []string) bool {
	for _, line := range accept {
		for part := range strings.SplitSeq(line, ",") {
			mediaType, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(mediaType), "text/html") {
				return true
			}
		}
	}
	return false
}

// isPrefetch reports whether the browser loads a page that the user has not asked
// for yet. Such a request must not start a login.
func isPrefetch(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Sec-Purpose"), "prefetch") || strings.EqualFold(r.Header.Get("Purpose"), "prefetch")
}

// isWebSocket reports whether a request opens a WebSocket. HTTP/2 and HTTP/3 use an
// extended CONNECT instead (RFC 8441, section 4), which a later proxy turns into an
// upgrade.
func isWebSocket(r *http.Request) bool {
	if r.Method == http.MethodConnect {
		return isExtendedConnect(r)
	}
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// isExtendedConnect recognizes an extended CONNECT: the HTTP/2 server passes the
// pseudo-header on, and the HTTP/3 server puts the protocol into Proto.
func isExtendedConnect(r *http.Request) bool {
	return r.Header.Get(":protocol") == "websocket" || r.Proto == "websocket"
}

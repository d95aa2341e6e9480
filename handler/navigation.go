package handler

import (
	"net/http"
	"strings"
)

// requestKind is the use of the answer to a request. It decides whether the request
// may begin a login, and the form of an error answer.
type requestKind int

const (
	// programRequest is the request of a program. An error is a problem document (RFC
	// 9457).
	programRequest requestKind = iota
	// pageRequest asks for HTML, but not for a window: a frame (unless cookies are
	// partitioned), a prefetch, a fetch that names HTML in Accept. An error is a page;
	// no login begins.
	pageRequest
	// formRequest is a form that the browser sent. The window shows the answer.
	// The form's content would be lost in a login, so no login begins.
	formRequest
	// navigationRequest is a window, or a frame in it, that goes to a URL. It may begin a login.
	navigationRequest
)

// kindOf classifies a request. Every answer of the Handler itself follows this
// classification.
func (h *Handler) kindOf(r *http.Request) requestKind {
	switch window := h.isForWindow(r); {
	case window && isRead(r) && !isPrefetch(r):
		return navigationRequest
	case window && r.Method == http.MethodPost:
		return formRequest
	case acceptsHTML(r.Header["Accept"]):
		return pageRequest
	}
	return programRequest
}

// isNavigation reports whether a request may begin a login. A script or an image
// could not show the login page, and would leave a login cookie behind with every
// request.
func (h *Handler) isNavigation(r *http.Request) bool { return h.kindOf(r) == navigationRequest }

// isForWindow reports whether the browser will show the answer in a window. It
// reads the Sec-Fetch headers (Fetch Metadata), or Accept where a browser sends
// none. A frame is no window, because most login pages refuse to be framed. With
// partitioned cookies it is one: the operator wants the site to be used in frames of
// other sites (decision 0030).
//
// A service worker that passes a navigation on with fetch keeps the mode
// "navigate", but its destination is empty. A page cannot send that mode (Fetch,
// Request constructor), and other programs do not ask for HTML with it.
func (h *Handler) isForWindow(r *http.Request) bool {
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	switch {
	case mode == "" && dest == "":
		return acceptsHTML(r.Header["Accept"]) && r.Header.Get("Upgrade") == "" &&
			!strings.EqualFold(r.Header.Get("X-Requested-With"), "XMLHttpRequest")
	case mode != "navigate":
		return false
	}
	switch dest {
	case "document":
		return true
	case "empty":
		return acceptsHTML(r.Header["Accept"])
	case "iframe", "frame":
		return h.Cookie.Partitioned
	}
	return false
}

func isRead(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead
}

// acceptsHTML looks for the media type itself: scripts send "*/*", which matches
// every type. A weight of zero means that the client does not accept the type (RFC
// 9110, section 12.4.2).
func acceptsHTML(accept []string) bool {
	for _, line := range accept {
		for part := range strings.SplitSeq(line, ",") {
			mediaType, params, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(mediaType), "text/html") && !hasZeroWeight(params) {
				return true
			}
		}
	}
	return false
}

// hasZeroWeight reports whether the parameters of a media range have q=0, in any
// of its forms such as q=0.000.
func hasZeroWeight(params string) bool {
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(param, "=")
		if strings.EqualFold(strings.TrimSpace(name), "q") {
			value = strings.TrimSpace(value)
			return value != "" && strings.Trim(value, "0.") == ""
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

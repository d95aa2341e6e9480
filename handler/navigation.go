package handler

import (
	"net/http"
	"strings"
)

// isNavigation reports whether a person will look at the answer: a request of
// the browser's window itself, by its Sec-Fetch headers (Fetch Metadata), or
// by Accept where a browser sends none. Only such a request may start a login:
// anything else could not show one, and would only leave login cookies behind.
func isNavigation(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	return isDocument(r) && !isPrefetch(r)
}

// isFormPost reports whether a form was sent by a person.
func isFormPost(r *http.Request) bool {
	return r.Method == http.MethodPost && isDocument(r)
}

func isDocument(r *http.Request) bool {
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	if mode != "" || dest != "" {
		return mode == "navigate" && dest == "document"
	}
	return acceptsHTML(r.Header.Values("Accept")) && r.Header.Get("Upgrade") == "" &&
		!strings.EqualFold(r.Header.Get("X-Requested-With"), "XMLHttpRequest")
}

// namesHTML looks for the type itself: "*/*" is what scripts send.
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

// isPrefetch: nobody has asked for this page yet.
func isPrefetch(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Sec-Purpose"), "prefetch") || strings.EqualFold(r.Header.Get("Purpose"), "prefetch")
}

// isWebSocket also sees the HTTP/2 and HTTP/3 form, an extended CONNECT
// (RFC 8441, section 4), which a proxy turns into an upgrade further down.
func isWebSocket(r *http.Request) bool {
	if r.Method == http.MethodConnect {
		return isExtendedConnect(r)
	}
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// isExtendedConnect: HTTP/2 hands down the pseudo-header, HTTP/3 puts the
// protocol into Proto.
func isExtendedConnect(r *http.Request) bool {
	return r.Header.Get(":protocol") == "websocket" || r.Proto == "websocket"
}

package handler

import (
	"net/http"
	"slices"
	"strings"
)

// relayUnprotected passes on a request that needs no session. It removes the
// module's cookies, an Upgrade to any protocol but WebSocket, and the headers that
// some apps read instead of the path. Browsers send the cookies to the whole site,
// and an app that gets one could act as its user on protected paths. No session is
// looked up, so such a request costs no access to the store.
func (h *Handler) relayUnprotected(w http.ResponseWriter, r *http.Request, next Next) error {
	guard := &unprotectedWriter{cookieGuard: h.guardCookies(w, r)}
	c := h.parseCookies(r)
	guard.loop = h.watchLoop(r, &c)
	removeOwnCookies(r, &c)
	guard.removePathHeaders(r)
	// A connection of another protocol, such as h2c, would also reach protected
	// paths.
	removeUpgrade(r, &guard.savedHeaders)
	if r.Header["Http2-Settings"] != nil {
		guard.set("Http2-Settings", nil)
	}
	defer guard.restore()
	err := next.ServeHTTP(guard, r)
	guard.loop.failed(err)
	guard.finish()
	return err
}

// unprotectedWriter guards the answer to a request that needs no session of this
// Handler. The request may need a session of a later Handler: with several
// directives in a row, the first also sees requests that are meant for the later
// ones. Such a later Handler takes the request over with reclaim.
type unprotectedWriter struct {
	cookieGuard
	savedHeaders
}

// reclaim undoes the changes of earlier Handlers that left a request unprotected.
// It puts this Handler's cookies back, and it disables the earlier guards, so that
// this Handler can set its own cookies and guards the app's.
//
// It stops at a Handler that has relayed the request as protected, and returns the
// guard of that Handler. Otherwise it returns nil.
func (h *Handler) reclaim(w http.ResponseWriter, r *http.Request) (outer *cookieGuard) {
	for {
		switch g := w.(type) {
		case *cookieGuard:
			return g
		case *unprotectedWriter:
			g.disabled = true
			h.restoreCookies(r, g.cookies)
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return nil
		}
		w = wrapper.Unwrap()
	}
}

// restoreCookies adds the cookies of this Handler in the given lines to a request.
func (h *Handler) restoreCookies(r *http.Request, lines []string) {
	var own []string
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			pair = strings.Trim(pair, " \t")
			name, _, _ := strings.Cut(pair, "=")
			if name == h.Cookie.Name || strings.HasPrefix(name, loginCookiePrefix) {
				own = append(own, pair)
			}
		}
	}
	if own != nil {
		r.Header["Cookie"] = append(slices.Clip(r.Header["Cookie"]), strings.Join(own, "; "))
	}
}

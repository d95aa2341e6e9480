package handler

import (
	"net/http"
	"slices"
	"strings"
)

// relayBeside passes on a request that needs no session as it is, but without our
// cookies, an Upgrade to other than WebSocket, and headers that some apps take for
// the path. Browsers send our cookies to the whole site, and an app that had one
// could act as its user where a session is needed. No session is looked up.
func (h *Handler) relayUnprotected(w http.ResponseWriter, r *http.Request, next Next) error {
	guard := &unprotectedWriter{cookieGuard: h.guardCookies(w, r), cookies: r.Header["Cookie"]}
	c := h.parseCookies(r)
	removeOwnCookies(r, &c)
	guard.removePathHeaders(r)
	// A tunnel of another protocol would lead to protected paths, too.
	removeUpgrade(r, &guard.savedHeaders)
	if r.Header["Http2-Settings"] != nil {
		guard.set("Http2-Settings", nil)
	}
	defer guard.restore()
	err := next.ServeHTTP(guard, r)
	guard.finish()
	return err
}

// besideGuard guards the answer to a request that needs no session of ours, but
// may need one of a Handler behind this one: of several with matchers, each gets
// the requests of all that stand after it.
type unprotectedWriter struct {
	cookieGuard
	savedHeaders
	// cookies are the header's lines as they came.
	cookies []string
}

// takeOver makes a request ours that Handlers before us have let pass: our
// cookies are put back, those that we set pass, and what the app sets is for us
// to guard. It does not reach past a Handler that the request belongs to, and
// returns that one's guard, or nil.
func (h *Handler) reclaim(w http.ResponseWriter, r *http.Request) (owner *cookieGuard) {
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

// putBack adds our cookies in these lines to a request's.
func (h *Handler) restoreCookies(r *http.Request, lines []string) {
	var ours []string
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			pair = strings.Trim(pair, " \t")
			name, _, _ := strings.Cut(pair, "=")
			if name == h.Cookie.Name || strings.HasPrefix(name, loginCookiePrefix) {
				ours = append(ours, pair)
			}
		}
	}
	if ours != nil {
		r.Header["Cookie"] = append(slices.Clip(r.Header["Cookie"]), strings.Join(ours, "; "))
	}
}

package handler

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// redirectTarget is the target of an answer to a navigation.
type redirectTarget string

const (
	// toPage means that the answer is no redirect: the browser shows a page.
	toPage redirectTarget = ""
	// toSite is another page of this host. A later answer will decide.
	toSite redirectTarget = "site"
	// toLogin is this Handler's login endpoint, after a request with a session.
	toLogin redirectTarget = "login"
	// toLoginFromOpen is the same after a request without a session.
	toLoginFromOpen redirectTarget = "open"
	// toLoginFromError is the login endpoint as the answer to an error.
	toLoginFromError redirectTarget = "error"
	// toOtherHost is any other host, such as the authorization server of a second
	// login.
	toOtherHost redirectTarget = "away"
)

// loopWatch changes the loop count of a browser with the answer to its request. Only
// requests with a count have one, which are those shortly after a landing.
type loopWatch struct {
	count      loopCount
	navigation bool
	line       string // the Set-Cookie line that was added to the answer
	err        error  // of the next handler, which has answered nothing
}

// watchLoop returns a watch for the answer to a request, or nil if the browser sends
// no count.
func (h *Handler) watchLoop(r *http.Request, c *cookies) *loopWatch {
	if !c.hasLoopCount() {
		return nil
	}
	return &loopWatch{count: h.readLoopCount(c), navigation: h.isNavigation(r)}
}

// failed records the error of the next handler.
func (l *loopWatch) failed(err error) {
	if l != nil {
		l.err = err
	}
}

// cookieAfter returns the cookie for the count after an answer, or nil if the count
// stays as it is.
//
// Only navigations show pages. A script proves that the session cookie comes back, but
// says nothing about a redirect in another tab.
func (h *Handler) cookieAfter(l *loopWatch, target redirectTarget, hasSession bool) *http.Cookie {
	n := l.count
	switch {
	case l.navigation && target == toSite && n.Landings > 0:
		return nil
	case l.navigation && target != toPage && n.Landings > 0:
		n.Redirected = target
		if target == toLogin && !hasSession {
			n.Redirected = toLoginFromOpen
		}
	case hasSession && (l.navigation || n.Redirected == toPage):
		return h.loginCookie(loopCookieName, "", -1)
	case l.navigation && n.Redirected != toPage:
		n.Redirected = toPage
	default:
		return nil
	}
	return h.loopCookie(n)
}

// countAnswer changes the loop count with an answer of the Handler itself.
func (h *Handler) countAnswer(w http.ResponseWriter, r *http.Request, c *cookies, target redirectTarget, hasSession bool) {
	watch := h.watchLoop(r, c)
	if watch == nil {
		return
	}
	if cookie := h.cookieAfter(watch, target, hasSession); cookie != nil {
		http.SetCookie(w, cookie)
	}
}

// updateLoopCount adds the changed count to the app's answer. It also marks the answer
// as private, because a cache must not store the Set-Cookie line. A status of 0 means
// that the next handler has answered nothing.
func (g *cookieGuard) updateLoopCount(status int) {
	if g.loop == nil || g.disabled {
		return
	}
	target := toPage
	switch {
	case status == 0 && g.loop.err != nil:
		target = g.handler.errorTarget(g.request, g.loop.err)
	case status/100 == 3 && status != http.StatusNotModified:
		target = g.handler.targetOf(g.request, g.header.Get("Location"))
	}
	cookie := g.handler.cookieAfter(g.loop, target, g.session != nil)
	if cookie == nil {
		return
	}
	g.loop.line = cookie.String()
	g.header[setCookie] = append(slices.Clone(g.header[setCookie]), g.loop.line)
	caching := slices.Clone(g.header["Cache-Control"])
	if status == http.StatusNotModified && caching == nil {
		// The line replaces the one that a cache has stored. no-cache is right for
		// every page.
		caching = append(caching, "no-cache")
	}
	caching = append(caching, "private")
	g.header["Cache-Control"] = []string{strings.Join(caching, ", ")}
}

// isLoopLine reports whether this Handler or an outer one has added a Set-Cookie line
// to the answer.
func (g *cookieGuard) isLoopLine(line string) bool {
	for {
		if g.loop != nil && g.loop.line == line {
			return true
		}
		if g = outerGuard(g.ResponseWriter); g == nil {
			return false
		}
	}
}

// outerGuard returns the next guard in a chain of response writers, or nil.
func outerGuard(w http.ResponseWriter) *cookieGuard {
	for {
		switch g := w.(type) {
		case *cookieGuard:
			return g
		case *unprotectedWriter:
			return &g.cookieGuard
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return nil
		}
		w = wrapper.Unwrap()
	}
}

// errorTarget returns the target of the surrounding server's answer to an error.
func (h *Handler) errorTarget(r *http.Request, err error) redirectTarget {
	if h.ErrorRedirect == nil {
		return toPage
	}
	target := h.targetOf(r, h.ErrorRedirect(r, err))
	if target == toLogin {
		return toLoginFromError
	}
	return target
}

// targetOf classifies the Location of a redirect. An app behind a TLS proxy may write
// the scheme http, so only hosts are compared.
func (h *Handler) targetOf(r *http.Request, location string) redirectTarget {
	if location == "" {
		return toPage
	}
	origin, failure := h.origin(r)
	own, err := url.Parse(origin)
	to, toErr := url.Parse(location)
	if failure != nil || err != nil || toErr != nil {
		return toSite
	}
	if to.Host != "" && !strings.EqualFold(strings.TrimSuffix(to.Hostname(), "."), own.Hostname()) {
		return toOtherHost
	}
	if h.OriginalURL(r).ResolveReference(to).Path == h.PathPrefix+loginPath {
		return toLogin
	}
	return toSite
}
